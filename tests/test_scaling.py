"""The arithmetic of docs/scaling.md, against published sizes and by hand."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bench"))

import scaling  # noqa: E402  found by the line before


def test_page_shows_what_the_formulas_give():
    assert scaling.report() in (ROOT / "docs/scaling.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "weights", "lora"), [("8B", 8_030_261_248, 83_886_080), ("70B", 70_553_706_496, 414_187_520)])  # fmt: skip
def test_models_have_their_published_sizes(name, weights, lora):
    """Weights as in the model cards' safetensors; LoRA of rank 32 on all projections, as PEFT counts them."""
    assert (scaling.MODELS[name].weights, scaling.MODELS[name].lora) == (weights, lora)


def test_cache_of_a_token_is_keys_and_values_of_every_layer():
    """8B: 2 x 32 layers x 8 heads x 128 numbers of 2 bytes."""
    assert scaling.MODELS["8B"].cache_bytes == 2 * 32 * 8 * 128 * 2 == 131_072


def test_memory_is_the_sum_by_hand():
    found = scaling.training_memory(scaling.Plan("8B", 2, 0, 4, 8))
    tokens = 320 + 8 * 128
    assert found["weights"] == 2 * 8_030_261_248
    assert found["lora"] == 16 * 83_886_080
    assert found["activations"] == 2 * tokens * 32 * 4096 + 2 * tokens * (8 * 4096 + 3 * 14336) + 8 * 8 * 128 * 128256
    assert found["cache"] == 2 * 8 * 448 * 131_072
    assert found["gathered"] == 0


def test_sharding_divides_weights_and_lora_by_the_gpus():
    whole = scaling.training_memory(scaling.Plan("70B", 4, 4, 64, 8))
    part = scaling.training_memory(scaling.Plan("70B", 4, 4, 64, 8, sharded=True))
    assert (part["weights"], part["lora"]) == (whole["weights"] / 4, whole["lora"] / 4)


def test_seconds_are_the_sums_by_hand():
    found = scaling.seconds(scaling.Plan("8B", 4, 4, 64, 8))
    rate, n = 0.35 * 989e12, 8_030_261_248
    assert found["training"] == pytest.approx(8 * n * 128 * 448 / rate)
    assert found["exchange"] == pytest.approx(8 * 83_886_080 * 0.75 / (0.7 * 450e9))
    assert found["weights to server"] == pytest.approx(2 * n / (0.7 * 450e9))


def test_twice_the_gpus_halve_the_training():
    one, two = (scaling.seconds(scaling.Plan("8B", gpus, 0, 64, 8)) for gpus in (4, 8))
    assert two["training"] == pytest.approx(one["training"] / 2)
    assert (scaling.seconds(scaling.Plan("8B", 1, 0, 64, 8))["exchange"]) == 0
