"""A run of a sweep: why one failed, what is kept of it, and the process that it is."""

import subprocess
import time

import psutil
import pytest

import made_up
from gpro_empathy.tools import sweep_run

TRACEBACK = "Traceback (most recent call last):\n  File \"a.py\", line 1\nValueError: no\nERROR: failed to reproduce 'rollout': exited with 1\n"


@pytest.mark.parametrize(
    ("log", "status", "reason"),
    [
        ("step 1\n\x1b[31merror: the machine's memory ran out\x1b[0m\nERROR: failed to reproduce 'x': exited with 1\n", 1,
         "the machine's memory ran out"),
        (TRACEBACK, 1, "ValueError: no"),
        ("bar 1\rbar 2\nERROR: failed to reproduce 'train_grpo': failed to run: python, exited with -9\n", 255,
         "failed to reproduce 'train_grpo': failed to run: python, exited with -9"),
        ("", 137, "dvc ended with status 137"),
    ],
)  # fmt: skip
def test_reason_is_the_stages_own_line_or_the_exception_or_dvcs(log, status, reason):
    assert sweep_run.reason(log, status) == reason


def test_means_and_differences_by_prompt_are_kept_of_what_the_responses_have():
    rows = made_up.rollouts(seeds=(24,), prompts=4, conversations=2)
    kept = sweep_run.measured(rows, 24, ["empathy_raw", "likelihood_raw", "intensity_agreement"])
    assert list(kept["metrics"]) == ["empathy_raw", "intensity_agreement"]
    first = rows[0]["prompt_id"]

    def mean(model):
        scores = [row["empathy_raw"] for row in rows if row["model"] == model and row["prompt_id"] == first]
        return sum(scores) / len(scores)

    empathy = kept["metrics"]["empathy_raw"]
    assert empathy["difference"][first] == pytest.approx(mean("tuned") - mean("warm_start"), abs=1e-6)
    changes = empathy["difference"].values()
    assert empathy["tuned"] - empathy["start"] == pytest.approx(sum(changes) / len(changes), abs=1e-5)
    assert kept["stories"][first] == rows[0]["story"]


def test_rollouts_of_another_seed_are_no_result_of_the_run():
    with pytest.raises(ValueError, match=r"training seeds \[24\], expected 23"):
        sweep_run.measured(made_up.rollouts(seeds=(24,), prompts=4, conversations=2), 23, ["empathy_raw"])


def fake_dvc(monkeypatch, tmp_path, code):
    """Let `python -m dvc` be this code."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/dvc.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def run(tree, seed=24):
    values = {"rewards": {"calibration_temperature": 0.2}, "train_grpo": {"seeds": [1], "steps": 2}}
    setting = {"rewards.calibration_temperature": 0.2}
    with (tree.parent / "lock").open("w") as lock:
        return sweep_run.run(tree, values, setting, seed, ["empathy_raw"], tree.parent / "log", lock.fileno())


def test_a_run_has_its_settings_and_code_and_its_failure_is_a_row(monkeypatch, tmp_path):
    code = """
import os, sys
print(sys.argv[1:], open("params.yaml").read().split(), os.environ["PYTHONPATH"].split(os.pathsep)[0])
sys.exit("error: no such luck")
"""
    tree = fake_dvc(monkeypatch, tmp_path, code)
    row = run(tree)
    assert (row["failed"], row["seed"], row["metrics"]) == ("no such luck", 24, {})
    log = (tmp_path / "log").read_text()
    assert "['repro', 'rollout']" in log
    assert "'calibration_temperature:', '0.2'" in log
    assert "'seeds:', '-', '24'" in log
    assert str(tree / "src") in log


def test_a_run_that_leaves_no_rollouts_is_a_failed_one(monkeypatch, tmp_path):
    row = run(fake_dvc(monkeypatch, tmp_path, ""))
    assert "rollouts.jsonl: no such file" in row["failed"]


def test_an_interrupted_run_takes_what_it_started_along(monkeypatch, tmp_path):
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    tree = fake_dvc(monkeypatch, tmp_path, code)

    def interrupted(process, timeout=None):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tree)
    child = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
