"""Decode in this process, each prompt read once.

All samples of a prompt are decoded together, and finished ones are dropped.

Random numbers are drawn per response before decoding starts, so that a response depends on its own
row of numbers and not on which other responses share its batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from gpro_empathy.policy.cpu_decoder import decoder_of, empty_cache
from gpro_empathy.policy.sampling import Sampling
from gpro_empathy.response_format import shared_prefix

# Of the probabilities, only so many of the largest are sorted to find the top-p set; more only if
# these do not reach it.
TOP_P_CANDIDATES = (64, 512)
# Tokens whose probabilities are summed before one of them is looked for, where the whole
# distribution is drawn from.
BLOCK = 256


class DecoderSampler:
    """Samples from a model in this process, on a processor by its fast copy (see `cpu_decoder`).

    Args:
        model: A causal language model of transformers, or its PEFT wrapper with the adapter to
            sample from active. On a processor later changes of its weights or adapter count no
            more.
        drawn_per_prompt: For how many responses to a prompt numbers are drawn; where fewer are
            sampled they take the first, so that their numbers are those of a policy that gives all.
            Without, for as many as are sampled.
        on_token: Called after every decoding step with the step and the number of responses still
            open.
    """

    def __init__(
        self,
        model: nn.Module,
        drawn_per_prompt: int | None = None,
        on_token: Callable[[int, int], None] | None = None,
    ) -> None:
        self._decoder = decoder_of(model)
        self._drawn_per_prompt, self._on_token = drawn_per_prompt, on_token

    def sample(
        self, prompts: Sequence[Sequence[int]], samples_per_prompt: int, how: Sampling, rng: np.random.Generator
    ) -> list[list[int]]:
        """Sample as `Sampler.sample`; `rng` gives one uniform number per response and token."""
        drawn = self._drawn_per_prompt or samples_per_prompt
        uniform_PKT = rng.random((len(prompts), drawn, how.max_tokens))[:, :samples_per_prompt]
        uniform_BT = torch.from_numpy(uniform_PKT.reshape(-1, how.max_tokens))
        with _evaluating(self._decoder):
            return decode(self._decoder, prompts, samples_per_prompt, how, uniform_BT, self._on_token)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Turn dropout off in the block."""
    was_training = model.training
    model.eval()
    yield
    model.train(was_training)


@torch.no_grad()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    samples_per_prompt: int,
    how: Sampling,
    uniform_BT: torch.Tensor,
    on_token: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Sample responses from given uniform numbers, shape (P * K, max_tokens).

    Otherwise as `Sampler.sample`.

    `on_token` is called after every decoding step with the step and the number of responses still
    open.
    """
    device = model.device
    uniform_BT = uniform_BT.to(device)
    logits_BV, cache, mask_BT = _read_prompts(model, prompts, samples_per_prompt, how.pad_id)
    eos = torch.tensor(how.eos_ids, device=device)
    rows_B = torch.arange(len(logits_BV), device=device)  # which response each row of the batch belongs to
    responses: list[list[int]] = [[] for _ in range(len(rows_B))]
    for step in range(how.max_tokens):
        tokens_B = draw(logits_BV, how, uniform_BT[rows_B, step])
        for row, token in zip(rows_B.tolist(), tokens_B.tolist(), strict=True):
            responses[row].append(token)
        open_B = ~torch.isin(tokens_B, eos)
        if on_token is not None:
            on_token(step, int(open_B.sum()))
        if step + 1 == how.max_tokens or not bool(open_B.any()):
            break
        if not bool(open_B.all()):
            keep = open_B.nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            rows_B, tokens_B, mask_BT = rows_B[keep], tokens_B[keep], mask_BT[keep]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows_B), 1)], dim=1)
        output = model(
            input_ids=tokens_B[:, None],
            attention_mask=mask_BT,
            position_ids=mask_BT.sum(1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_BV = output.logits[:, -1]
    return responses


def draw(logits_BV: torch.Tensor, how: Sampling, uniform_B: torch.Tensor) -> torch.Tensor:
    """Draw one token a row by inverting the cumulative distribution at `uniform_B` in [0, 1).

    Tokens are ordered by falling probability within the top-p set (Holtzman et al. 2020, The
    Curious Case of Neural Text Degeneration), the smallest set that holds at least top_p of the
    mass; by id where top_p is 1.
    """
    probabilities_BV = torch.softmax(logits_BV.float() / how.temperature, dim=-1)
    if how.top_p >= 1:
        return _draw_by_id(probabilities_BV, uniform_B)
    for size in TOP_P_CANDIDATES:
        top = probabilities_BV.topk(min(size, probabilities_BV.shape[1]), dim=-1)
        if bool((top.values.sum(-1) >= how.top_p).all()):
            break
    else:
        top = probabilities_BV.sort(dim=-1, descending=True)
    cumulative_BC = top.values.double().cumsum(-1)
    last_B = (cumulative_BC < how.top_p).sum(-1).clamp(max=cumulative_BC.shape[1] - 1)
    mass_B = cumulative_BC.gather(1, last_B[:, None]).squeeze(1)
    chosen_B = torch.minimum(_invert(cumulative_BC, uniform_B * mass_B), last_B)
    return top.indices.gather(1, chosen_B[:, None]).squeeze(1)


def _draw_by_id(probabilities_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """Draw from the whole distribution: first a block of tokens, then one of its tokens.

    A cumulative sum over the vocabulary in double precision would take a tenth of the time of
    decoding.
    """
    rows, tokens = probabilities_BV.shape
    blocks_BNK = nn.functional.pad(probabilities_BV, (0, -tokens % BLOCK)).view(rows, -1, BLOCK)
    # Single precision within a block, double across blocks: a token's share of the draws is off by
    # a rounding error.
    cumulative_BN = blocks_BNK.sum(-1).double().cumsum(-1)
    mass_B = uniform_B * cumulative_BN[:, -1]
    block_B = _invert(cumulative_BN, mass_B)
    row_B = torch.arange(rows, device=block_B.device)
    before_B = torch.where(block_B > 0, cumulative_BN[row_B, block_B - 1], 0.0)
    inside_BK = blocks_BNK[row_B, block_B].double().cumsum(-1)
    # A number that rounding puts past the end of its block belongs to the block's last token of any
    # probability.
    left_B = torch.minimum(mass_B - before_B, inside_BK[:, -1].nextafter(inside_BK.new_zeros(())))
    return block_B * BLOCK + _invert(inside_BK, left_B)


def _invert(cumulative_BV: torch.Tensor, mass_B: torch.Tensor) -> torch.Tensor:
    index_B = torch.searchsorted(cumulative_BV, mass_B.double()[:, None], right=True).squeeze(1)
    return index_B.clamp(max=cumulative_BV.shape[1] - 1)


def _read_prompts(model, prompts, samples_per_prompt, pad_id):
    """Run the prompts once, and repeat logits, cache and mask for each prompt's samples.

    What all prompts share is run only once.

    The tokens that are shared, of the system prompt, stand first in every row; the others end in
    its last column.
    """
    cache = empty_cache()
    shared = shared_prefix(prompts)
    if shared:
        model(
            input_ids=torch.tensor([prompts[0][:shared]], device=model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.batch_repeat_interleave(len(prompts))
    longest = max(len(ids) for ids in prompts) - shared
    ids_PT = torch.full((len(prompts), longest), pad_id, device=model.device)
    mask_PT = torch.zeros_like(ids_PT)
    for row, ids in enumerate(prompts):
        rest = torch.tensor(ids[shared:], device=model.device)
        ids_PT[row, longest - len(rest) :] = rest
        mask_PT[row, longest - len(rest) :] = 1
    mask_PS = torch.cat([mask_PT.new_ones(len(prompts), shared), mask_PT], dim=1)
    output = model(
        input_ids=ids_PT,
        attention_mask=mask_PS,
        position_ids=(mask_PS.cumsum(1) - 1).clamp(min=0)[:, shared:],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_repeat_interleave(samples_per_prompt)
    logits_BV = output.logits[:, -1].repeat_interleave(samples_per_prompt, dim=0)
    return logits_BV, cache, mask_PS.repeat_interleave(samples_per_prompt, dim=0)
