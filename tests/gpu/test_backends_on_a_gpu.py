"""Test both backends on a GPU, by the tasks of a rehearsal on small random models.

Each task runs in a process of its own.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gpro_empathy import files
from rehearsal.plan import REDUCED_ENCODER, lay_out

ROOT = Path(__file__).parents[2]
# Small, but with heads of a width that vLLM's attention knows.
POLICY = {
    "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 4096,
}  # fmt: skip
LAYERS, PROJECTIONS = 2, 7

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch finds none"),
]


@pytest.mark.parametrize(
    ("backend", "vllm_mode"), [("transformers", "none"), ("unsloth", "none"), ("unsloth", "colocate")]
)
def test_backend_trains_float32_matrices_on_4_bit_weights_and_samples_from_them(
    backend, vllm_mode, tmp_path, monkeypatch
):
    for package in {"unsloth": ("unsloth", "vllm")}.get(backend, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the package {package}, which requirements.lock brings")
    monkeypatch.chdir(ROOT)
    plan = lay_out("llama-3.1-8b", tmp_path, reduced=False, part=0.1)
    smaller = {"policy": POLICY, "similarity": REDUCED_ENCODER, "scorer": REDUCED_ENCODER}
    plan = replace(plan, models={role: model | smaller[role] for role, model in plan.models.items()})
    plan = plan.with_settings("policy", backend=backend, max_completion_tokens=64)
    plan = plan.with_settings("train_grpo", vllm_mode=vllm_mode, completions_per_forward=3, steps=2, save_steps=2)
    # The profile's engine of rollouts is vLLM, which the backend transformers does without.
    engine = {"unsloth": "vllm"}.get(backend, "transformers")
    plan = plan.with_settings("rollout", engine=engine, prompts=3, samples_per_prompt=2, max_completion_tokens=64)
    # The reload compares the log-probabilities of the adapter as it was trained, by its backend,
    # and as it is read back.
    plan.run("build", "train", "rollout", "reload")
    (adapter,) = (tmp_path / "models/tuned").glob("seed-*/adapter_model.safetensors")
    matrices = load_file(adapter)
    assert {str(matrix.dtype) for matrix in matrices.values()} == {"torch.float32"}
    assert len(matrices) == LAYERS * PROJECTIONS * 2
    # B begins at zero.
    assert all(matrix.any() for name, matrix in matrices.items() if "lora_B" in name)
    assert files.read_json(tmp_path / "reports/training/settings.json")["device"] == torch.cuda.get_device_name()
    rows = files.read_jsonl(tmp_path / "data/rollouts/rollouts.jsonl")
    assert len(rows) == 2 * 3 * 2
    assert all(1 <= row["completion_tokens"] <= 64 for row in rows)
