"""Experiments by DVC itself, with a made-up stage: which code they run, and what they keep."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from copied_code import copy_with_stage


@pytest.mark.slow
def test_queued_experiment_runs_the_code_that_it_was_queued_with(tmp_path):
    """DVC's own queue, after other code was committed in the folder that the environment holds."""
    folder = copy_with_stage(tmp_path / "copy", "open('result.txt', 'w').write('as queued')")
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {
        "PYTHONPATH": str(folder / "src"), "PATH": programs, "DVC_NO_ANALYTICS": "1", "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@localhost", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@localhost",
    }  # fmt: skip

    def run(*line):
        done = subprocess.run(
            line, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    stage = {
        "cmd": f"{sys.executable} -m gpro_empathy.stages.try_out", "deps": ["src"], "params": ["amount"],
        "outs": [{"result.txt": {"cache": False}}],
    }  # fmt: skip
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"try_out": stage}}))
    (folder / "params.yaml").write_text("amount: 1\n")
    (folder / ".gitignore").write_text("__pycache__/\nwork/\n")
    shutil.copy(ROOT / ".dvcignore", folder)
    run("git", "init", "-q")
    run("dvc", "init", "-q")
    run("git", "add", ".")
    run("git", "commit", "-qm", "one")
    run("dvc", "exp", "run", "--queue", "--name", "queued", "-S", "amount=2")
    module = folder / "src/gpro_empathy/stages/try_out.py"
    module.write_text(module.read_text().replace("as queued", "of later code"))
    run("git", "commit", "-qam", "two")
    run("dvc", "exp", "run", "--run-all")
    reference = run("git", "for-each-ref", "--format=%(refname)", "refs/exps/*/*/queued")
    kept = {name: run("git", "show", f"{reference}:{name}") for name in ("params.yaml", "result.txt")}
    assert kept == {"params.yaml": "amount: 2", "result.txt": "as queued"}
    assert "as queued" in run("git", "show", f"{reference}:{module.relative_to(folder)}")
