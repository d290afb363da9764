"""The declared form of the results against what is in fact returned and written."""

import json
import types
import typing
from pathlib import Path

import numpy as np
import pytest

import made_up
from gpro_empathy.analysis import ratings_of_run, results, scorer_reliability
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.stages import analyse_rewards

ROOT = Path(__file__).parents[2]


def mismatches(value, form, place="result"):
    """Return where a value is not of a form.

    A form is made of TypedDicts, lists, dicts by text, unions and types.
    """
    origin, arguments = typing.get_origin(form), typing.get_args(form)
    if typing.is_typeddict(form):
        if not isinstance(value, dict) or set(value) != form.__required_keys__:
            return [f"{place}: keys {sorted(value)} where {form.__name__} has {sorted(form.__required_keys__)}"]
        parts = [(value[key], part, f"{place}.{key}") for key, part in typing.get_type_hints(form).items()]
    elif origin is list:
        parts = [(item, arguments[0], f"{place}[{n}]") for n, item in enumerate(value)]
    elif origin is dict:
        parts = [(item, arguments[1], f"{place}.{key}") for key, item in value.items()]
    else:
        allowed = arguments if origin is types.UnionType else (form,)
        if dicts := [part for part in allowed if typing.is_typeddict(part) and value is not None]:
            return mismatches(value, dicts[0], place)
        return [] if type(value) in allowed else [f"{place}: {value!r} where {form} is declared"]
    return [problem for part in parts for problem in mismatches(*part)]


@pytest.mark.parametrize("path", ["reports/reward_analysis.json", "reports/seeds/reward_analysis.json"])
def test_committed_analyses_have_the_declared_form(path):
    assert mismatches(json.loads((ROOT / path).read_text()), results.Analysis) == []


@pytest.mark.parametrize("role", ["reward", "audit"])
def test_committed_reliability_of_the_scorers_has_the_declared_form(role):
    scorer = json.loads((ROOT / "reports/scorer.json").read_text())
    assert mismatches(scorer[role]["calibration"], results.Reliability) == []
    assert mismatches(scorer[role]["stock_phrases"], results.PhraseReaction) == []


def test_committed_agreement_and_leak_of_the_scorers_have_the_declared_form():
    scorer = json.loads((ROOT / "reports/scorer.json").read_text())
    assert mismatches(scorer["agreement"], results.Agreement) == []
    assert mismatches(scorer["leak"], results.Leak) == []


def test_analysis_returns_the_declared_form_where_little_is_defined(settings):
    """No intensity stated, no spread, and too few stories for intervals by level."""
    rows = made_up.rollouts("none", prompts=4, conversations=4)
    for row in rows:
        row["stated_intensity"], row["audit_empathy_raw"] = None, 2.0
    config = settings.analyse_rewards.model_copy(update={"n_resamples": 100})
    found = analyse_rewards.analyse(rows, config, settings.rewards.weights, np.random.default_rng(0))
    assert found["audit"]["prompt_correlation"] is None
    assert mismatches(found, results.RolloutAnalysis) == []


@pytest.mark.parametrize("kinds", [(), ("model",), ("person", "model")])
def test_ratings_of_a_run_have_the_declared_form(kinds):
    rows = made_up.told_apart(made_up.rollouts())
    by_file = {f"{kind}.csv": made_up.rate(rows, kind=kind) for kind in kinds}
    rng = np.random.default_rng(1)
    found = ratings_of_run.summary(by_file, rows, ["overlap", "intensity_agreement"], 0.95, 200, rng)
    assert mismatches(found, results.RunRatings) == []
    assert list(found["by_kind"]) == list(kinds)
    if kinds:
        model = found["by_kind"]["model"]
        assert model["pairs"]["verdict"] == "preferred"
        assert 0.5 < model["pairs"]["smallest_win_rate"] < 0.75
        assert model["pairs"]["pairs_needed"] > 30
        # As many of both policies' answers are sensible, and the same prompts' are.
        assert model["difference"]["sensible"] == {"estimate": 0.0, "low": None, "high": None}
        assert model["validity"]["empathy_raw"]["sense"]["low"] is not None


def test_committed_ratings_have_the_declared_form():
    assert mismatches(json.loads((ROOT / "reports/ratings.json").read_text()), results.RunRatings) == []


def test_reliability_returns_the_declared_form_for_few_turns():
    turns = [Turn("1", n, "a b", (), 1.0, 1.0, float(n)) for n in range(4)]
    found = scorer_reliability.calibration(turns, np.arange(4.0), np.random.default_rng(0))
    assert found["slope"]["low"] is None
    assert mismatches(found, results.Reliability) == []


def test_a_value_of_another_form_is_noticed():
    assert mismatches({"estimate": 1.0, "low": None}, results.Estimate) == [
        "result: keys ['estimate', 'low'] where Estimate has ['estimate', 'high', 'low']"
    ]
    assert mismatches({"estimate": 1, "low": None, "high": "2"}, results.Estimate) == [
        "result.estimate: 1 where float | None is declared",
        "result.high: '2' where float | None is declared",
    ]
