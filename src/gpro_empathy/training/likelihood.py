"""How likely an answer is under the starting policy, which learned from demonstrations alone.

A reward that a policy drifts away from sense to please falls in it: words that do not fit the
user's message, or each other, are unlikely to a model that was shown plain replies.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gpro_empathy import params, response_format
from gpro_empathy.policy import adapters, loading
from gpro_empathy.response_format import Response
from gpro_empathy.training import packed_logprobs

# Responses in one forward pass, and so behind one run of the system prompt: bounds memory.
RESPONSES_PER_FORWARD = 16


class Likelihood:
    """The mean log-probability of an answer's tokens, given the message and the reasoning; nats.

    At most 0. A reply without a well-formed answer block is taken whole, as by every other term.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer

    @torch.no_grad()
    def __call__(self, utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
        prompts = [loading.prompt_ids(self.tokenizer, response_format.messages(text)) for text in utterances]
        parts = [self._tokens(response) for response in responses]
        mean_B = np.zeros(len(responses))
        for rows in _by_length([len(prompt) + len(ids) for prompt, (ids, _) in zip(prompts, parts, strict=True)]):
            mean_B[rows] = self._means([prompts[i] for i in rows], [parts[i] for i in rows])
        return mean_B

    def _tokens(self, response: Response) -> tuple[list[int], tuple[int, int]]:
        """Return a reply's token ids, and where those of its answer begin and end."""
        start = response.text.find(response.answer, response.text.find("<answer>") + 1)
        end = start + len(response.answer)
        encoded = self.tokenizer(response.text, add_special_tokens=False, return_offsets_mapping=True)
        inside = [i for i, (first, last) in enumerate(encoded["offset_mapping"]) if last > start and first < end]
        return encoded["input_ids"], (inside[0], inside[-1] + 1) if inside else (0, 0)

    def _means(self, prompts: list[list[int]], parts: list[tuple[list[int], tuple[int, int]]]) -> np.ndarray:
        shared = response_format.shared_prefix(prompts)
        rests = [prompt[shared:] for prompt in prompts]
        packing = packed_logprobs.pack(
            [prompt[:shared] for prompt in prompts],
            [rest + ids[: span[1]] for rest, (ids, span) in zip(rests, parts, strict=True)],
            starts=[len(rest) + span[0] for rest, (_, span) in zip(rests, parts, strict=True)],
        )
        with loading.autocast(self.model):
            logits_MV = packed_logprobs.logits(self.model, packing).float()
        target_M = packing.target_M.to(logits_MV.device)
        logps_M = logits_MV.gather(1, target_M[:, None]).squeeze(1) - logits_MV.logsumexp(1)
        sum_B = np.bincount(packing.row_M.numpy(), weights=logps_M.double().cpu().numpy(), minlength=len(prompts))
        return sum_B / np.maximum(np.bincount(packing.row_M.numpy(), minlength=len(prompts)), 1)


def load(config: params.Policy, folder: Path, adapter: Path | None) -> Likelihood:
    """Load the likelihood under a converted policy with an adapter, or without one.

    Raises:
        UserError: If the model cannot be loaded, or the adapter belongs to another one.
    """
    model = loading.load_base(config, folder)
    if adapter is not None:
        adapters.check_base(adapter, folder)
        model = loading.add_lora(model, config, adapter).merge_and_unload()
    return Likelihood(model.requires_grad_(False), loading.load_tokenizer(folder))


def _by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    order = np.argsort(lengths, kind="stable").tolist()
    for start in range(0, len(order), RESPONSES_PER_FORWARD):
        yield order[start : start + RESPONSES_PER_FORWARD]
