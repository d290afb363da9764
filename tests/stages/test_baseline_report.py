"""From a frozen run to what the report of the next one says of it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import made_up
import made_up_runs
from gpro_empathy import files, params
from gpro_empathy.stages import (
    analyse_ratings,
    analyse_rewards,
    compare_baseline,
    draw_figures,
    paper,
    record_provenance,
    write_numbers,
    write_page,
)
from gpro_empathy.tools import baseline as tool

ROOT = Path(__file__).parents[2]
PARAMS = params.load_all(ROOT / "params.yaml")
CONFIG = PARAMS.analyse_rewards.model_copy(update={"n_resamples": 300})
needs_tex = pytest.mark.skipif(
    shutil.which("latexmk") is None or shutil.which("pdftotext") is None, reason="latexmk or pdftotext is not installed"
)


def sections(temperature):
    changed = {
        "analyse_rewards": CONFIG,
        "rewards": PARAMS.rewards.model_copy(update={"calibration_temperature": temperature}),
    }
    return [
        changed.get(section.section_name(), getattr(PARAMS, section.section_name()))
        for section in compare_baseline.SECTIONS
    ]


def run_stages(root, temperature=0.6):
    of = {section.section_name(): section for section in sections(temperature)}
    analyse_rewards.run(CONFIG, of["rewards"], PARAMS.train_grpo, root)
    analyse_ratings.run(CONFIG, root)
    compare_baseline.run(sections(temperature), root)
    write_numbers.run(sections(temperature), root)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Freeze a made-up run as the baseline; return its folder."""
    root = tmp_path_factory.mktemp("frozen")
    made_up.write_reports(root)
    for name in ("paper/main.tex", "paper/diff.tex", "paper/references.bib", "reports/protocol.yaml", "params.yaml"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "paper/web", root / "paper/web")
    run_stages(root)
    files.write_json(root / "reports/provenance.json", {"commit": "0123abc"})
    tool.freeze(root)
    return root


@pytest.fixture
def workspace(frozen, tmp_path):
    """Return a copy of the frozen run, to change."""
    shutil.copytree(frozen, tmp_path / "run")
    return tmp_path / "run"


def change(root, shift=0.6):
    rows = made_up_runs.shifted(made_up.rollouts(), shift, noise=0.2)
    files.write_jsonl(root / "data/rollouts/rollouts.jsonl", rows)


def definitions(root):
    return (root / "paper/generated/numbers.tex").read_text()


def test_baseline_of_a_run_has_its_numbers_as_they_are_typeset_and_its_examples(frozen):
    folder = frozen / "reports/baseline"
    numbers = json.loads((folder / "numbers.json").read_text())
    assert rf"\newcommand{{\RunEmpathyTuned}}{{{numbers['RunEmpathyTuned']}}}" in definitions(frozen)
    assert len(json.loads((folder / "examples.json").read_text())) == (
        (frozen / "paper/generated/examples.tex").read_text().count(r"\begin{minipage}")
    )
    assert json.loads((folder / "provenance.json").read_text())["commit"] == "0123abc"


def test_section_is_absent_from_the_report_of_the_baseline_itself(workspace):
    run_stages(workspace)
    assert json.loads((workspace / compare_baseline.COMPARISON).read_text()) == {"state": "same"}
    assert r"\newcommand{\RunBaselineTold}{0}" in definitions(workspace)
    assert r"\newcommand{\RunBaselineSummary}{}" in definitions(workspace)
    write_page.run(workspace)
    page = (workspace / "reports/index.html").read_text()
    assert "the baseline" not in page
    assert "paper-diff.pdf" not in page
    draw_figures.run(PARAMS.draw_figures, workspace)
    assert not (workspace / "reports/figures/baseline_differences.pdf").exists()


def test_report_and_page_of_an_experiment_say_what_the_change_did(workspace):
    change(workspace)
    run_stages(workspace, temperature=0.8)
    assert r"\newcommand{\RunBaselineCompared}{1}" in definitions(workspace)
    assert r"\stage{rewards.calibration_temperature} 0.8 for 0.6" in definitions(workspace)
    draw_figures.run(PARAMS.draw_figures, workspace)
    assert (workspace / "reports/figures/baseline_differences.pdf").exists()
    write_page.run(workspace)
    page = (workspace / "reports/index.html").read_text()
    assert "figures/baseline_differences.png" in page
    assert "Against the baseline (rewards.calibration_temperature 0.8 for 0.6), raw empathy" in page
    assert "<td>0.6</td><td>0.8</td>" in page


def test_a_baseline_of_other_prompts_is_told_of_and_costs_no_report(workspace):
    files.write_jsonl(workspace / "data/rollouts/rollouts.jsonl", made_up.rollouts(prompts=50))
    run_stages(workspace)
    assert "The baseline is not compared with this run: it has other test prompts" in definitions(workspace)
    write_page.run(workspace)
    assert "it has other test prompts" in (workspace / "reports/index.html").read_text()
    assert b"cannot be compared" in paper.what_changed(workspace)


def test_an_emptied_baseline_leaves_no_section(workspace):
    change(workspace)
    tool.empty(workspace)
    run_stages(workspace)
    assert r"\newcommand{\RunBaselineTold}{0}" in definitions(workspace)


def test_a_damaged_baseline_is_refused_in_one_line(workspace):
    change(workspace)
    (workspace / "reports/baseline/scores.csv").write_text("x\n1\n")
    with pytest.raises(files.UserError, match=r"scores\.csv: column 'prompt_id' is missing; restore it"):
        compare_baseline.run(sections(0.6), workspace)


@pytest.mark.parametrize(
    ("name", "said"),
    [("numbers.json", "no texts by name"), ("tables.json", "no texts by name"), ("examples.json", "no list of marks")],
)
def test_damaged_numbers_of_the_baseline_are_refused_with_their_file(workspace, name, said):
    change(workspace)
    (workspace / "reports/baseline" / name).write_text('"x"')
    with pytest.raises(files.UserError, match=rf"{name}: {said}; restore it"):
        run_stages(workspace)


def test_a_study_of_another_version_stops_a_run_of_one_training_alone(workspace, capsys):
    files.write_json(workspace / compare_baseline.STUDY, {"metrics": {}})
    with pytest.raises(files.UserError, match=r"of another version .* run `make seeds`"):
        compare_baseline.run(sections(0.6), workspace)
    several = PARAMS.train_grpo.model_copy(update={"seeds": [23, 24]})
    assert compare_baseline.read_study(workspace / compare_baseline.STUDY, [several]) is None
    assert "this run's own trainings" in capsys.readouterr().err


def text_of(pdf):
    done = subprocess.run(["pdftotext", "-layout", str(pdf), "-"], capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split())


@needs_tex
def test_a_page_without_tex_says_why_nothing_is_shown(workspace, tmp_path):
    run_stages(workspace)
    path = tmp_path / "page.pdf"
    path.write_bytes(paper.what_changed(workspace))
    assert text_of(path) == "Nothing to show beside the report: the scores of this run are those of the baseline."


@needs_tex
@pytest.mark.slow
def test_changed_numbers_stand_beside_the_old_ones_in_the_typeset_text(workspace):
    old = json.loads((workspace / "reports/baseline/numbers.json").read_text())["RunEmpathyTuned"]
    change(workspace)
    run_stages(workspace, temperature=0.8)
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        shutil.copy(ROOT / name, workspace)
    draw_figures.run(PARAMS.draw_figures, workspace)
    record_provenance.run(workspace)
    paper.run(workspace)
    new = next(line for line in definitions(workspace).splitlines() if "RunEmpathyTuned}" in line)
    before, now = (text.rpartition(r"\num{")[2].rstrip("}") for text in (old, new))
    assert before != now
    # The brackets are angles, which not every reader of PDF names alike.
    beside = rf"{re.escape(before)}\W{{1,3}}{re.escape(now)} label units"
    assert re.search(beside, text_of(workspace / "reports/paper-diff.pdf"))
    assert re.search(r"calibration_temperature \W?0\.6\W{1,3}0\.8", text_of(workspace / "reports/paper-diff.pdf"))
    assert "another example than in the baseline" in text_of(workspace / "reports/paper-diff.pdf")
    report = text_of(workspace / "reports/paper.pdf")
    assert not re.search(beside, report)
    assert "Against the baseline (rewards.calibration_temperature 0.8 for 0.6), raw empathy" in report


@needs_tex
def test_words_that_tex_cannot_set_cost_no_report(workspace, capsys):
    generated = workspace / "paper/generated/changes.tex"
    generated.write_text(r"\renewcommand{\RunEmpathyTuned}{\nosuchcommand}" + "\n")
    assert b"could not be typeset" in paper.what_changed(workspace)
    assert "shows no changes" in capsys.readouterr().err
