"""No part of the project reports its use: what vLLM and Unsloth read is set before either can be imported."""

import os
import subprocess
import sys

import pytest

SWITCHES = ("VLLM_NO_USAGE_STATS", "UNSLOTH_DISABLE_STATISTICS")


@pytest.mark.parametrize("module", ["policy.vllm_engine", "stages.rollout", "stages.train_grpo", "tools.serve"])
def test_every_way_to_vllm_and_unsloth_turns_their_reports_off(module):
    clean = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    code = f"import os, gpro_empathy.{module}; print([os.environ.get(name) for name in {SWITCHES}])"
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['1', '1']"
