"""What a stage ends with: failures of memory and of engines become one line each."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch
import yaml

import gpro_empathy
from copied_code import copy_with_stage
from gpro_empathy import entry_point, files
from gpro_empathy.files import UserError
from short_run import (  # noqa: F401  The settings and models of a short run, as fixtures.
    config,
    make_run,
    reward_config,
    reward_model,
)


@pytest.fixture(autouse=True)
def _in_a_folder_with_params(settings, tmp_path, monkeypatch):
    files.write_text(tmp_path / "params.yaml", yaml.safe_dump(settings.model_dump()))
    monkeypatch.chdir(tmp_path)


def set_params(section, **changes):
    values = yaml.safe_load(files.read_text(Path("params.yaml")))
    values[section] |= changes
    files.write_text(Path("params.yaml"), yaml.safe_dump(values))


def line_of(function, stage="train_grpo"):
    with pytest.raises(SystemExit) as caught:
        entry_point.run_stage(function, stage)
    line = str(caught.value)
    assert line.startswith("error: ")
    assert "\n" not in line
    return line.removeprefix("error: ")


def engine(name, source):
    """Return a module of this name with this source: its frames look like those of the engine."""
    module = types.ModuleType(name)
    exec(source, module.__dict__)
    return module


def raise_(error):
    def stage():
        raise error

    return stage


# Any entry point


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("params.yaml: rollout.prompts is missing"), "error: params.yaml: rollout.prompts is missing"),
        (OSError(errno.ENOSPC, "No space left on device", "models/x"), "error: models/x: no space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: no space left on device"),
    ],
)
def test_stage_that_fails_exits_with_one_line(error, line):
    with pytest.raises(SystemExit) as caught:
        entry_point.run_stage(raise_(error))
    assert caught.value.code == line


def test_stage_that_succeeds_returns():
    before = signal.getsignal(signal.SIGTERM)
    entry_point.run_stage(lambda: None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_stage_that_is_told_to_end_leaves_nothing_half_written(tmp_path):
    code = (
        "import time\nfrom pathlib import Path\nfrom gpro_empathy import entry_point, files\n"
        "def main():\n    with files.atomic_path(Path('out')) as temporary:\n"
        "        temporary.mkdir()\n        time.sleep(600)\n"
        "entry_point.run_stage(main)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE
    )
    while not list(tmp_path.glob(".out-*/out")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + signal.SIGTERM, "")
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


# Memory and engines

GPU_FULL = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.57 GiB of which 1.10 GiB is free."
)


def test_full_gpu_is_one_line_with_the_settings_to_lower():
    line = line_of(raise_(GPU_FULL))
    assert line.startswith("the GPU's memory ran out (CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert "goes on from the newest checkpoint" in line
    # Down-sampling takes the eight responses of a group together.
    assert line.endswith("; or lower policy.max_completion_tokens (128), which begins anew")
    assert "vllm" not in line


def test_fewer_responses_in_a_forward_pass_are_named_where_there_can_be_fewer():
    set_params("train_grpo", completions_per_forward=16)
    assert "or lower train_grpo.completions_per_forward (16) or policy." in line_of(raise_(GPU_FULL))
    set_params("policy", backend="unsloth")
    assert "train_grpo.completions_per_forward (16)" in line_of(raise_(GPU_FULL))


@pytest.mark.parametrize(
    ("stage", "advice"),
    [
        (
            "train_scorer",
            "lower train_scorer.batch_size (16) or train_scorer.max_tokens (256), and run the command again",
        ),
        (
            "evaluate_scorers",
            "lower train_scorer.batch_size (16) or train_scorer.max_tokens (256), and run the command again",
        ),
        ("warm_start", "lower warm_start.batch_size (8), and run the command again"),
        ("rollout", "lower rollout.batch_size (90), and run the command again"),
        ("chat", "close other programs and try again"),
    ],
)
def test_full_memory_names_the_settings_of_the_stage_that_bound_it(stage, advice):
    line = line_of(raise_(GPU_FULL), stage)
    assert line.endswith(advice)
    assert "train_grpo" not in line


def test_rollouts_by_vllm_name_its_share_whether_memory_is_full_or_it_does_not_start():
    set_params("rollout", engine="vllm")
    line = line_of(raise_(GPU_FULL), "rollout")
    assert "lower rollout.vllm_gpu_memory_utilization (0.6) or rollout.max_completion_tokens (128)" in line
    vllm = engine("vllm.v1.engine.core", "def start():\n    raise AssertionError('no free memory')\n")
    line = line_of(lambda: vllm.start(), "rollout")
    assert line.startswith("vllm failed (no free memory); close other programs on the GPU or change rollout.vllm_gpu_")
    assert line.endswith("or set rollout.engine: transformers")


@pytest.mark.parametrize(
    "words", ["CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"]
)
def test_full_gpu_of_which_torch_says_it_in_other_words_is_one_line(words):
    assert line_of(raise_(RuntimeError(words))).startswith(f"the GPU's memory ran out ({words}); close other programs")


def test_with_vllm_its_share_is_named_first():
    set_params("policy", backend="unsloth")
    assert "close other programs or lower train_grpo.vllm_gpu_memory_utilization (0.6)" in line_of(raise_(GPU_FULL))


def test_memory_that_the_machine_in_fact_lacks_is_one_line():
    line = line_of(lambda: torch.empty(2**46))
    assert line.startswith("the machine's memory ran out (")
    assert line_of(raise_(MemoryError())).startswith("the machine's memory ran out (MemoryError); ")


def test_vllm_that_does_not_start_is_one_line_with_its_own_reason():
    words = "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
    vllm = engine("vllm.v1.engine.utils", f"def wait():\n    raise RuntimeError({words!r})\n")
    line = line_of(lambda: vllm.wait())
    assert line.startswith(f"vllm failed ({words}); close other programs on the GPU or change train_grpo.vllm_gpu")
    assert line.endswith("set policy.backend: transformers and train_grpo.vllm_mode: none, which begins anew")


@pytest.mark.parametrize("kind", ["AssertionError", "EngineDeadError"])
def test_vllm_that_dies_by_an_exception_of_its_own_kind_is_one_line(kind):
    vllm = engine("vllm.v1.engine", f"class EngineDeadError(Exception): ...\ndef get():\n    raise {kind}('it died')\n")
    assert line_of(lambda: vllm.get()).startswith("vllm failed (it died); close other programs on the GPU")


def test_vllm_without_room_for_its_cache_is_one_line():
    words = "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine."
    vllm = engine("vllm.v1.core.kv_cache_utils", f"def check():\n    raise ValueError({words!r})\n")
    assert line_of(lambda: vllm.check()).startswith(f"vllm failed ({words})")


def test_unsloth_without_a_gpu_is_one_line():
    words = "Unsloth cannot find any torch accelerator? You need a GPU."
    unsloth = engine("unsloth.device_type", f"def get():\n    raise NotImplementedError({words!r})\n")
    assert line_of(lambda: unsloth.get()).startswith(f"unsloth failed ({words})")


def test_an_engine_that_is_not_installed_is_one_line():
    def stage():
        import unsloth_zoo.absent  # noqa: F401  That it cannot be imported is the point.

    assert line_of(stage).startswith("unsloth_zoo cannot be imported (No module named 'unsloth_zoo'); run `make setup`")


def test_an_error_of_our_own_code_that_an_engine_called_keeps_its_traceback():
    own = engine("gpro_empathy.rewards", "def score():\n    raise ValueError('reward term empathy gave nan')\n")
    unsloth = engine("unsloth.trainer", "def step(function):\n    function()\n")
    with pytest.raises(ValueError, match=r"\bnan\b"):
        entry_point.run_stage(lambda: unsloth.step(own.score), "train_grpo")


@pytest.mark.parametrize("error", [RuntimeError("a mistake"), KeyError("x"), ZeroDivisionError()])
def test_any_other_error_keeps_its_traceback(error):
    with pytest.raises(type(error)) as caught:
        entry_point.run_stage(raise_(error), "train_grpo")
    assert caught.value is error


def test_out_of_memory_in_a_step_names_the_step_leaves_no_partial_output_and_a_rerun_goes_on(
    make_run,
    tmp_path,
    monkeypatch,
    capsys,
):
    from gpro_empathy.policy import packed_logprobs
    from gpro_empathy.training import grpo_run

    whole = grpo_run.train(make_run(steps=3), tmp_path / "other", [])
    inner, calls = packed_logprobs.log_probabilities, 0

    def full_in_step_3(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 5:  # two forward passes a step
            raise GPU_FULL
        return inner(*args, **kwargs)

    def stage():
        run = make_run(steps=3)
        with files.atomic_path(tmp_path / "tuned") as folder:
            folder.mkdir()
            results.append((run, grpo_run.train(run, tmp_path / "work", [])))

    results = []
    monkeypatch.setattr(packed_logprobs, "log_probabilities", full_in_step_3)
    assert line_of(stage).startswith("the GPU's memory ran out in step 3 of 3 (CUDA out of memory.")
    assert not (tmp_path / "tuned").exists()
    assert not list(tmp_path.glob(".tuned*"))
    monkeypatch.setattr(packed_logprobs, "log_probabilities", inner)
    capsys.readouterr()
    stage()
    assert "GRPO goes on from" in capsys.readouterr().out
    assert results[0][1].log == whole.log


def test_another_share_for_vllm_is_no_other_run(make_run, tmp_path):
    from gpro_empathy.training import grpo_run

    one, other = (make_run(vllm_gpu_memory_utilization=share) for share in (0.6, 0.5))
    assert grpo_run._fingerprint(one, []) == grpo_run._fingerprint(other, [])
    assert grpo_run._fingerprint(one, []) != grpo_run._fingerprint(make_run(completions_per_forward=6), [])


def run_module(folder, module, **environment):
    """Run a module in a folder; return its exit status and what it printed on standard error."""
    line = [sys.executable, "-m", module]
    done = subprocess.run(
        line, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stderr.strip()


def test_stage_that_reads_a_path_that_is_no_input_is_refused(settings, tmp_path):
    prepare = settings.prepare.model_copy(update={"source": "wassa_csv", "wassa_train_csv": "mine.csv"})
    values = settings.model_copy(update={"prepare": prepare}).model_dump()
    files.write_text(tmp_path / "params.yaml", yaml.safe_dump(values))
    (tmp_path / "mine.csv").write_text("text\nhello\n")
    source = str(Path(gpro_empathy.__file__).parents[1])
    status, message = run_module(tmp_path, "gpro_empathy.stages.prepare", PYTHONPATH=source)
    assert status == 1
    assert message.startswith("error: prepare.wassa_train_csv: DVC does not watch mine.csv")
    assert "\n" not in message


def test_code_that_runs_is_that_of_the_folder_it_runs_in(tmp_path):
    one = copy_with_stage(tmp_path / "one", "sys.exit('the code of one')")
    two = copy_with_stage(tmp_path / "two", "sys.exit('the code of two')")
    beside = shutil.copytree(one / "src", two / "src-of-one")  # its path begins as that of the folder's own code
    for source in (one / "src", two / "src", beside):
        status, message = run_module(two, "gpro_empathy.stages.try_out", PYTHONPATH=str(source))
        assert (status, message) == (1, "the code of two")


def test_stage_whose_process_lives_on_is_not_started_again_until_it_is_killed(tmp_path):
    folder = copy_with_stage(tmp_path / "copy", "print('runs', flush=True); time.sleep(60)")
    environment = os.environ | {"PYTHONPATH": "src"}
    line = [sys.executable, "-m", "gpro_empathy.stages.try_out"]
    for launched in ({}, {"LOCAL_RANK": "0"}):
        alive = subprocess.Popen(line, cwd=folder, env=environment | launched, stdout=subprocess.PIPE, text=True)
        assert alive.stdout.readline() == "runs\n"
        status, message = run_module(folder, "gpro_empathy.stages.try_out", PYTHONPATH="src")
        assert status == 1
        assert message.startswith("error: the stage try_out is still running in this folder")
        assert launched or f"process {alive.pid};" in message
        alive.kill()
        alive.communicate()
    again = subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert again.stdout.readline() == "runs\n"
    again.kill()
    again.communicate()
