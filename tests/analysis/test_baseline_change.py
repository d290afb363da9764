from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gpro_empathy import params
from gpro_empathy.analysis import baseline_change, baseline_results, bootstrap

CONFIG = params.load_all(Path(__file__).parents[2] / "params.yaml").analyse_rewards.model_copy(
    update={"n_resamples": 200}
)
STORIES, PER_STORY = 18, 5
STORY_P = np.repeat(np.arange(STORIES), PER_STORY)
NOISE = 0.4


def known(sd, trainings=5):
    return bootstrap.Spread(np.array([sd]), trainings)


def estimate(old_SP, new_SP, spread, seed=1):
    return baseline_change.estimate(old_SP, new_SP, STORY_P, spread, CONFIG, np.random.default_rng(seed), comparisons=3)


def trainings(rng, n, level_P, sd):
    return level_P + sd * rng.normal(size=(n, 1)) + NOISE * rng.normal(size=(n, len(level_P)))


def two_runs(rng, old, new, true, sd):
    """Draw two runs with so many trainings, and the spread as it would be estimated for them."""
    level_P = rng.normal(0, 0.3, len(STORY_P))
    effect_P = true + 0.2 * rng.normal(size=STORIES)[STORY_P]
    old_SP, new_SP = trainings(rng, old, level_P, sd), trainings(rng, new, level_P + effect_P, sd)
    study = trainings(rng, 5, level_P, sd) if 1 in (old, new) else None
    several = [run_SP for run_SP in (old_SP, new_SP, study) if run_SP is not None and len(run_SP) > 1]
    parts = [bootstrap.seed_spread(run_SP.mean(axis=1, keepdims=True)) for run_SP in several]
    return old_SP, new_SP, baseline_change.pooled(parts)


@pytest.mark.parametrize(("old", "new"), [(1, 1), (1, 3), (3, 3)])
@pytest.mark.parametrize("sd", [0.0, 0.1, 0.5])
def test_interval_with_the_spread_covers_the_true_change_at_its_stated_rate(old, new, sd):
    rng, held = np.random.default_rng(round(10 * sd) + 7 * old + new), []
    for draw in range(400):
        found = estimate(*two_runs(rng, old, new, 0.2, sd), seed=draw)
        held.append(found["spread_low"] <= 0.2 <= found["spread_high"])
    # The study's spread holds the noise of its prompts too: intervals err to the wide side.
    assert 0.925 <= np.mean(held) <= 0.995


def test_interval_of_stories_alone_misses_what_a_seed_moves():
    rng, held = np.random.default_rng(3), []
    for draw in range(200):
        found = estimate(*two_runs(rng, 1, 1, 0.2, 0.5), seed=draw)
        held.append(found["low"] <= 0.2 <= found["high"])
    assert np.mean(held) < 0.6


@pytest.mark.parametrize(("true", "found_in"), [(0.0, (0.0, 0.08)), (0.1, (0.02, 0.4)), (1.0, (0.95, 1.0))])
def test_a_large_change_is_found_and_no_change_rarely_is(true, found_in):
    rng, verdicts = np.random.default_rng(5), []
    for draw in range(200):
        found = estimate(*two_runs(rng, 3, 3, true, 0.1), seed=draw)
        verdicts.append(baseline_change.verdict(found, found["p"], 0.95, "empathy_raw"))
    assert found_in[0] <= np.mean([verdict == "improved" for verdict in verdicts]) <= found_in[1]


def test_smallest_difference_of_one_training_is_found_with_the_stated_power():
    sd, rng, found_it, least = 0.1, np.random.default_rng(9), [], []
    for draw in range(200):
        least.append(estimate(*two_runs(rng, 1, 1, 0.0, sd), seed=draw)["smallest_of_one"])
    for draw in range(300):
        found = estimate(*two_runs(rng, 1, 1, float(np.mean(least)), sd), seed=draw)
        found_it.append(found["p"] < 0.05)
    assert 0.7 <= np.mean(found_it) <= 0.92


def test_variance_is_that_of_the_stories_and_of_both_runs_trainings():
    zeros = np.zeros((1, len(STORY_P)))
    found = estimate(zeros, zeros + 0.3, known(0.1))
    assert found["difference"] == pytest.approx(0.3)
    # The stories do not vary here, so that all is Student's interval of two trainings.
    reach = stats.t.ppf(0.975, 4) * 0.1 * np.sqrt(2)
    assert found["spread_high"] - 0.3 == pytest.approx(reach)
    assert found["low"] == found["high"] == pytest.approx(0.3)
    assert found["p"] == pytest.approx(2 * stats.t.sf(0.3 / (0.1 * np.sqrt(2)), 4))
    more = estimate(np.zeros((4, len(STORY_P))), np.zeros((4, len(STORY_P))) + 0.3, known(0.1))
    assert more["spread_high"] - 0.3 == pytest.approx(reach / 2)
    assert more["smallest_of_one"] > 0.1 * (stats.t.ppf(0.975, 4) + stats.t.ppf(0.8, 4))


def test_without_a_spread_nothing_is_said_of_other_seeds():
    zeros = np.zeros((1, len(STORY_P)))
    found = estimate(zeros, zeros + 0.3, None)
    assert found["spread_low"] is found["smallest_of_one"] is None
    assert baseline_change.verdict(found, 0.001, 0.95, "empathy_raw") == baseline_results.SPREAD_UNKNOWN
    assert baseline_change.verdict(found, 0.2, 0.95, "empathy_raw") == baseline_results.NO_EVIDENCE


def test_what_another_seed_moves_as_much_is_no_change():
    zeros = np.zeros((1, len(STORY_P)))
    found = estimate(zeros, zeros + 0.3, known(0.3))
    assert baseline_change.verdict(found, found["p"], 0.95, "empathy_raw") == baseline_results.AS_A_SEED
    by_itself = estimate(zeros, zeros + 0.3, known(0.06))
    assert baseline_change.verdict(by_itself, 0.2, 0.95, "empathy_raw") == baseline_results.NOT_ADJUSTED
    sure = estimate(zeros, zeros + 0.3, known(0.01))
    assert baseline_change.verdict(sure, sure["p"], 0.95, "empathy_raw") == "improved"
    assert baseline_change.verdict(sure, sure["p"], 0.95, "answer_words") == "increased"


def test_spreads_are_pooled_by_their_degrees_of_freedom():
    pooled = baseline_change.pooled([known(0.1, 3), known(0.2, 5)])
    assert pooled.trainings == 7
    assert pooled.sd_M[0] == pytest.approx(np.sqrt((2 * 0.01 + 4 * 0.04) / 6))
    assert baseline_change.pooled([]) is None


def test_equal_scores_of_other_numbers_of_trainings_do_not_differ():
    score_P = np.random.default_rng(1).normal(size=(1, len(STORY_P)))
    found = estimate(score_P, np.repeat(score_P, 3, axis=0), known(0.1))
    assert found["difference"] == found["low"] == found["high"] == 0
    assert baseline_change.verdict(found, found["p"], 0.95, "empathy_raw") == baseline_results.NO_EVIDENCE


def test_nothing_that_varies_and_nothing_that_differs_has_a_p_of_one():
    assert baseline_change.student_p(0.0, 0.0, 4) == 1
    assert baseline_change.student_p(0.1, 0.0, 4) == 0
