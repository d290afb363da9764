"""Both backends on a GPU, each in a process of its own: Unsloth changes trl for everything that comes after it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch finds none"),
]


@pytest.mark.parametrize("backend", ["transformers", "unsloth"])
def test_backend_trains_float32_matrices_on_4_bit_weights_and_samples_from_them(backend, tmp_path):
    if backend == "unsloth" and importlib.util.find_spec("unsloth") is None:
        pytest.skip("needs Unsloth, which requirements.lock brings")
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    done = subprocess.run(
        [sys.executable, ROOT / "tests/gpu/one_step.py", backend],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["device"] != "cpu"
    assert found["steps"] == [1, 2]
    assert found["dtypes"] == ["torch.float32"]
    assert found["changed"] == found["trained"] == 30 * 7 * 2
    assert found["rows"] == [[name, turn, k] for name in ("base", "tuned") for turn in range(3) for k in range(2)]
    assert all(1 <= tokens <= 128 for tokens in found["tokens"])
