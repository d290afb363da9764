"""Test targets of the Makefile that run in folders of several kinds.

The programs that take long are stood in for.
"""

import os
import re
import shutil
import subprocess
import time

import pytest

from conftest import ROOT

DVC = """#!/bin/bash
echo dvc "$@" >> "$CALLS"
if [ "$*" = "cache dir" ]; then echo "$PWD/.dvc/cache"; fi
if [ "$1" = repro ] && [ -n "${WAIT:-}" ]; then touch "$WAIT.started"; while [ ! -e "$WAIT" ]; do sleep 0.1; done; fi
"""
PYTHON = """#!/bin/bash
echo python "$@" >> "$CALLS"
case "$*" in *reproduction*) exit 1;; *tree_copy*) mkdir -p "${@: -1}"; cp params.yaml "${@: -1}/params.yaml";; esac
"""


@pytest.fixture
def folder(tmp_path):
    """Make a folder with the Makefile alone, whose programs only say that they were called."""
    (tmp_path / "run/.venv/bin").mkdir(parents=True)
    (tmp_path / "run/.dvc").mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-cpu.lock"):
        shutil.copy2(ROOT / name, tmp_path / "run" / name)
    (tmp_path / "run/.venv/ready").touch()
    (tmp_path / "run/params.yaml").write_text("train_grpo:\n  seeds: [23]\n")
    programs = {"dvc": DVC, "python": PYTHON, "latexmk": "#!/bin/bash\n", "kpsewhich": "#!/bin/bash\n"}
    for name, text in programs.items():
        (tmp_path / "run/.venv/bin" / name).write_text(text)
        (tmp_path / "run/.venv/bin" / name).chmod(0o755)
    return tmp_path / "run"


def make(folder, *arguments, start=subprocess.run, **environment):
    # Nothing of a make around these tests, and no repository above the folder.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    environment = (
        inherited | {"CALLS": str(folder / "calls"), "GIT_CEILING_DIRECTORIES": str(folder.parent)} | environment
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return start(["make", *arguments], cwd=folder, env=environment, text=True, **pipes)


def calls(folder):
    return (folder / "calls").read_text().splitlines()


def test_reproduce_without_git_tells_dvc_so_first(folder):
    done = make(folder, "reproduce")
    assert done.returncode == 0, done.stderr
    assert calls(folder)[0] == "dvc config --local core.no_scm true"
    assert "dvc repro" in calls(folder)
    assert any("report.reproduction" in call for call in calls(folder))  # which says why it compares nothing


def targets_that_run_stages():
    """Return the targets of the Makefile whose commands call `dvc repro`."""
    targets, name = set(), ""
    for line in (ROOT / "Makefile").read_text().splitlines():
        if found := re.match(r"([a-z-]+):(?!=)", line):
            name = found[1]
        elif line.startswith("\t") and "dvc repro" in line:
            targets.add(name)
    return sorted(targets)


@pytest.mark.parametrize("target", targets_that_run_stages())
def test_whatever_runs_stages_tells_dvc_first_that_there_is_no_git(folder, target):
    (folder / "data/rollouts").mkdir(parents=True)
    make(folder, target)
    found = calls(folder)
    (first, *_) = (index for index, call in enumerate(found) if call.startswith("dvc repro"))
    assert "dvc config --local core.no_scm true" in found[:first]


def test_reproduce_with_git_undoes_that(folder):
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    make(folder, "reproduce")
    assert not any("no_scm" in call for call in calls(folder))
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    make(folder, "reproduce")
    assert "dvc config --local --unset core.no_scm" in calls(folder)


def test_sweep_hands_on_what_its_command_line_gives_and_nothing_else(folder):
    make(folder, "sweep", "SET=a.b={x: 1, y: 2},-z c.d=1", "SEEDS=3,4", "NAME=t")
    given = "--set a.b={x: 1, y: 2},-z c.d=1 --seeds 3,4 --name t"
    assert calls(folder)[-1] == f"python -m gpro_empathy.tools.sweep {given}"
    # Some systems have a NAME of their own.
    make(folder, "sweep", NAME="laptop", SEEDS="9")
    assert calls(folder)[-1] == "python -m gpro_empathy.tools.sweep"


def pip(folder, errors="", status=0):
    """Stand in for pip, which fails with this status and these errors."""
    (folder / "errors").write_text(errors)
    path = folder / ".venv/bin/pip"
    path.write_text(f'#!/bin/bash\necho pip "$@" >> "$CALLS"\ncat \'{folder / "errors"}\' >&2\nexit {status}\n')
    path.chmod(0o755)


def test_scorer_benchmark_installs_the_large_encoder_first_and_the_quick_one_does_not(folder):
    pip(folder)
    assert make(folder, "scorer-benchmark", "WASSA=w").returncode == 0
    installed, benchmark = calls(folder)
    assert installed.startswith("pip install")
    assert "--require-hashes --requirement requirements-mpnet.lock" in installed
    assert benchmark == "python bench/scorer.py benchmark w"
    assert make(folder, "scorer-benchmark", "WASSA=w", "ARGS=--quick").returncode == 0
    assert calls(folder)[2:] == ["python bench/scorer.py benchmark w --quick"]
    assert make(folder, "scorer-benchmark").returncode != 0
    assert len(calls(folder)) == 3


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ("WARNING: retrying\nERROR: THESE DO NOT MATCH.\n    part-003==0.0.1 from x:\n        Got\n", "(THESE DO NOT MATCH. part-003==0.0.1 from x:)"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", "No space left on device)"),
        ("", "(interrupted)"),
    ],
)  # fmt: skip
def test_large_encoder_that_cannot_be_installed_is_one_line_and_nothing_is_trained(folder, errors, said):
    pip(folder, errors, 1)
    done = make(folder, "scorer-benchmark", "WASSA=w")
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert line.startswith("error: all-mpnet-base-v2 was not installed (")
    assert said in line
    assert [call.split()[0] for call in calls(folder)] == ["pip"]


@pytest.mark.parametrize("seeds", ["23", ""])
def test_fewer_than_two_seeds_are_no_study(folder, seeds):
    done = make(folder, "seeds", f"SEEDS={seeds}")
    assert done.returncode != 0
    assert "error: SEEDS takes two seeds or more" in done.stderr


def test_seeds_that_cannot_be_put_into_params_are_said_and_nothing_runs(folder):
    (folder / "params.yaml").write_text("train_grpo:\n  seeds:\n  - 23\n")
    done = make(folder, "seeds")
    assert done.returncode != 0
    assert "error: params.yaml: train_grpo.seeds must stand in one line" in done.stderr
    assert "dvc repro" not in calls(folder)


@pytest.mark.parametrize("target", ["tiny", "seeds"])
def test_a_second_run_in_the_same_folder_is_refused(folder, target):
    go_on = folder / "go on"
    first = make(folder, target, start=subprocess.Popen, WAIT=str(go_on))
    try:
        while not go_on.with_name("go on.started").exists():
            assert first.poll() is None, first.communicate()
            time.sleep(0.1)
        before = calls(folder)
        second = make(folder, target)
        assert second.returncode != 0
        assert f"error: another make {target} runs in this folder" in second.stderr
        assert calls(folder) == before
    finally:
        go_on.touch()
        first.communicate()
