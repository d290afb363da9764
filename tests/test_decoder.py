import copy

import numpy as np
import pytest
import torch

from conftest import randomise
from gpro_empathy import generation
from gpro_empathy.decoder import FewRowsLinear, decoder_of

IDS = torch.tensor([[5, 9, 200, 7, 31, 8], [11, 12, 13, 14, 15, 16]])

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the policy decodes itself")


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("shape", [(32,), (1, 32), (3, 32), (2, 3, 32)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_layer_for_few_rows_is_a_linear_layer(shape, with_bias):
    linear = torch.nn.Linear(32, 5, bias=with_bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = FewRowsLinear(linear.weight.detach(), linear.bias)(x)
    assert found.shape == (*shape[:-1], 5)
    assert torch.allclose(found, linear(x), atol=1e-6)


def test_decoder_gives_the_logits_of_the_base_model(base):
    assert torch.allclose(logits(decoder_of(base)), logits(base), atol=1e-5)


def test_decoder_gives_the_logits_of_the_policy_with_its_adapter(lora, base):
    expected = logits(lora)
    assert torch.allclose(logits(decoder_of(lora)), expected, atol=1e-5)
    with lora.disable_adapter():
        assert not torch.allclose(logits(lora), expected, atol=1e-3)
        assert torch.allclose(logits(decoder_of(lora)), logits(lora), atol=1e-5)


def test_decoder_follows_the_active_adapter_alone(lora):
    lora.add_adapter("other", lora.peft_config["default"])
    randomise(lora, seed=7, scale=0.2)
    found = {}
    for name in ("default", "other"):
        lora.set_adapter(name)
        found[name] = logits(decoder_of(lora))
        assert torch.allclose(found[name], logits(lora), atol=1e-5)
    assert not torch.allclose(found["default"], found["other"], atol=1e-3)


def test_policy_is_left_as_it_was_and_can_still_be_trained(lora):
    before, reference = copy.deepcopy(lora.state_dict()), copy.deepcopy(lora)
    lora.train()
    decoder = decoder_of(lora)
    generation.sample(decoder, [[5, 9]], 2, generation.Sampling(1.0, 1.0, 3, (2,), 0), np.random.default_rng(0))
    assert lora.training
    assert not decoder.training
    assert all(torch.equal(value, before[name]) for name, value in lora.state_dict().items())
    for model in (lora, reference):
        model(input_ids=IDS, labels=IDS).loss.backward()
    theirs = dict(reference.named_parameters())
    trained = [(name, parameter) for name, parameter in lora.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 7 * 2
    assert all(torch.equal(parameter.grad, theirs[name].grad) for name, parameter in trained)


def test_decoder_of_a_trained_policy_is_made_anew(lora):
    old = logits(decoder_of(lora))
    randomise(lora, seed=9)
    assert not torch.allclose(logits(decoder_of(lora)), old, atol=1e-3)
    assert torch.allclose(logits(decoder_of(lora)), logits(lora), atol=1e-5)


def test_weights_that_lora_leaves_alone_are_shared(lora):
    decoder = decoder_of(lora)
    ours, theirs = decoder.get_input_embeddings().weight, lora.get_base_model().get_input_embeddings().weight
    assert ours.data_ptr() == theirs.data_ptr()
    assert not any(parameter.is_meta for parameter in decoder.parameters())
    assert not any(buffer.is_meta for buffer in decoder.buffers())


def test_decoder_draws_what_the_policy_draws(lora):
    with torch.no_grad():
        lora.get_base_model().model.norm.weight.mul_(20.0)  # far enough apart for rounding not to decide
    how = generation.Sampling(1.0, 0.9, 6, (2,), 0)
    prompts = [[5, 9, 200, 7], [11, 12]]
    one, other = (
        generation.sample(model, prompts, 2, how, np.random.default_rng(3)) for model in (lora, decoder_of(lora))
    )
    assert one == other
