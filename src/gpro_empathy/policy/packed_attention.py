"""Attention of a group that stands in one sequence.

The prompt attends to itself, then each completion to the prompt and itself.

A mask over the whole sequence would give the same numbers, but most of what it multiplies it would
throw away: the tokens of every other completion.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "packed_groups"


def packed_attention(
    module, query_NHTD, key_NGTD, value_NGTD, attention_mask, scaling=None, segment_lengths=None, **kwargs
):
    """Attend within each of N packed groups, H query heads to G key heads.

    Without groups, as transformers does.

    Called by transformers. `segment_lengths` says for each group how many tokens its prompt and
    each of its completions have, in the order in which they stand; what follows them is padding,
    whose result is zero.

    Returns:
        The result, shape (N, T, H, D), and no weights.
    """
    if segment_lengths is None:
        return sdpa_attention_forward(
            module, query_NHTD, key_NGTD, value_NGTD, attention_mask, scaling=scaling, **kwargs
        )
    tokens = query_NHTD.shape[2]
    groups = zip(query_NHTD, key_NGTD, value_NGTD, segment_lengths, strict=True)
    results = [_attend_group(query, key, value, lengths, scaling) for query, key, value, lengths in groups]
    padded = [nn.functional.pad(result, (0, 0, 0, 0, 0, tokens - len(result))) for result in results]
    return torch.stack(padded), None


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def _attend_group(query_HTD, key_GTD, value_GTD, lengths: Sequence[int], scaling: float | None) -> torch.Tensor:
    """Return the result of a group's tokens, shape (T, H, D), T without the padding."""
    query, key, value = (_split(states, lengths) for states in (query_HTD, key_GTD, value_GTD))
    result_1HPD = _attend(query[0], key[0], value[0], scaling)
    result_KHLD = _attend(query[1], _behind(*key), _behind(*value), scaling)
    rows = [row[:, :length] for row, length in zip(result_KHLD, lengths[1:], strict=True)]
    return torch.cat([result_1HPD[0], *rows], dim=1).transpose(0, 1)


def _split(states_HTD: torch.Tensor, lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the prompt's states and the K completions', padded.

    Their shapes are (1, H, P, D) and (K, H, L, D).
    """
    prompt, *completions = states_HTD[:, : sum(lengths)].transpose(0, 1).split(list(lengths))
    return prompt.transpose(0, 1)[None], pad_sequence(completions, batch_first=True).transpose(1, 2)


def _behind(prompt_1HPD: torch.Tensor, completions_KHLD: torch.Tensor) -> torch.Tensor:
    """Return each completion's states behind the prompt's, shape (K, H, P + L, D)."""
    return torch.cat([prompt_1HPD.expand(len(completions_KHLD), -1, -1, -1), completions_KHLD], dim=2)


def _attend(query_BHLD, key_BGSD, value_BGSD, scaling: float | None) -> torch.Tensor:
    """Attend where the last query sees all keys, and each before it one less; shape (B, H, L, D).

    The padding of a completion stands behind its tokens, so that they do not see it. The heads of a
    group of heads are further queries of one attention, which copies no keys.
    """
    rows, heads, queries, width = query_BHLD.shape
    groups, keys = key_BGSD.shape[1:3]
    sees_LS = torch.ones(queries, keys, dtype=torch.bool, device=query_BHLD.device).tril(keys - queries)
    result = nn.functional.scaled_dot_product_attention(
        query_BHLD.reshape(rows, groups, -1, width),
        key_BGSD,
        value_BGSD,
        attn_mask=sees_LS.repeat(heads // groups, 1),
        scale=scaling,
    )
    return result.reshape(rows, heads, queries, width)
