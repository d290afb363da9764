import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from gpro_empathy.policy.packed_attention import packed_attention

HEADS, GROUPS, WIDTH = 6, 2, 4


class Module(nn.Module):
    """What transformers hands over with the states."""

    num_key_value_groups = HEADS // GROUPS
    is_causal = True


def states(groups, tokens):
    generator = torch.Generator().manual_seed(0)
    shapes = [(groups, heads, tokens, WIDTH) for heads in (HEADS, GROUPS, GROUPS)]
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def masked(query, key, value, lengths, scaling=None):
    """Return the result of one group's tokens by a mask over the whole sequence, (T, H, D)."""
    segment = torch.tensor([number for number, length in enumerate(lengths) for _ in range(length)])
    causal = torch.ones(len(segment), len(segment), dtype=torch.bool).tril()
    sees = causal & ((segment[:, None] == segment[None, :]) | (segment[None, :] == 0))
    query, key, value = (part[:, : len(segment)] for part in (query, key, value))
    key, value = (part.repeat_interleave(HEADS // GROUPS, dim=0) for part in (key, value))
    return scaled_dot_product_attention(query, key, value, attn_mask=sees, scale=scaling).transpose(0, 1)


@pytest.mark.parametrize("lengths", [[3, 2, 4], [1, 5], [4, 0, 3, 1], [2, 0, 0], [7, 1]])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_result_and_gradients_are_those_of_a_mask_over_the_whole_sequence(lengths, scaling):
    weight = torch.randn(sum(lengths), HEADS, WIDTH, generator=torch.Generator().manual_seed(1))
    ours, theirs = states(1, sum(lengths)), states(1, sum(lengths))
    found, weights = packed_attention(Module(), *ours, None, scaling=scaling, segment_lengths=[lengths])
    expected = masked(*(part[0] for part in theirs), lengths, scaling)
    assert weights is None
    assert found.shape == (1, sum(lengths), HEADS, WIDTH)
    assert torch.allclose(found[0], expected, atol=1e-6)
    (found[0] * weight).sum().backward()
    (expected * weight).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad, other.grad, atol=1e-6)


def test_groups_of_unequal_lengths_are_padded_with_zeros_that_get_no_gradient():
    query, key, value = states(2, 9)
    lengths = [[4, 3, 2], [2, 1, 2]]
    found, _ = packed_attention(Module(), query, key, value, None, segment_lengths=lengths)
    for row, group in enumerate(lengths):
        assert torch.allclose(found[row, : sum(group)], masked(query[row], key[row], value[row], group), atol=1e-6)
    assert (found[1, 5:] == 0).all()
    found.sum().backward()
    assert all((part.grad[1, :, 5:] == 0).all() for part in (query, key, value))


def test_without_groups_it_is_the_attention_of_transformers():
    query, key, value = states(2, 5)
    found, _ = packed_attention(Module(), query, key, value, None, scaling=0.5)
    expected, _ = sdpa_attention_forward(Module(), query, key, value, None, scaling=0.5)
    assert torch.equal(found, expected)
