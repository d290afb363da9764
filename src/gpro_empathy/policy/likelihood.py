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
from gpro_empathy.policy import adapters, loading, packed_logprobs
from gpro_empathy.response_format import Response

# Responses in one forward pass, and so behind one run of the system prompt: bounds memory.
RESPONSES_PER_FORWARD = 16


class Likelihood:
    """The mean log-probability of an answer's tokens, given the message and the reasoning; nats.

    At most 0. A reply without a well-formed answer block is taken whole, as by every other term:
    the tags in it are likely, so that well_formed must have a weight too. What an answer repeats of
    its own reasoning is likely as well.
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
        # The answer may stand in the reasoning too. A malformed reply is its own answer, with tags.
        block = 0 if response.answer == response.text.strip() else response.text.find("<answer>") + len("<answer>")
        start = response.text.find(response.answer, block)
        end = start + len(response.answer)
        encoded = self.tokenizer(response.text, add_special_tokens=False, return_offsets_mapping=True)
        inside = [i for i, (first, last) in enumerate(encoded["offset_mapping"]) if last > start and first < end]
        if not inside:  # an empty reply: what it says is that it ends at once
            return [self.tokenizer.eos_token_id], (0, 1)
        return encoded["input_ids"], (inside[0], inside[-1] + 1)

    def _means(self, prompts: list[list[int]], parts: list[tuple[list[int], tuple[int, int]]]) -> np.ndarray:
        """Return the means of responses, run as one sequence behind what their prompts share."""
        shared = response_format.shared_prefix(prompts)
        packing = packed_logprobs.pack(
            [prompt[:shared] for prompt in prompts],
            [prompt[shared:] + ids[:end] for prompt, (ids, (_, end)) in zip(prompts, parts, strict=True)],
            starts=[len(prompt) - shared + start for prompt, (_, (start, _)) in zip(prompts, parts, strict=True)],
        )
        logits_MV = packed_logprobs.logits(self.model, packing).float()
        target_M = packing.target_M.to(logits_MV.device)
        logps_M = logits_MV.gather(1, target_M[:, None]).squeeze(1) - logits_MV.logsumexp(1)
        row_M = packing.row_M.numpy()
        return np.bincount(row_M, logps_M.double().cpu().numpy()) / np.bincount(row_M)


def load(config: params.Policy, folder: Path, adapter: Path | None) -> Likelihood:
    """Load the likelihood under a converted policy with an adapter, or without one.

    Raises:
        UserError: If the model cannot be loaded, or the adapter belongs to another one.
    """
    model = loading.load_base(config, folder, whole=True)
    if adapter is not None:
        adapters.check_base(adapter, folder)
        adapted = loading.add_lora(model, config, adapter)
        # Merged into weights that stay in four bits, the sum would be quantised anew.
        in_four_bits = config.load_in_4bit and torch.cuda.is_available()
        model = adapted.get_base_model() if in_four_bits else adapted.merge_and_unload()
    return Likelihood(model.requires_grad_(False), loading.load_tokenizer(folder))


def _by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    order = np.argsort(lengths, kind="stable").tolist()
    for start in range(0, len(order), RESPONSES_PER_FORWARD):
        yield order[start : start + RESPONSES_PER_FORWARD]
