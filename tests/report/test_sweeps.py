"""Sweeps in the report: section, table, page and figure, from made-up summaries."""

import re
import shutil

import pytest

import made_up_sweep
from gpro_empathy import files
from gpro_empathy.report import figure_files, latex, sweep_figure, sweeps, typeset
from gpro_empathy.report.number_format import LATEX, PAGE
from gpro_empathy.tools import sweep_estimates

T = "rewards.calibration_temperature"
METRICS = ["empathy_raw", "audit_empathy_raw", "answer_words"]
needs_tex = pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")


@pytest.fixture
def summarise(settings):
    """Return a function that sums up runs of temperatures, some of them failed or missing."""

    def summarise(gains, seeds=(23, 24, 25), failing=(), missing=(), name="made_up"):
        sweep = made_up_sweep.sweep({T: list(gains)}, seeds, settings.model_dump(), name)
        rows = [
            made_up_sweep.failed(setting, seed, "100 % of_memory")
            if (setting[T], seed) in failing
            else made_up_sweep.row(setting, seed, gains[setting[T]], training_sd=0.02)
            for setting, seed in sweep.runs()
            if (setting[T], seed) not in missing
        ]
        config = settings.analyse_rewards.model_copy(update={"n_resamples": 200})
        return sweep_estimates.summary(sweep, made_up_sweep.by_key(rows), config, METRICS)

    return summarise


def test_without_sweeps_there_is_no_section_and_no_folder_is_needed(tmp_path):
    assert sweeps.read(tmp_path) == []
    assert sweeps.latex_section([]) == latex.GENERATED
    assert sweeps.page_sections([]) == []


def test_summary_of_another_version_is_refused_with_the_remedy(tmp_path):
    files.write_json(tmp_path / "reports/sweeps/old/summary.json", {"name": "old"})
    with pytest.raises(
        files.UserError, match=r"sweeps/old/summary.json: is of another version; run `make sweep NAME=old`"
    ):
        sweeps.read(tmp_path)


def test_verdict_names_what_differs_and_says_that_no_other_does(summarise):
    text = sweeps.verdict(summarise({0.6: 0.3, 1.0: 1.1, 2.0: 0.3}), PAGE)
    assert re.search(
        r"On empathy, reward's scorer: the change is higher under “1” than under “0.6”, by \+0\.[78]\d \[", text
    )
    assert "; no other setting is shown to differ. On empathy, held-out scorer: the change is higher under" in text


def test_verdict_without_a_difference_says_how_large_one_could_be(summarise):
    text = sweeps.verdict(summarise({0.6: 0.3, 1.0: 0.3}), PAGE)
    assert re.search(
        r"scorer: no setting is shown to differ from “0.6”; the intervals of the differences reach from \N{MINUS SIGN}0",
        text,
    )


def test_verdict_of_one_training_each_or_of_one_setting_claims_nothing(summarise):
    assert "so few trainings, or stories, cannot tell" in sweeps.verdict(
        summarise({0.6: 0.3, 1.0: 1.1}, seeds=(23,)), PAGE
    )
    assert "no two settings yet" in sweeps.verdict(summarise({0.6: 0.3}), PAGE)


def test_verdict_says_which_setting_makes_a_score_another_measure(summarise):
    summary = summarise({0.6: 0.3, 1.0: 0.8}) | {"other_measures": {"empathy_raw": ["train_scorer.layers"]}}
    text = sweeps.verdict(summary, PAGE)
    assert "settings are not compared, as train_scorer.layers makes it another measure." in text
    assert text.count("not compared") == 1


def test_runs_that_failed_or_are_missing_are_told(summarise):
    summary = summarise({0.6: 0.3, 1.0: 0.3}, failing=[(1.0, 23)], missing=[(1.0, 24)])
    assert sweeps.runs(summary) == "4 of 6 trainings are done; 1 failed; one is missing (training seeds 23, 24, 25)."
    assert [row[:2] for row in sweeps.rows(summary, PAGE)] == [["0.6", "3"], ["1", "1 (1 failed, 1 missing)"]]
    assert sweeps.failures(summary) == ["1, seed 23, failed: 100 % of_memory"]
    assert r"1, seed 23, failed: 100 \% of\_memory" in sweeps.latex_table(summary)


def test_table_has_a_cell_for_every_column_of_its_head(summarise):
    summary = summarise({0.6: 0.3, 1.0: 0.4})
    head = sweeps.header(summary)
    assert head[0] == "calibration_temperature"
    assert head[-1] == "difference, held-out"
    assert {len(row) for row in sweeps.rows(summary, PAGE)} == {len(head)}
    estimate = summary["arms"][1]["change"]["empathy_raw"]
    assert sweeps.rows(summary, PAGE)[1][2] == PAGE.estimate(estimate, 2)
    assert sweeps.rows(summary, PAGE)[0][-1] == "reference"


def test_figure_shows_change_interval_and_seeds_of_each_setting(summarise):
    summary = summarise({0.6: 0.3, 1.0: 1.1, 2.0: 0.3}, missing=[(2.0, seed) for seed in (23, 24, 25)])
    axes = sweep_figure.changes(summary, width=6.3, palette="colorblind").axes
    assert [ax.get_title(loc="left") for ax in axes] == ["empathy, reward", "empathy, held-out", "answer length"]
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == ["0.6", "1", "2"]
    points = [line for line in axes[0].lines if line.get_marker() in ("o", "s")]
    assert [line.get_xdata()[0] for line in points] == [
        arm["change"]["empathy_raw"]["estimate"] for arm in summary["arms"][:2]
    ]
    assert [line.get_marker() for line in points] == ["s", "o"]
    assert (points[0].get_markerfacecolor(), points[1].get_markerfacecolor() == "white") == ("white", False)
    change = summary["arms"][1]["change"]["empathy_raw"]
    assert any(list(line.get_xdata()) == [change["low"], change["high"]] for line in axes[0].lines)
    assert any(list(line.get_xdata()) == list(change["by_seed"].values()) for line in axes[0].lines)


def test_figure_of_a_sweep_without_a_finished_run_says_so(summarise):
    summary = summarise({0.6: 0.3}, seeds=(23,), failing=[(0.6, 23)])
    axes = sweep_figure.changes(summary, width=6.3, palette="colorblind").axes
    assert axes[0].texts[0].get_text() == "no run has finished"


@pytest.mark.parametrize(
    ("keys", "answered"),
    [
        (["rewards.calibration_temperature", "rewards.calibration"], sweeps.TEMPERATURE),
        (["rewards.weights", "rewards.calibration_temperature"], sweeps.TEMPERATURE),
        (["rewards.weights.length"], sweeps.WEIGHTS),
        (["rewards.weights"], sweeps.WEIGHTS),
        (["rewards.calibration"], None),
    ],
)
def test_sweep_answers_one_question_of_the_results_or_none(summarise, keys, answered):
    summary = summarise({0.6: 0.3, 1.0: 0.3}) | {"keys": keys}
    assert sweeps.question(summary) == answered
    for one in (sweeps.TEMPERATURE, sweeps.WEIGHTS):
        assert (sweeps.answer([summary], one, "nothing") == "nothing") == (one != answered)
    assert (sweeps.verdict(summary, LATEX) in sweeps.latex_section([summary])) == (answered is None)


def test_page_has_the_verdict_the_failures_and_the_table(summarise):
    (section,) = sweeps.page_sections([summarise({0.6: 0.3, 1.0: 1.1}, failing=[(1.0, 23)], name="terms_left-out")])
    assert section["title"] == "Terms left out"
    assert "is higher under “1” than" in " ".join(section["note"])
    assert section["note"][-1] == "1, seed 23, failed: 100 % of_memory."
    assert len(section["rows"]) == 2


DOCUMENT = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{booktabs,graphicx,adjustbox,siunitx,hyperref}
\newcommand{\stage}[1]{\texttt{\detokenize{#1}}}
\newcommand{\source}[2]{\emph{Made by} \stage{#1} \emph{from} \nolinkurl{#2}.}
\begin{document}
\input{generated/sweeps}
Some text.
\end{document}
"""


@needs_tex
@pytest.mark.slow
def test_section_is_typeset_with_its_table_and_figure(summarise, tmp_path):
    summary = summarise({0.6: 0.3, 1.0: 1.1}, failing=[(1.0, 23)], name="made_up")
    folder = tmp_path / "reports/sweeps/made_up"
    files.write_text(folder / "table.tex", sweeps.latex_table(summary))
    figure_files.save(sweep_figure.changes(summary, width=6.3, palette="colorblind"), folder / "figure")
    files.write_text(tmp_path / "paper/generated/sweeps.tex", sweeps.latex_section([summary]))
    files.write_text(tmp_path / "paper/main.tex", DOCUMENT)
    build = typeset.typeset(tmp_path)
    labels = (build / "main.aux").read_text()
    assert {"sec:sweeps", "tab:sweep-made_up", "fig:sweep-made_up"} <= set(re.findall(r"newlabel\{([^}@]+)\}", labels))
