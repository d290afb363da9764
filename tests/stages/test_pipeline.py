"""Test the whole graph, from data to PDF, on tiny random models.

It runs in a copy of the repository, with the network refused.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gpro_empathy.tools import tree_copy

ROOT = Path(__file__).resolve().parents[2]
REFUSE_NETWORK = """
import socket
def refuse(self, address):
    if self.family != socket.AF_UNIX:
        raise OSError(f"the network is refused in this test: {address}")
    return connect(self, address)
connect = socket.socket.connect
socket.socket.connect = socket.socket.connect_ex = refuse
"""

# Of reports/: of other machines' GPUs, several trainings, other settings, the run to compare with,
# and what was frozen when.
READ = ("reports/baseline/", "reports/gpu/", "reports/seeds/", "reports/sweeps/", "reports/protocol.yaml")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("latexmk") is None, reason="needs latexmk; `make test` brings it"),
]


class Copy:
    """A copy of the repository in which the graph can be run."""

    def __init__(self, folder: Path, refuse: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"src{os.pathsep}{refuse}",
            "DVC_NO_ANALYTICS": "1",
        }
        # Offline mode would hide an attempt to reach a hub.
        self.environment.pop("HF_HUB_OFFLINE", None)

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def repro(self) -> list[str]:
        """Run the graph and return the stages that ran."""
        return re.findall(r"Running stage '(\w+)'", self.run("dvc", "repro"))

    def set(self, section: str, key: str, value: object) -> None:
        path = self.folder / "params.yaml"
        values = yaml.safe_load(path.read_text())
        values[section][key] = value
        path.write_text(yaml.safe_dump(values))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    folder, refuse = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("refuse")
    (refuse / "sitecustomize.py").write_text(REFUSE_NETWORK)
    for name in map(str, tree_copy.listed(ROOT)):
        # Results are left out, but for those that a run reads: what the test finds, the run must
        # have made.
        made = name.startswith(("reports/", "paper/generated/", "paper/provenance/", "dvc.lock"))
        if (ROOT / name).is_file() and (not made or name.startswith(READ)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    result = Copy(folder, refuse)
    result.run("dvc", "config", "--local", "core.no_scm", "true")
    result.run(sys.executable, "-m", "gpro_empathy.tools.profiles", "tiny")
    return result


@pytest.fixture(scope="module")
def finished(copy: Copy) -> Copy:
    copy.first_run = copy.repro()
    return copy


def test_the_network_is_in_fact_refused(copy: Copy):
    attempt = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')"
    assert "the network is refused in this test" in copy.run(sys.executable, "-c", attempt, check=False)


def test_one_command_runs_every_stage_and_leaves_the_report(finished: Copy):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    # No file of a user's is listed, so that the stage of those stands for nothing.
    assert sorted(finished.first_run) == sorted(name for name, stage in stages.items() if "foreach" not in stage)
    assert (finished.folder / "reports/paper.pdf").read_bytes().startswith(b"%PDF")
    rows = [json.loads(line) for line in (finished.folder / "data/rollouts/rollouts.jsonl").read_text().splitlines()]
    assert {row["model"] for row in rows} == {"base", "warm_start", "tuned"}
    # A base model that was warm-started is not compared, and gives one response to a prompt.
    assert len(rows) == 24 * (1 + 2 + 2)


def test_no_output_names_a_path_of_this_machine(finished: Copy):
    for folder in ("reports", "models", "data/prepared", "data/rollouts"):
        for path in (finished.folder / folder).rglob("*"):
            if path.suffix in {".json", ".jsonl", ".csv", ".md"}:
                assert str(finished.folder) not in path.read_text(encoding="utf-8"), path
                assert sys.prefix not in path.read_text(encoding="utf-8"), path


def test_a_second_run_does_nothing(finished: Copy):
    assert finished.repro() == []


def test_the_temperature_reruns_grpo_and_what_follows_and_nothing_before(finished: Copy):
    finished.set("rewards", "calibration_temperature", 0.8)
    ran = finished.repro()
    report = {
        "analyse_rewards",
        "analyse_ratings",
        "compare_baseline",
        "draw_figures",
        "write_numbers",
        "write_page",
        "paper",
    }
    assert {"train_grpo", "rollout", *report} == set(ran)


def test_a_baseline_of_other_prompts_costs_no_report(finished: Copy):
    comparison = json.loads((finished.folder / "reports/baseline_comparison.json").read_text())
    assert comparison["state"] == "refused"
    assert "It has other test prompts" in comparison["reason"]
    assert (finished.folder / "reports/paper-diff.pdf").read_bytes().startswith(b"%PDF")


def test_a_frozen_run_is_compared_with_the_next_one(finished: Copy):
    assert "The baseline in reports/baseline: 24 prompts, 1 training." in finished.run(
        sys.executable, "-m", "gpro_empathy.tools.baseline"
    )
    assert "compare_baseline" in finished.repro()
    comparison = finished.folder / "reports/baseline_comparison.json"
    assert json.loads(comparison.read_text()) == {"state": "same"}
    finished.set("rewards", "calibration_temperature", 0.7)
    refused = finished.run(sys.executable, "-m", "gpro_empathy.tools.baseline", check=False)
    assert "error: the results here are not of these settings, code and data: stage" in refused
    finished.repro()
    found = json.loads(comparison.read_text())
    assert found["state"] in ("compared", "same")
    if found["state"] == "compared":
        assert [one["what"] for one in found["differs"]["settings"]] == ["rewards.calibration_temperature"]


def test_a_change_of_an_evaluation_trains_no_scorer(finished: Copy):
    path = finished.folder / "src/gpro_empathy/analysis/split_leak.py"
    path.write_text(path.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    ran = set(finished.repro())
    assert "evaluate_scorers" in ran
    assert not {"train_scorer", "train_grpo"} & ran


def test_the_look_of_figures_reruns_figures_and_paper_alone(finished: Copy):
    finished.set("draw_figures", "font_size", 8)
    assert finished.repro() == ["draw_figures", "paper"]
    settings = hashlib.sha256((finished.folder / "params.yaml").read_bytes()).hexdigest()
    assert json.loads((finished.folder / "reports/provenance.json").read_text())["params_sha256"] == settings


def test_a_mistyped_parameter_stops_the_run_in_one_line(finished: Copy):
    path = finished.folder / "params.yaml"
    text = path.read_text()
    path.write_text(text.replace("num_generations", "num_generation"))
    try:
        output = finished.run(sys.executable, "-m", "gpro_empathy.stages.train_grpo", check=False)
    finally:
        path.write_text(text)
    assert "train_grpo.num_generation is no parameter" in output
    assert "Traceback" not in output


def test_a_sweep_runs_in_a_copy_takes_what_it_can_from_the_cache_and_is_shown(finished: Copy):
    before = (finished.folder / "params.yaml").read_bytes()
    command = (sys.executable, "-m", "gpro_empathy.tools.sweep", "--name", "tried")
    here = yaml.safe_load(before)["rewards"]["calibration_temperature"]
    finished.run(*command, "--set", f"rewards.calibration_temperature={here},0.3", "--seeds", "23")
    logs = sorted((finished.folder / "tmp/sweeps/tried").glob("*.log"))
    first, second = (set(re.findall(r"Running stage '(\w+)'", log.read_text())) for log in logs)
    # The first is the run that is there already.
    assert first <= second == {"train_grpo", "rollout"}
    summary = json.loads((finished.folder / "reports/sweeps/tried/summary.json").read_text())
    assert [arm["done"] for arm in summary["arms"]] == [[23], [23]]
    analysis = json.loads((finished.folder / "reports/reward_analysis.json").read_text())
    change = summary["arms"][0]["change"]["empathy_raw"]["estimate"]
    assert change == pytest.approx(analysis["metrics"]["empathy_raw"]["difference"], abs=1e-5)
    assert (finished.folder / "params.yaml").read_bytes() == before
    assert "seed 23" not in finished.run(*command)
    assert finished.repro() == ["write_numbers", "write_page", "paper"]
    assert r"\subsection{Tried}" in (finished.folder / "paper/generated/sweeps.tex").read_text()
