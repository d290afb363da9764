from pathlib import Path

import pytest

from gpro_empathy.machine import GIB
from gpro_empathy.tools import gpu_memory, profiles

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "profiles/architectures"
# Two layers, hidden size 4, intermediate size 6, two heads of 2 and one of keys and values, a vocabulary of 10.
TINY = {
    "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "vocab_size": 10, "tie_word_embeddings": False,
}  # fmt: skip


def kept(name):
    return gpu_memory.architecture(name, FOLDER)


def test_parameters_of_a_tiny_model_are_counted_by_hand():
    # A layer: q 4x4, k and v 4x2, o 4x4, gate and up 4x6, down 6x4: 120. Two embeddings of 10x4, five norms of 4.
    assert gpu_memory.decoder_parameters(TINY) == (240, 100)
    # A layer at rank 3: 3 x (8 + 6 + 6 + 8 + 10 + 10 + 10).
    assert gpu_memory.lora_parameters(TINY, 3) == 2 * 3 * 58


def test_memory_of_a_tiny_model_is_summed_by_hand():
    assert gpu_memory.weights(TINY, load_in_4bit=False) * GIB == pytest.approx(340 * 2)
    assert gpu_memory.weights(TINY, load_in_4bit=True) * GIB == pytest.approx(240 * (0.5 + 1.015625 / 64) + 100 * 2)
    # 7 tokens, two layers of keys and values of 2 numbers of 2 bytes.
    assert gpu_memory.cache(TINY, 7) * GIB == pytest.approx(7 * 2 * 2 * 2 * 2)
    # 3 rows of 5 tokens: 2x4 inputs, 8x4 + 4x6 in a layer, 2 bytes each; 3 rows of 2 completions, 10 logits of 10 bytes.
    assert gpu_memory.activations(TINY, 3, 5, 2) * GIB == pytest.approx(15 * 64 * 2 + 6 * 10 * 10)


def test_kept_architectures_have_the_sizes_that_their_makers_state():
    assert sum(gpu_memory.decoder_parameters(kept("meta-llama/Llama-3.1-8B-Instruct"))) == 8_030_261_248
    assert sum(gpu_memory.decoder_parameters(kept("meta-llama/Llama-3.1-70B-Instruct"))) == 70_553_706_496
    assert gpu_memory.lora_parameters(kept("meta-llama/Llama-3.1-8B-Instruct"), 32) == 83_886_080


@pytest.mark.parametrize(
    "name", ["Llama-3.1-8B-Instruct", "Llama-3.1-70B-Instruct", "roberta-base", "stsb-roberta-large"]
)
def test_count_is_that_of_the_model_that_transformers_builds(name):
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    architecture = kept(name)
    is_llama = architecture["model_type"] == "llama"
    config = AutoConfig.for_model(**architecture)
    with torch.device("meta"):
        model = (AutoModelForCausalLM if is_llama else AutoModel).from_config(config)
    counted = sum(parameter.numel() for parameter in model.parameters())
    if is_llama:
        assert sum(gpu_memory.decoder_parameters(architecture)) == counted
    else:
        pooler = (config.hidden_size + 1) * config.hidden_size
        assert gpu_memory.encoder_parameters(architecture) == counted - pooler


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
    def found(mode):
        grpo = settings.train_grpo.model_copy(update={"vllm_mode": mode})
        return gpu_memory.training(
            settings.model_copy(update={"train_grpo": grpo}), kept("x/Llama-3.1-8B-Instruct"), []
        )

    own, beside, server = found("none"), found("colocate"), found("server")
    assert own.share is server.share is None
    assert own.total - server.total == pytest.approx(own.parts[gpu_memory.CACHE])
    inside = 15.0 + own.parts[gpu_memory.CACHE] + gpu_memory.WORKSPACE_GIB
    assert beside.total == pytest.approx(inside / 0.6, rel=0.01)


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
