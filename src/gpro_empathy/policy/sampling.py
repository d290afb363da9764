"""One way to sample responses, whatever holds the policy: what every sampler takes and returns.

The samplers are `decoding.DecoderSampler` (a model in this process), `vllm_engine.VllmSampler`,
`unsloth_engine.UnslothSampler`, and for GRPO with a vLLM server `backends.ServerSampler`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    The temperature is above 0, and top_p, the probability mass that is kept, in (0, 1]. A response
    ends with one of `eos_ids`, or with max_tokens tokens.
    """

    temperature: float
    top_p: float
    max_tokens: int
    eos_ids: tuple[int, ...]
    pad_id: int


def for_tokenizer(tokenizer, max_tokens: int, temperature: float, top_p: float) -> Sampling:
    """Return how to sample with the end and padding tokens of a tokenizer of transformers."""
    return Sampling(temperature, top_p, max_tokens, (tokenizer.eos_token_id,), tokenizer.pad_token_id)


class Sampler(Protocol):
    """Samples from one policy."""

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        samples_per_prompt: int,
        how: Sampling,
        rng: np.random.Generator,
    ) -> list[list[int]]:
        """Sample K = samples_per_prompt responses to each prompt.

        Args:
            prompts: Token ids of P prompts, ragged.
            rng: Gives each response numbers of its own, before decoding starts: a response depends
                on its place and not on what else is sampled.

        Returns:
            Token ids of P * K responses, prompt by prompt, ragged, each with its end token if it
            reached one.
        """
