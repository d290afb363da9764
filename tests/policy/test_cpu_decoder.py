import copy

import numpy as np
import pytest
import torch
from transformers import DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from conftest import randomise
from gpro_empathy.policy import decoding, loading, sampling
from gpro_empathy.policy.cpu_decoder import ROOM, FrozenLinear, decoder_of, empty_cache, grouped_attention
from gpro_empathy.policy.decoding import DecoderSampler

IDS = torch.tensor([[5, 9, 200, 7, 31, 8], [11, 12, 13, 14, 15, 16]])


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


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
    DecoderSampler(lora).sample([[5, 9]], 2, sampling.Sampling(1.0, 1.0, 3, (2,), 0), np.random.default_rng(0))
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
    how = sampling.Sampling(1.0, 0.9, 6, (2,), 0)
    prompts = [[5, 9, 200, 7], [11, 12]]
    uniform = torch.from_numpy(np.random.default_rng(3).random((4, 6)))
    by_policy, by_decoder = (decoding.decode(model, prompts, 2, how, uniform) for model in (lora, decoder_of(lora)))
    assert by_policy == by_decoder


# The cache and the attention of one query


def tokens_into(cache, rng, rows=3, steps=(5, 1, 1)):
    """Write made-up keys and values of some steps into a cache's first layer."""
    for tokens in steps:
        keys, values = (torch.from_numpy(rng.normal(size=(rows, 2, tokens, 4))).float() for _ in range(2))
        result = cache.update(keys, values, 0)
    return result


@pytest.mark.parametrize("change", [
    lambda cache: None,
    lambda cache: cache.batch_repeat_interleave(2),
    lambda cache: cache.batch_select_indices(torch.tensor([2, 0])),
])  # fmt: skip
def test_cache_with_room_holds_what_a_growing_one_holds(change):
    found = []
    for cache in (empty_cache(), DynamicCache()):
        rng = np.random.default_rng(0)
        tokens_into(cache, rng)
        change(cache)
        # Past the room of one allocation, so that a second is made.
        steps = (1,) * (ROOM + 3)
        found.append(tokens_into(cache, rng, rows=cache.layers[0].keys.shape[0], steps=steps))
        assert cache.get_seq_length() == 7 + len(steps)
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("tokens", [1, 4])
def test_attention_of_one_query_is_that_of_transformers(base, tokens):
    """Six heads in two groups, and a mask that hides other keys in each row."""
    generator = torch.Generator().manual_seed(1)
    module = base.model.layers[0].self_attn
    module.num_key_value_groups = 3
    query = torch.randn(2, 6, tokens, 8, generator=generator)
    key, value = (torch.randn(2, 2, 9, 8, generator=generator) for _ in range(2))
    mask = torch.rand(2, 1, tokens, 9, generator=generator) < 0.7
    mask[..., 0] = True
    found, _ = grouped_attention(module, query, key, value, mask, scaling=0.3)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    assert torch.allclose(found, expected, atol=1e-5)


def test_decoder_of_a_bfloat16_policy_rounds_the_merged_weight_once(tiny_policy, policy_folder):
    config = tiny_policy.model_copy(update={"dtype": "bfloat16"})
    model = loading.add_lora(loading.load_base(config, policy_folder), config, None)
    randomise(model)
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    delta = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * layer.scaling["default"]
    merged = decoder_of(model).model.layers[0].mlp.up_proj.weight
    assert merged.dtype == torch.bfloat16
    assert torch.equal(merged, (layer.get_base_layer().weight.float() + delta).bfloat16())


# The layer


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
