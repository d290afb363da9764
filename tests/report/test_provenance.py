import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gpro_empathy import entry_point, files
from gpro_empathy.report import changes, provenance
from gpro_empathy.stages import paper, record_provenance

ROOT = Path(__file__).parents[2]
needs_tex = pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")
GRAPH = {
    "stages": {
        "first": {"cmd": "x", "outs": ["models/a", {"reports/a.json": {"cache": False}}]},
        "second": {"cmd": "x", "metrics": [{"reports/b.json": {"cache": False}}]},
        "paper": {"cmd": ["x", "y"], "outs": ["paper/provenance", "reports/paper.pdf"]},
    }
}


def lock(**outs):
    """Return the content of dvc.lock with one output per stage."""
    entries = {
        name: {"outs": [{"path": name, "md5": md5}], "deps": [{"path": "main.tex"}]} for name, md5 in outs.items()
    }
    return {"schema": "2.0", "stages": entries}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(GRAPH, sort_keys=False))
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock(first="11", second="22")))
    (tmp_path / "params.yaml").write_text("a: 1\n")
    return tmp_path


def commit(root):
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *arguments], cwd=root, check=True)


def note(root, stage, finished, seconds):
    files.write_json(root / entry_point.WALL_TIMES / f"{stage}.json", {"finished": finished, "seconds": seconds})


def record(root):
    record_provenance.run(root)
    return files.read_json(root / "reports/provenance.json")


# The record


def test_hashes_are_those_of_the_files(root):
    found = record(root)
    assert found["params_sha256"] == hashlib.sha256(b"a: 1\n").hexdigest()
    text = (
        '{"first":{"outs":[{"md5":"11","path":"first"}],"params":null},'
        '"second":{"outs":[{"md5":"22","path":"second"}],"params":null}}'
    )
    assert found["lock_sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_hash_of_the_lock_covers_parameters_and_outputs_of_the_stages_above(root):
    before = record(root)["lock_sha256"]
    changed = lock(first="11", second="22", paper="33")
    changed["stages"]["second"]["deps"] = []
    (root / "dvc.lock").write_text(yaml.safe_dump(changed))
    assert record(root)["lock_sha256"] == before
    changed["stages"]["second"]["params"] = {"params.yaml": {"a": 2}}
    (root / "dvc.lock").write_text(yaml.safe_dump(changed))
    assert record(root)["lock_sha256"] != before


def test_order_of_keys_does_not_change_the_hash():
    one = {"stages": {"a": {"outs": [{"path": "x", "md5": "1"}], "params": None}}}
    other = {"stages": {"a": {"params": None, "outs": [{"md5": "1", "path": "x"}]}}}
    assert provenance.lock_hash(one, ["a"]) == provenance.lock_hash(other, ["a"]) is not None


def test_a_lock_that_lacks_a_stage_has_no_hash(root):
    (root / "dvc.lock").write_text(yaml.safe_dump(lock(first="11")))
    assert record(root)["lock_sha256"] is None
    (root / "dvc.lock").unlink()
    assert record(root)["lock_sha256"] is None


def test_versions_and_machine_are_named(root):
    found = record(root)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert re.match(r"\d", found["packages"]["torch"])
    assert found["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert found["machine"]["memory_gib"] > 0
    assert found["machine"]["processor"]


def test_packages_that_are_not_installed_are_left_out():
    assert provenance.packages(["pytest", "no-such-package"]) == {"pytest": pytest.__version__}


def test_processor_is_the_first_model_name(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Some CPU: 3 GHz\nprocessor\t: 1\nmodel name\t: x\n"
    )
    assert provenance.machine(tmp_path / "cpuinfo")["processor"] == "Some CPU: 3 GHz"
    monkeypatch.setattr("platform.processor", lambda: "aarch64")
    assert provenance.machine(tmp_path / "absent")["processor"] == "aarch64"


def test_neither_the_machines_name_nor_a_path_of_it_is_recorded(root):
    import platform

    record_provenance.run(root)
    for path in ("reports/provenance.json", "paper/provenance/provenance.tex"):
        text = (root / path).read_text()
        assert str(root) not in text
        assert sys.prefix not in text
        assert not re.search(rf"\b{re.escape(platform.node())}\b", text)


# Commit


def test_outside_of_git_the_record_says_so(root, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(root.parent))
    found = record(root)
    assert (found["commit"], found["changed"]) == (None, [])
    assert "Commit & not in git" in (root / "paper/provenance/provenance.tex").read_text()


def test_changed_inputs_are_named_and_what_stages_write_is_not(root):
    commit(root)
    (root / "models/a").mkdir(parents=True)
    for path in ("models/a/weights", "models/another", "dvc.lock", "params.yaml", "reports.txt"):
        (root / path).write_text("changed: 1\n")
    found = record(root)
    assert re.fullmatch(r"[0-9a-f]{40}", found["commit"])
    assert found["changed"] == ["models/another", "params.yaml", "reports.txt"]


def test_a_clean_tree_has_no_changes(root):
    commit(root)
    assert record(root)["changed"] == []
    assert "nothing changed since" in (root / "paper/provenance/provenance.tex").read_text()


# Wall times


def test_a_stage_that_never_ran_here_came_from_the_cache(root):
    note(root, "first", 100.0, 12.5)
    assert record(root)["stages"] == {"first": 12.5, "second": None}


def test_outputs_that_the_cache_brought_back_lose_the_wall_time_of_another_run(root):
    note(root, "first", 100.0, 12.5)
    assert record(root)["stages"]["first"] == 12.5
    (root / "dvc.lock").write_text(yaml.safe_dump(lock(first="other", second="22")))
    assert record(root)["stages"]["first"] is None
    assert record(root)["stages"]["first"] is None
    # The run whose time is known is back.
    (root / "dvc.lock").write_text(yaml.safe_dump(lock(first="11", second="22")))
    assert record(root)["stages"]["first"] == 12.5


def test_a_new_run_of_a_stage_has_its_own_time(root):
    note(root, "first", 100.0, 12.5)
    record(root)
    (root / "dvc.lock").write_text(yaml.safe_dump(lock(first="other", second="22")))
    note(root, "first", 200.0, 3.25)
    assert record(root)["stages"]["first"] == 3.25


def test_run_as_a_stage_it_notes_its_wall_time_and_a_failed_one_does_not(root):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "gpro_empathy.stages.record_provenance"]
    subprocess.run(command, cwd=root, env=environment, check=True)
    noted = files.read_json(root / "work/stages/record_provenance.json")
    # Start of the process included: importing alone takes a tenth of a second.
    assert noted["seconds"] >= 0.1
    (root / "work/stages/record_provenance.json").unlink()
    (root / "dvc.yaml").write_text("stages: [")
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: dvc.yaml: not YAML")
    assert not (root / "work/stages/record_provenance.json").exists()


def test_what_is_no_stage_notes_no_wall_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry_point.run_stage(lambda: None)
    assert not (tmp_path / "work").exists()


# The section of the report


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "taken from the cache"), (0.04, "0.0 s"), (119.9, "119.9 s"), (120.0, "2.0 min"), (930.0, "15.5 min")],
)
def test_durations_are_in_seconds_up_to_two_minutes(seconds, text):
    assert provenance.duration(seconds) == text


def test_many_changes_are_counted(root):
    commit(root)
    for number in range(8):
        (root / f"file_{number}").write_text("x")
    record_provenance.run(root)
    text = (root / "paper/provenance/provenance.tex").read_text()
    assert r"\texttt{file\_4} and 3 more" in text


def test_total_is_given_only_when_every_stage_ran_here(root):
    note(root, "first", 100.0, 60.0)
    record_provenance.run(root)
    assert "together" not in (root / "paper/provenance/provenance.tex").read_text()
    note(root, "second", 110.0, 90.0)
    record_provenance.run(root)
    assert "together 2.5 min" in (root / "paper/provenance/provenance.tex").read_text()


def test_every_linked_file_is_made_by_a_stage():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    made = [
        next(iter(entry)) if isinstance(entry, dict) else entry
        for stage in stages.values()
        for entry in [*stage.get("outs", []), *stage.get("metrics", [])]
    ]
    for link in record_provenance.LINKS:
        assert any(f"reports/{link}" == path or f"reports/{link}".startswith(f"{path}/") for path in made), link


def test_stages_above_are_all_those_that_the_report_is_made_by():
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    assert set(graph["stages"]) - set(record_provenance.above(graph, record_provenance.STAGE)) == {"paper", "inputs"}


@needs_tex
@pytest.mark.slow
def test_section_is_typeset_without_a_wide_line(root):
    commit(root)
    for number in range(8):
        (root / f"a_file_with_a_name_{number}%&#~.txt").write_text("x")
    note(root, "first", 100.0, 60.0)
    record_provenance.run(root)
    (root / "paper/main.tex").write_text(
        "\\documentclass[11pt,a4paper]{article}\n\\pdfcompresslevel=0 \\pdfobjcompresslevel=0\n"
        "\\usepackage[T1]{fontenc}\\usepackage{lmodern,booktabs,array,textcomp}\\usepackage[hmargin=25mm]{geometry}\n"
        "\\usepackage{hyperref}\\emergencystretch=2em\n"
        "\\begin{document}\\input{provenance/provenance}\\autoref{sec:provenance}\\end{document}\n"
    )
    files.write_text(root / "paper/generated/changes.tex", changes.nothing("a test"))
    paper.run(root)
    pdf = (root / "reports/paper.pdf").read_bytes()
    assert all(f"({link})".encode() in pdf for link in record_provenance.LINKS)
