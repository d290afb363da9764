"""What DVC calls stale, by DVC itself: the project's graph and code, with made-up results."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stage_graph import PACKAGE, ROOT, STAGES, VERSIONS, declared, declared_code, versions_used

# What Python, editors, tools and file systems leave beside code while one works on it.
LITTER = (
    "__pycache__/figures.cpython-311.pyc", "figures.pyc", ".ipynb_checkpoints/figures-checkpoint.py", ".pytest_cache/README.md",
    ".ruff_cache/0.1/1", ".mypy_cache/3.11/x.json", ".hypothesis/unicode_data/x", ".idea/workspace.xml", ".vscode/settings.json",
    ".figures.py.swp", ".figures.py.swo", "figures.py~", ".#figures.py", "#figures.py#", "figures.py.orig", "figures.py.rej",
    ".DS_Store", ".nfs0000000001",
)  # fmt: skip


class Repository:
    """A repository in which every stage is up to date, though none has run."""

    def __init__(self, folder):
        self.folder = folder
        for path in (
            "dvc.yaml",
            ".dvcignore",
            "params.yaml",
            "versions.yaml",
            "bench/best_of.json",
            "bench/scorer.json",
        ):
            self.path(path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, self.path(path))
        for path in (".dvc", "src", "rewards", "data/embedded", "data/inputs", "paper", "reports/gpu"):
            ignored = shutil.ignore_patterns("__pycache__", "tmp", "cache", "build", "config.local")
            shutil.copytree(ROOT / path, self.path(path), symlinks=True, ignore=ignored)
        self.make_results()
        self.dvc("config", "--local", "core.no_scm", "true")
        self.dvc("commit", "--force", "--quiet")

    def path(self, name):
        return self.folder / name

    def make_results(self):
        """Write a file in place of every result that a stage writes or reads."""
        for name in STAGES:
            for path in declared(name, "outs") | declared(name, "deps"):
                if self.path(path).exists():
                    continue
                file = self.path(path) if Path(path).suffix else self.path(path) / "made-up"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("made up")

    def dvc(self, *arguments):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"DVC_NO_ANALYTICS": "1", "PATH": path, "PYTHONPATH": "src"}
        line = [sys.executable, "-m", "dvc", *arguments]
        done = subprocess.run(line, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self):
        """Return, by stale stage, what has changed: paths, and files of params with their keys."""
        report = json.loads(self.dvc("status", "--json"))
        return {
            stage: {path: change for part in parts for changes in part.values() for path, change in changes.items()}
            for stage, parts in report.items()
        }


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return Repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture
def litter(repository):
    """Leave litter in every room of the package and take it away again; yield its files."""
    rooms = sorted(path for path in repository.path(PACKAGE).iterdir() if path.is_dir())
    files = [room / name for room in rooms for name in LITTER]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("litter")
    yield files
    for file in files:
        file.unlink()


@pytest.fixture
def changed(repository):
    """Return a function that replaces the text of a file until the end of the test."""
    before = {}

    def change(path, text):
        before.setdefault(path, path.read_text())
        path.write_text(text)

    yield change
    for path, text in before.items():
        path.write_text(text)


def test_no_stage_is_stale_at_first_nor_by_what_tools_leave_beside_the_code(repository, litter, changed):
    assert repository.status() == {}
    changed(repository.path(".dvcignore"), "")
    with_folders = {name for name in STAGES if any(not Path(path).suffix for path in declared_code(name))}
    assert repository.status().keys() == with_folders


def test_another_version_makes_the_stages_that_use_the_package_stale_and_no_other(repository, changed):
    path = repository.path(VERSIONS)
    packages = yaml.safe_load(path.read_text())
    changed(path, yaml.safe_dump(dict.fromkeys(packages, "another")))
    status = repository.status()
    assert all(changes.keys() == {VERSIONS} for changes in status.values())
    stale = {name: set(changes[VERSIONS]) for name, changes in status.items()}
    assert stale == {name: versions_used(name) for name in STAGES if versions_used(name)}
    assert set().union(*stale.values()) == packages.keys()


def test_a_changed_room_makes_the_stages_stale_that_work_in_it_and_none_of_the_long_ones(repository, changed):
    for path in repository.path(PACKAGE).glob("*/__init__.py"):
        changed(path, "# changed")
    status = repository.status()
    assert not {"train_grpo", "rollout"} & status.keys()
    for room, stale in (
        ("report", {"compare_baseline", "draw_figures", "write_numbers", "write_page", "paper"}), ("training", {"warm_start"})
    ):  # fmt: skip
        assert {name for name, changes in status.items() if f"{PACKAGE}/{room}" in changes} == stale


def test_a_changed_or_new_reward_module_makes_training_and_rollouts_stale(repository, changed):
    path = repository.path("rewards/examples.py")
    changed(path, "# changed")
    stale = {name for name, changes in repository.status().items() if "rewards" in changes}
    assert stale == {"train_grpo", "rollout"}
    changed(path, (ROOT / "rewards/examples.py").read_text())
    imported = repository.path("rewards/words.py")
    imported.write_text("SCORE = 1.0")
    assert repository.status().keys() == stale
    imported.unlink()


# Inputs of the user's


@pytest.fixture
def own_inputs(repository, changed, tmp_path):
    """List a file and a folder of the user's in params.yaml, and note them; return both."""
    file, folder = tmp_path / "with a space.csv", tmp_path / "model"
    file.write_text("text\nhello\n")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    values = yaml.safe_load(repository.path("params.yaml").read_text())
    values["inputs"] = {"train": str(file), "policy": str(folder)}
    values["prepare"] |= {"source": "wassa_csv", "wassa_train_csv": str(file)}
    lock = repository.path("dvc.lock")
    changed(repository.path("params.yaml"), yaml.safe_dump(values))
    changed(lock, lock.read_text())
    repository.dvc("repro", "inputs")
    repository.dvc("commit", "--force", "--quiet")
    yield file, folder / "config.json"
    for note in repository.path("data/inputs").glob("*.json"):
        note.unlink()


def test_an_edited_input_of_the_users_makes_the_stages_stale_that_may_read_it(repository, own_inputs):
    assert repository.status() == {}
    assert "up to date" in repository.dvc("repro", "inputs")
    for path, stage in zip(own_inputs, ("inputs@train", "inputs@policy"), strict=True):
        path.write_text(path.read_text() + "\n")
        assert repository.status().keys() == {stage}
        repository.dvc("repro", "inputs")
        assert repository.status().keys() == {name for name in STAGES if "data/inputs" in declared(name, "deps")}
        repository.dvc("commit", "--force", "--quiet")


def test_a_deleted_input_of_the_users_stops_a_run(repository, own_inputs):
    own_inputs[0].unlink()
    with pytest.raises(AssertionError, match="inputs@train"):
        repository.dvc("repro", "prepare")


def test_another_folder_of_the_embedded_corpus_is_a_dependency(repository, changed):
    values = yaml.safe_load(repository.path("params.yaml").read_text())
    values["prepare"]["embedded_folder"] = "data/elsewhere"
    shutil.copytree(repository.path("data/embedded"), repository.path("data/elsewhere"))
    changed(repository.path("params.yaml"), yaml.safe_dump(values))
    read = {f"data/elsewhere/{name}" for name in ("demonstrations.jsonl", "stories.jsonl", "turns.csv")}
    assert read <= repository.status()["prepare"].keys()
