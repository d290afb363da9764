from pathlib import Path

import pytest

from gpro_empathy.files import UserError
from gpro_empathy.machine import GIB
from gpro_empathy.tools import gpu_memory, profiles

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "profiles/architectures"
# Two layers, hidden size 4, intermediate size 6, two heads of 2 and one of keys and values, a
# vocabulary of 10.
TINY = {
    "model_type": "llama", "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "vocab_size": 10, "tie_word_embeddings": False,
}  # fmt: skip


def kept(name):
    return gpu_memory.architecture(name, FOLDER)


def test_parameters_of_a_tiny_model_are_counted_by_hand():
    # A layer: q 4x4, k and v 4x2, o 4x4, gate and up 4x6, down 6x4: 120. Two embeddings of 10x4,
    # five norms of 4.
    assert gpu_memory.decoder_parameters(TINY) == (240, 100)
    # A layer at rank 3: 3 x (8 + 6 + 6 + 8 + 10 + 10 + 10).
    assert gpu_memory.lora_parameters(TINY, 3) == 2 * 3 * 58


def test_memory_of_a_tiny_model_is_summed_by_hand():
    assert gpu_memory.weights(TINY, load_in_4bit=False) * GIB == pytest.approx(340 * 2)
    assert gpu_memory.weights(TINY, load_in_4bit=True) * GIB == pytest.approx(240 * (0.5 + 1.015625 / 64) + 100 * 2)
    # 7 tokens, two layers of keys and values of 2 numbers of 2 bytes.
    assert gpu_memory.cache(TINY, 7) * GIB == pytest.approx(7 * 2 * 2 * 2 * 2)
    # 3 rows of 5 tokens: 2x4 inputs, 8x4 + 4x6 in a layer, 2 bytes each; 3 rows of 2 completions,
    # 10 logits of 10 bytes.
    assert gpu_memory.activations(TINY, 3, 5, 2) * GIB == pytest.approx(15 * 64 * 2 + 6 * 10 * 10)


def test_kept_architectures_have_the_sizes_that_their_makers_state():
    assert sum(gpu_memory.decoder_parameters(kept("meta-llama/Llama-3.1-8B-Instruct"))) == 8_030_261_248
    assert sum(gpu_memory.decoder_parameters(kept("meta-llama/Llama-3.1-70B-Instruct"))) == 70_553_706_496
    assert gpu_memory.lora_parameters(kept("meta-llama/Llama-3.1-8B-Instruct"), 32) == 83_886_080


def test_memory_of_the_kept_architectures_is_that_of_the_formulas_for_llama_and_roberta():
    """GiB, worked out once from formulas of these two architectures."""
    found = {
        name: [
            gpu_memory.weights(kept(name), load_in_4bit=True), gpu_memory.weights(kept(name), load_in_4bit=False),
            gpu_memory.cache(kept(name), 4096), gpu_memory.gathered(kept(name)),
            gpu_memory.activations(kept(name), 3, 1024, 512),
        ]
        for name in ("Llama-3.1-8B-Instruct", "Llama-3.1-70B-Instruct")
    }  # fmt: skip
    assert found["Llama-3.1-8B-Instruct"] == pytest.approx([5.310677, 14.957527, 0.5, 1.791016, 3.100342], abs=1e-6)
    assert found["Llama-3.1-70B-Instruct"] == pytest.approx([36.803177, 131.416519, 1.25, 5.144531, 6.615967], abs=1e-6)
    encoders = [gpu_memory.encoders([kept(name)]) for name in ("roberta-base", "stsb-roberta-large")]
    assert encoders == pytest.approx([0.462141, 1.319908], abs=1e-6)


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "gemma"])
def test_counts_are_those_of_the_model_with_its_lora_matrices_and_its_cache(model_type, tiny_policy):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from gpro_empathy.policy import loading

    architecture = {
        "model_type": model_type, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 32, "tie_word_embeddings": model_type == "gemma",
    }  # fmt: skip
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture))
    assert sum(gpu_memory.decoder_parameters(architecture)) == model.num_parameters()
    cache = model(torch.zeros((1, 1), dtype=torch.long)).past_key_values
    kept_of_a_token = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert gpu_memory.sizes(architecture).per_token == kept_of_a_token
    trained = loading.add_lora(model, tiny_policy, None).num_parameters(only_trainable=True)
    assert gpu_memory.lora_parameters(architecture, tiny_policy.lora_rank) == trained


def test_a_model_that_transformers_does_not_know_is_refused():
    with pytest.raises(UserError, match=r"'nothing'.*config\.json"):
        gpu_memory.sizes({"model_type": "nothing"})


def test_each_side_of_vllms_share_must_fit():
    parts = {"weights": 6.0, "LoRA": 1.0, "overhead": 3.0}
    assert gpu_memory.Sum(parts, None).total == 10
    assert gpu_memory.Sum(parts, 0.5, ("weights",)).total == 12
    assert gpu_memory.Sum(parts, 0.75, ("weights",)).total == 16


def test_published_profile_fits_a_gpu_of_24_gib_and_shows_its_sum(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = profiles.preview("llama-3.1-8b")
    rewards = [kept("cross-encoder/stsb-roberta-large"), kept("roberta-base")]
    found = gpu_memory.training(config, kept(config.policy.model), rewards)
    assert found.total < 24
    assert found.text().startswith("weights 5.3 + LoRA and optimizer 0.8 + ")
    assert found.text().endswith(f": {found.total:.1f} GiB")
    longer = config.model_copy(update={"policy": config.policy.model_copy(update={"max_completion_tokens": 4096})})
    assert gpu_memory.training(longer, kept(config.policy.model), rewards).total > 40


def test_vllm_beside_the_trainer_has_a_copy_of_the_weights_and_on_a_server_takes_nothing(settings):
    rewards = settings.rewards.model_copy(update={"weights": {"empathy": 1.0}})

    def found(mode):
        grpo = settings.train_grpo.model_copy(update={"vllm_mode": mode})
        config = settings.model_copy(update={"train_grpo": grpo, "rewards": rewards})
        return gpu_memory.training(config, kept("x/Llama-3.1-8B-Instruct"), [])

    own, beside, server = found("none"), found("colocate"), found("server")
    assert own.share is server.share is None
    assert own.total - server.total == pytest.approx(own.parts[gpu_memory.CACHE])
    inside = 15.0 + own.parts[gpu_memory.CACHE] + gpu_memory.WORKSPACE_GIB
    assert beside.total == pytest.approx(inside / 0.6, rel=0.01)


def test_the_term_likelihood_holds_the_policy_once_more(settings):
    without = settings.model_copy(update={"rewards": settings.rewards.model_copy(update={"weights": {"empathy": 1.0}})})
    weighed = {"empathy": 1.0, "likelihood": 1.0}
    with_it = settings.model_copy(update={"rewards": settings.rewards.model_copy(update={"weights": weighed})})
    for room in (gpu_memory.training, gpu_memory.rollout):
        more = room(with_it, TINY, []).total - room(without, TINY, []).total
        assert more == pytest.approx(gpu_memory.weights(TINY, settings.policy.load_in_4bit))


def test_vllm_beside_unsloth_has_the_scales_of_4_bit_weights_in_float32_in_its_share(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = profiles.preview("llama-3.1-8b")
    found = gpu_memory.training(config, TINY, [])
    # 240 weights of projections, 4 bytes for every 64.
    assert found.parts[gpu_memory.SCALES] * GIB == pytest.approx(240 / 64 * 4)
    assert gpu_memory.SCALES in found.vllm
    in_16_bits = config.policy.model_copy(update={"load_in_4bit": False})
    assert (
        gpu_memory.SCALES not in gpu_memory.training(config.model_copy(update={"policy": in_16_bits}), TINY, []).parts
    )


def test_rollouts_by_vllm_need_room_for_one_response_and_by_this_package_for_a_batch(settings):
    def found(**changes):
        rollout = settings.rollout.model_copy(update=changes)
        return gpu_memory.rollout(settings.model_copy(update={"rollout": rollout}), TINY, [])

    tokens = settings.policy.max_prompt_tokens + 100
    own = found(engine="transformers", batch_size=3, samples_per_prompt=5, max_completion_tokens=100)
    assert own.parts[gpu_memory.CACHE] == pytest.approx(gpu_memory.cache(TINY, 15 * tokens))
    assert own.share is None
    two = found(engine="vllm", vllm_gpus=2, max_completion_tokens=100)
    assert two.parts[gpu_memory.CACHE] == pytest.approx(gpu_memory.cache(TINY, tokens) / 2)
    assert two.parts["weights"] == pytest.approx(own.parts["weights"] / 2)
    assert two.total == pytest.approx(max(gpu_memory.WORKSPACE_GIB / 0.6, gpu_memory.OVERHEAD / 0.4), rel=1e-3)


def test_sharded_weights_are_whole_two_layers_at_a_time():
    # Two layers of 120 weights, and one of two embeddings of 10 x 4.
    assert gpu_memory.gathered(TINY) * GIB == pytest.approx((2 * 120 + 40) * 2)


def test_a_model_whose_architecture_is_not_kept_has_none():
    assert kept("someone/another-model") is None
