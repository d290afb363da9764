"""A sweep by DVC itself, in copies of a small tree whose stages train nothing."""

import json
import multiprocessing
import time

import pytest

import made_up
import made_up_sweep
from conftest import ROOT
from gpro_empathy import files
from gpro_empathy.files import UserError
from gpro_empathy.tools import sweep, sweep_folder

T = "rewards.calibration_temperature"
GRAPH = """
stages:
  shared:
    cmd: python shared.py
    deps: [shared.py]
    outs: [models/shared]
  rollout:
    cmd: python rollout.py
    deps: [models/shared, rollout.py, rows.json]
    params: [rewards, train_grpo]
    outs: [data/rollouts]
"""
SHARED = """
from pathlib import Path
with open({count!r}, "a") as file:
    file.write("ran ")
Path("models/shared").mkdir(parents=True)
Path("models/shared/model").write_text("made")
"""
ROLLOUT = """
import json, sys, yaml
from pathlib import Path
params = yaml.safe_load(open("params.yaml"))
if params["rewards"]["calibration_temperature"] == 1.0:
    sys.exit("error: no luck with this one")
(seed,) = params["train_grpo"]["seeds"]
rows = json.load(open("rows.json"))
for row in rows:
    row["seed"] = seed if row["model"] == "tuned" else None
Path("data/rollouts").mkdir(parents=True)
Path("data/rollouts/rollouts.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    made_up_sweep.write_tree(root)
    for name in ("config", ".gitignore"):
        files.write_text(root / ".dvc" / name, (ROOT / ".dvc" / name).read_text())
    files.write_text(root / ".dvc/config.local", "[core]\n    no_scm = true\n")
    files.write_text(root / "dvc.yaml", GRAPH)
    files.write_text(root / "shared.py", SHARED.format(count=str(tmp_path / "count")))
    files.write_text(root / "rollout.py", ROLLOUT)
    files.write_text(root / "rows.json", json.dumps(made_up.rollouts()))
    monkeypatch.setattr(sweep_folder, "STAGES", ("shared", "rollout"))
    return root


def content(folder, *left_out):
    paths = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path: (folder / path).read_bytes() for path in paths if path.parts[0] not in left_out}


@pytest.mark.slow
def test_runs_share_a_cache_leave_the_tree_alone_and_fail_by_themselves(root, tmp_path):
    before = content(root, ".dvc", "tmp", "reports")
    with pytest.raises(
        UserError, match=rf"1 of 2 runs failed, the first \({T}=1.0, seed 24\) by: no luck with this one"
    ):
        sweep.run("tried", f"{T}=0.2,1.0", "24", root)
    sweep.run("another", f"{T}=0.3", "24,25", root)
    assert (tmp_path / "count").read_text() == "ran "  # in one copy, and from the cache in the others
    assert content(root, ".dvc", "tmp", "reports") == before
    summary = files.read_json(root / "reports/sweeps/another/summary.json")
    assert summary["arms"][0]["done"] == [24, 25]
    assert summary["arms"][0]["change"]["empathy_raw"]["estimate"] > 0.3
    # The copy of a complete sweep is gone, that of one with a failed run is there, and logs are.
    assert not (root / "tmp/sweeps/another/tree").exists()
    assert (root / "tmp/sweeps/tried/tree/dvc.lock").is_file()
    assert "no luck" in (root / "tmp/sweeps/tried/run-02.log").read_text()
    files.write_text(root / "rollout.py", ROLLOUT.replace("== 1.0", "== 9.0"))
    with pytest.raises(UserError, match=r"its runs were made with another rollout\.py"):
        sweep.run("tried", "", "", root)


@pytest.mark.slow
def test_after_a_kill_the_run_that_goes_on_keeps_the_lock_and_its_result_is_not_lost(root, tmp_path):
    waits = f"""
import time
from pathlib import Path
Path({str(tmp_path / "started")!r}).touch()
while not Path({str(tmp_path / "go on")!r}).exists():
    time.sleep(0.1)
"""
    files.write_text(root / "rollout.py", waits + ROLLOUT)
    killed = multiprocessing.get_context("fork").Process(target=sweep.run, args=("t", f"{T}=0.2", "24", root))
    killed.start()
    while not (tmp_path / "started").exists():
        assert killed.is_alive()
        time.sleep(0.1)
    killed.kill()
    killed.join()
    with pytest.raises(UserError, match=f"another sweep, or a run of one, works in this folder, .* {killed.pid};"):
        sweep.run("t", "", "", root)
    (tmp_path / "go on").touch()
    for _ in range(600):
        try:
            sweep.run("t", "", "", root)
            break
        except UserError:
            time.sleep(0.1)
    assert sweep.listing(root).startswith(f"t: {T}=0.2, seeds 24: 1 done, 0 failed, 0 missing")
    assert "Stage 'rollout' is cached - skipping run" in (root / "tmp/sweeps/t/run-01.log").read_text()
