import json

import pytest

from gpro_empathy.files import UserError
from gpro_empathy.tools import baseline as tool


@pytest.fixture
def finished(tmp_path):
    path = tmp_path / tool.ROLLOUTS
    path.parent.mkdir(parents=True)
    path.write_text("{}\n")
    return tmp_path


def test_a_workspace_without_a_run_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"rollouts\.jsonl: no finished run is here to freeze; run `make reproduce` first"
    ):
        tool.check({}, tmp_path)


def test_results_of_other_settings_are_refused_with_the_stage_and_the_way_out(finished):
    status = {
        "train_grpo": [{"changed deps": {"params.yaml": {"train_grpo.steps": "modified"}}}],
        "paper": [{"changed outs": {"reports/paper.pdf": "deleted"}}],
    }
    with pytest.raises(
        UserError,
        match=r"stage train_grpo \(changed deps: params\.yaml\) and 1 more; run `dvc repro` first, or `git checkout",
    ):
        tool.check(status, finished)
    with pytest.raises(UserError, match=r"stage paper \(changed command\); run"):
        tool.check({"paper": ["changed command"]}, finished)


def test_a_baseline_frozen_before_and_not_yet_in_the_report_is_no_obstacle(finished):
    tool.check({"write_numbers": [{"changed deps": {"reports/baseline": "modified"}}]}, finished)
    with pytest.raises(UserError):
        tool.check(
            {"write_numbers": [{"changed deps": {"reports/baseline": "modified", "paper/main.tex": "modified"}}]},
            finished,
        )


def test_going_without_leaves_a_page_about_the_folder_alone(tmp_path):
    folder = tmp_path / "reports/baseline"
    folder.mkdir(parents=True)
    (folder / "scores.csv").write_text("x")
    tool.empty(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    assert "make baseline" in (folder / "README.md").read_text()


def test_status_is_read_as_dvc_says_it(monkeypatch):
    class Done:
        returncode, stdout, stderr = 0, json.dumps({"paper": ["changed command"]}), ""

    monkeypatch.setattr(tool.subprocess, "run", lambda *args, **options: Done)
    assert tool.status() == {"paper": ["changed command"]}
    Done.returncode, Done.stderr = 253, "a\nERROR: no such thing\n"
    with pytest.raises(UserError, match="dvc status failed: ERROR: no such thing"):
        tool.status()
