import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpro_empathy import response_format
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters
from gpro_empathy.tools import serve
from run_folder import write_run

ROOT = Path(__file__).parents[2]
PINNED = json.loads((ROOT / "tests/pinned_signatures.json").read_text(encoding="utf-8"))
LLAMA = adapters.Tuned(23, adapters.TUNED / "seed-23", 33, "meta-llama/L", "meta-llama/L", "abc")
LOCAL = adapters.Tuned(24, adapters.TUNED / "seed-24", 32, "smollm2-135m-instruct", None, None)


def test_options_are_those_of_the_pinned_vllm(settings):
    fields = {
        name for each in ("EngineArgs", "BaseFrontendArgs", "FrontendArgs") for name in PINNED["parameters"][each]
    }
    for found in (LLAMA, LOCAL):
        line = serve.command(found, settings, 8000)
        options = {word.removeprefix("--").replace("-", "_") for word in line if word.startswith("--")}
        assert options <= fields


def test_command_line_of_the_embedded_default(settings):
    line = serve.command(LOCAL, settings, 8001, ["--seed", "1"])
    assert line == [
        "vllm", "serve", "models/policy", "--tensor-parallel-size", "1", "--enable-lora", "--lora-modules", "empathy=models/tuned/seed-24",
        "--max-lora-rank", "32", "--quantization", "bitsandbytes", "--load-format", "bitsandbytes", "--dtype", "bfloat16", "--max-model-len", "320",
        "--override-generation-config", '{"max_new_tokens": 128, "temperature": 0.4, "top_p": 0.9}',
        "--host", "127.0.0.1", "--port", "8001", "--seed", "1",
    ]  # fmt: skip


def test_base_is_in_four_bits_only_where_it_was_trained_so(settings):
    policy = settings.policy.model_copy(update={"load_in_4bit": False})
    assert "bitsandbytes" not in serve.command(LOCAL, settings.model_copy(update={"policy": policy}), 8000)


def test_hub_model_is_named_with_its_revision_and_the_rank_rounded_up(settings):
    line = serve.command(LLAMA, settings, 8000)
    assert line[2:5] == ["meta-llama/L", "--revision", "abc"]
    assert line[line.index("--max-lora-rank") + 1] == "64"


def test_answers_may_be_as_long_as_in_the_rollouts(settings):
    config = settings.model_copy(
        update={"rollout": settings.rollout.model_copy(update={"max_completion_tokens": 1024})}
    )
    line = serve.command(LOCAL, config, 8000)
    assert line[line.index("--max-model-len") + 1] == str(192 + 1024)
    assert json.loads(line[line.index("--override-generation-config") + 1])["max_new_tokens"] == 1024


def test_refuses_a_rank_beyond_what_vllm_takes(settings):
    huge = adapters.Tuned(23, adapters.TUNED / "seed-23", 513, "x", None, None)
    with pytest.raises(UserError, match=r"\b513\b.*\b512\b"):
        serve.command(huge, settings, 8000)


def test_request_carries_the_system_message_through_a_shell():
    words = shlex.split(serve.request(8001))
    assert words[:2] == ["curl", "http://127.0.0.1:8001/v1/chat/completions"]
    body = json.loads(words[-1])
    assert (body["model"], body["messages"][0]["content"]) == ("empathy", response_format.SYSTEM_PROMPT)


# The command, with stand-ins for the graphics driver and for vLLM, which no test machine needs to
# have


@pytest.fixture
def folder(tmp_path, settings):
    import numpy as np
    from safetensors.numpy import save_file

    from gpro_empathy import files

    write_run(tmp_path, settings, seeds=[23])
    source = {"model": None, "revision": None, "name": settings.policy.model}
    files.write_json(tmp_path / "models/policy/source.json", source)
    adapter = tmp_path / "models/tuned/seed-23"
    files.write_json(adapter / "adapter_config.json", {"r": 32})
    save_file({"x.q_proj.lora_A.weight": np.zeros((32, 4), np.float32)}, adapter / adapters.WEIGHTS)
    return tmp_path


def start(folder, *arguments, gpu, vllm=None):
    """Run the command; `vllm` is the code of the stand-in's main module."""
    (folder / "bin").mkdir()
    driver = folder / "bin/nvidia-smi"
    driver.write_text("#!/bin/sh\n" + ("echo 'A GPU, 24576, 580.65.06'\n" if gpu else "exit 9\n"))
    driver.chmod(0o755)
    path = [str(ROOT / "src")]
    if vllm is not None:
        package = folder / "stand_in/vllm/entrypoints/cli"
        package.mkdir(parents=True)
        (package / "main.py").write_text(vllm)
        path.insert(0, str(folder / "stand_in"))
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(path)
    }  # fmt: skip
    line = [sys.executable, "-m", "gpro_empathy", "serve", *arguments]
    return subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def test_command_prints_the_full_line_and_hands_it_to_vllm(folder, settings):
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    process = start(folder, "--port", "8001", "--", "--enforce-eager", gpu=True, vllm=code)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    found = adapters.Tuned(23, adapters.TUNED / "seed-23", 32, "", None, None)
    expected = serve.command(found, settings, 8001, ["--enforce-eager"])
    assert shlex.split(out.splitlines()[0]) == expected
    assert json.loads(out.splitlines()[-1]) == expected[1:]


def test_server_is_told_to_report_no_use(folder, monkeypatch):
    monkeypatch.delenv("VLLM_NO_USAGE_STATS")
    process = start(folder, gpu=True, vllm="import os; print(os.environ['VLLM_NO_USAGE_STATS'])")
    assert process.communicate(timeout=120)[0].splitlines()[-1] == "1"


def test_server_that_fails_is_one_line_with_the_next_thing_to_try(folder):
    process = start(folder, gpu=True, vllm="raise SystemExit(3)")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.startswith("error: vllm serve ended with status 3, its last lines say why; if memory was short")
    assert err.count("\n") == 1


def test_interrupt_is_left_to_the_server(folder):
    code = (
        "import time\ntry:\n    print('up', flush=True)\n    time.sleep(100)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.5); print('shut down', flush=True)\n"
    )
    process = start(folder, gpu=True, vllm=code)
    for line in process.stdout:
        if line == "up\n":
            break
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "shut down\n", "")


@pytest.mark.parametrize(
    ("gpu", "message"),
    [
        (False, "error: make serve needs an NVIDIA GPU, and none is found; `make chat` runs without one\n"),
        (True, "error: vLLM is not installed; run `rm -rf .venv && make setup LOCK=requirements.lock`\n"),
    ],
)
def test_what_is_needed_and_missing_is_one_line(folder, gpu, message):
    import importlib.util

    if gpu and importlib.util.find_spec("vllm") is not None:
        pytest.skip("vLLM is installed")
    process = start(folder, gpu=gpu)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (1, message)
