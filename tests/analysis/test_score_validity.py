import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from gpro_empathy.analysis.score_validity import RatedAnswers, RatedPair, validity


def rated(sense, story, *, empathy=None, sensible=None):
    sense = np.asarray(sense, float)
    empathy = sense + 1 if empathy is None else np.asarray(empathy, float)
    sensible = (sense == 2).astype(float) if sensible is None else np.asarray(sensible, float)
    return RatedAnswers(sense, empathy, sensible, (empathy >= 3).astype(float), np.asarray(story, dtype=object))


def check(score, answers, pairs=(), n_resamples=400, seed=1):
    return validity(np.asarray(score, float), answers, pairs, n_resamples, 0.95, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(3)
    sense, story = rng.integers(0, 3, 90), np.repeat(np.arange(18), 5)
    return np.round(rng.normal(0.4 * sense, 1), 1), rated(sense, story, empathy=rng.integers(1, 6, 90))


def test_estimates_agree_with_scipy_and_sklearn(drawn):
    score, answers = drawn
    found = check(score, answers)
    assert found["sense"]["estimate"] == pytest.approx(stats.spearmanr(score, answers.sense).statistic)
    assert found["empathy"]["estimate"] == pytest.approx(stats.spearmanr(score, answers.empathy).statistic)
    assert found["sensible"]["estimate"] == pytest.approx(roc_auc_score(answers.sensible, score))
    assert found["empathetic"]["estimate"] == pytest.approx(roc_auc_score(answers.empathetic, score))
    assert all(found[name]["low"] < found[name]["estimate"] < found[name]["high"] for name in ("sense", "sensible"))


def test_intervals_are_those_of_whole_stories_drawn_again(drawn):
    score, answers = drawn
    found, rng = check(score, answers, n_resamples=4000), np.random.default_rng(8)
    rows_of = [np.flatnonzero(answers.story == name) for name in range(18)]
    drawn_R = [np.concatenate([rows_of[c] for c in rng.integers(18, size=18)]) for _ in range(1000)]
    spread = {
        "sense": np.std([stats.spearmanr(score[rows], answers.sense[rows]).statistic for rows in drawn_R]),
        "sensible": np.std([roc_auc_score(answers.sensible[rows], score[rows]) for rows in drawn_R]),
    }
    expanded = 2 * stats.t.ppf(0.975, 17) * np.sqrt(18 / 17)
    for name, sd in spread.items():
        assert found[name]["high"] - found[name]["low"] == pytest.approx(expanded * sd, rel=0.12)


def test_where_raters_differ_an_answer_counts_on_both_sides():
    sensible = np.array([1.0, 0.5, 0.0, 0.25])
    score = np.array([3.0, 1.0, 2.0, 1.0])
    won = pairs = 0.0
    for i in range(4):
        for j in range(4):
            if i != j:
                weight = sensible[i] * (1 - sensible[j])
                won, pairs = won + weight * ((score[i] > score[j]) + 0.5 * (score[i] == score[j])), pairs + weight
    found = check(score, rated([2, 1, 0, 1], range(4), sensible=sensible))["sensible"]
    assert found == {
        "estimate": pytest.approx(won / pairs), "low": None, "high": None, "reason": "fewer than 12 stories",
    }  # fmt: skip


def test_answers_without_the_score_are_left_out(drawn):
    score, answers = drawn
    some = score.copy()
    some[::3] = np.nan
    kept = np.isfinite(some)
    found = check(some, answers)
    assert found["answers"] == 60
    assert found["sense"]["estimate"] == pytest.approx(stats.spearmanr(score[kept], answers.sense[kept]).statistic)


@pytest.mark.parametrize(
    ("score", "sense", "name", "reason"),
    [
        ([1] * 20, [0, 2] * 10, "sense", "the score has one value alone"),
        ([1] * 20, [0, 2] * 10, "sensible", "the score has one value alone"),
        (range(20), [1] * 20, "sense", "all marks are the same"),
        (range(20), [1] * 20, "sensible", "it holds of all answers, or of none"),
        (range(20), [2] * 20, "sensible", "it holds of all answers, or of none"),
        ([], [], "sense", "fewer than 3 answers"),
        ([1, 2], [0, 2], "empathy", "fewer than 3 answers"),
        ([], [], "sensible", "it holds of all answers, or of none"),
        (range(20), [2] + [0] * 19, "ordered", "no pair was decided"),
    ],
)
def test_what_is_not_defined_is_missing_with_its_reason(score, sense, name, reason):
    found = check(score, rated(sense, range(len(sense))))[name]
    assert found == {"estimate": None, "low": None, "high": None, "reason": reason}


def test_a_mark_on_one_story_alone_gives_an_estimate_and_no_interval():
    found = check(range(20), rated([2] + [0] * 19, range(20)))["sensible"]
    assert found["estimate"] == 0
    assert (found["low"], found["reason"]) == (None, "its marks or its spread are on too few stories")


def test_order_of_decided_pairs_counts_ties_of_the_score_half():
    pairs = [(RatedPair(f"story {n % 15}", n % 2 == 0), difference) for n, difference in enumerate([1.0, -1.0] * 14)]
    pairs += [(RatedPair("story 1", True), -2.0), (RatedPair("story 2", False), 0.0)]
    pairs.append((RatedPair("story 3", False), float("nan")))
    found = check([], rated([], []), pairs)
    assert found["ordered"]["estimate"] == pytest.approx(28.5 / 30)
    assert found["ordered"]["low"] > 0.7


def test_a_score_that_never_differs_within_a_pair_orders_none():
    found = check([], rated([], []), [(RatedPair(f"story {n}", True), 0.0) for n in range(20)])["ordered"]
    assert found["estimate"] is None
    assert found["reason"] == "the score is the same for both answers of every pair"


def test_interval_of_a_correlation_covers_the_truth():
    rng, covered = np.random.default_rng(11), []
    # Spearman's correlation of normal variables with correlation 0.5 within and between stories.
    true = 6 / np.pi * np.arcsin(0.5 / 2)
    for _ in range(200):
        shared = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=(18, 1))
        own = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=(18, 6))
        score, mark = (0.5 * shared + own).reshape(-1, 2).T
        found = check(score, rated(mark, np.repeat(np.arange(18), 6)), n_resamples=200, seed=rng)["sense"]
        covered.append(found["low"] <= true <= found["high"])
    assert 0.89 <= np.mean(covered) <= 0.99
