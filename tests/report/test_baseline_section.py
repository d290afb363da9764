import itertools
from pathlib import Path

import numpy as np
import pytest

import made_up
import made_up_runs
from gpro_empathy import params
from gpro_empathy.analysis import baseline_comparison
from gpro_empathy.report import baseline_section, baseline_tables

CONFIG = params.load_all(Path(__file__).parents[2] / "params.yaml").analyse_rewards.model_copy(
    update={"n_resamples": 300, "metrics": list(made_up_runs.DECLARED)}
)
BASE = made_up_runs.run()
WORDS = (baseline_section.PAPER, baseline_section.WEB)


def compare(shift, sd=0.1, study=True, noise=0.3, **changed):
    run = made_up_runs.run(made_up_runs.shifted(made_up.rollouts(), shift, noise=noise), **changed)
    found = made_up_runs.study(BASE, sd=sd) if study else None
    return baseline_comparison.compare(BASE, run, CONFIG, found, np.random.default_rng(1))


TEMPERATURE = {"rewards": {"calibration_temperature": 0.8}}


def told(found, words=baseline_section.WEB):
    parts = (
        baseline_section.summary,
        baseline_section.differences,
        baseline_section.verdict,
        baseline_section.precision,
    )
    return " ".join(part(found, words) for part in parts)


def test_a_large_change_is_told_with_the_setting_that_made_it_and_its_interval():
    found = compare(1.0, sd=0.05, **TEMPERATURE)
    text = told(found)
    assert "Against the baseline (rewards.calibration_temperature 0.8 for 0.6), raw empathy" in text
    assert "with the spread between trainings): it improved by more than stories and seeds would move it." in text
    assert r"\stage{rewards.calibration_temperature} 0.8 for 0.6" in told(found, baseline_section.PAPER)
    assert "the study of 5 trainings in reports/seeds" in text
    assert "1 training of this run and 1 training of the baseline (commit 0123abc)" in text
    assert "A single training would have shown a difference of" in text
    assert "Not compared, as other settings make another measure of it" in text


def test_a_seed_that_moves_it_as_much_is_said_to():
    text = told(compare(0.5, sd=0.5, **TEMPERATURE))
    assert "a training with another seed moves it as much, so that no effect is established" in text
    assert "No change of a declared metric is established." in text
    assert "improved" not in text


def test_without_a_study_nothing_is_claimed_beyond_these_weights():
    text = told(compare(1.0, study=False, **TEMPERATURE))
    assert "for these trainings): how far a training with another seed would move it is not known" in text
    assert "no study of several trainings is at hand: make seeds shows it" in text
    assert "improved" not in text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "As nothing that decides results was changed, these differences are the spread between trainings"),
        ({"machine": "another"}, "these differences are what rounding makes of a training"),
    ],
)
def test_a_rerun_claims_no_effect_even_where_the_numbers_look_like_one(changed, said):
    text = told(compare(1.0, sd=0.05, **changed))
    assert said in text
    assert "no setting was changed, so that this is the spread between trainings" in text


def test_two_things_changed_at_once_are_not_told_apart():
    assert "The effects of these are not told apart" in told(compare(0.2, machine="another", **TEMPERATURE))
    assert "not told apart" not in told(compare(0.2, **TEMPERATURE))


def test_another_scorer_leaves_empathy_out():
    text = told(compare(0.2, train_scorer={"layers": 6}))
    assert "raw empathy is another measure and not compared; of the 3 metrics that are, none changed." in text


@pytest.mark.parametrize("found", [{"state": "none"}, {"state": "same"}])
def test_nothing_is_said_of_no_baseline_nor_in_the_baselines_own_report(found):
    assert baseline_section.macros(found) == {
        "RunBaselineTold": "0",
        "RunBaselineCompared": "0",
        "RunBaselineSummary": "",
        "RunBaselineDifferences": "",
        "RunBaselineVerdict": "",
        "RunBaselinePrecision": "",
    }
    assert all("tabular" not in table for table in baseline_tables.latex_tables(found).values())


def test_a_refusal_is_a_sentence_and_no_table():
    found = {"state": "refused", "reason": "It has other texts. Freeze 5 % anew."}
    macros = baseline_section.macros(found)
    assert (
        macros["RunBaselineSummary"]
        == r"The baseline is not compared with this run: it has other texts. Freeze 5 \% anew."
    )
    assert (macros["RunBaselineTold"], macros["RunBaselineCompared"]) == ("1", "0")
    assert macros["RunBaselineVerdict"] == ""


def test_every_metric_is_in_exactly_one_part_of_the_verdict():
    for shift, sd, study in itertools.product((0.0, 0.3, 1.0), (0.05, 0.5), (True, False)):
        found = compare(shift, sd, study, **TEMPERATURE)
        verdict = baseline_section.verdict(found, baseline_section.WEB).lower()
        assert [verdict.count("empathy, reward's scorer"), verdict.count("semantic similarity")] == [1, 1]


@pytest.mark.parametrize("words", WORDS)
def test_tables_have_a_row_a_metric_and_one_for_each_thing_that_differs(words):
    found = compare(0.2, machine="another", **TEMPERATURE)
    rows = baseline_tables.rows(found, words)
    assert len(rows) == len(found["metric_order"])
    assert {len(row) for row in rows} == {len(baseline_tables.HEADER)}
    differing = baseline_tables.difference_rows(found, words)
    assert [row[1:] for row in differing] == [["0.6", "0.8"], ["a processor", "another"]]


def test_figure_fills_only_points_of_changes_that_are_established():
    drawn = baseline_tables.drawn(compare(1.0, sd=0.05, **TEMPERATURE))
    assert drawn["empathy_raw"]["verdict"] == "improved"
    assert drawn["overlap"]["verdict"] == "no evidence of a change"
    assert (
        baseline_tables.drawn(compare(0.5, sd=0.5, **TEMPERATURE))["empathy_raw"]["verdict"]
        == "no evidence of a change"
    )
