import pytest
import torch

from gpro_empathy.policy.frozen_linear import FrozenLinear


@torch.no_grad()
@pytest.mark.parametrize("shape", [(32,), (1, 32), (3, 32), (2, 3, 32)])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("in_blocks", [True, False])
def test_frozen_layer_is_a_linear_layer(shape, with_bias, in_blocks, monkeypatch):
    if not in_blocks:  # a torch without oneDNN
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    linear = torch.nn.Linear(32, 5, bias=with_bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    layer = FrozenLinear(linear.weight.detach(), linear.bias, rows=6)
    assert layer.in_blocks == in_blocks
    assert layer(x).shape == (*shape[:-1], 5)
    assert torch.allclose(layer(x), linear(x), atol=1e-6)
