import numpy as np
import pytest

import made_up
from gpro_empathy.analysis import paired_comparison, response_table

METRICS = ("empathy_raw", "semantic_similarity_raw")


def study(sd, seeds=(1, 2, 3, 4, 5)):
    """Make what a comparison reads of a study of several trainings."""
    known = {"empathy_raw": {"between_training_sd": sd}}
    return {
        "training_seeds": list(seeds),
        "metrics": known,
        "audit": {"metrics": {}, "gap": {"between_training_sd": sd}},
    }


def compare(settings, rows, of_study=None):
    config = settings.analyse_rewards.model_copy(update={"n_resamples": 500})
    table = response_table.responses(rows)
    return paired_comparison.compare(table, METRICS, config, np.random.default_rng(1), of_study)


def test_stories_are_the_unit_that_is_resampled_and_not_conversations(settings):
    apart = compare(settings, made_up.rollouts())["empathy_raw"]
    rows = made_up.rollouts(stories=30)
    for row in rows:
        row["story"] = str(int(row["conversation"]) % 6)
        row["empathy_raw"] += (row["model"] == "tuned") * 0.4 * (int(row["conversation"]) % 6 - 2.5)
    together = compare(settings, rows)["empathy_raw"]
    by_conversation = compare(settings, [row | {"story": row["conversation"]} for row in rows])["empathy_raw"]
    assert together["standard_error"] > 1.5 * by_conversation["standard_error"]
    assert apart["difference"] == pytest.approx(together["difference"], abs=0.05)


def test_a_gain_of_these_weights_is_no_verdict_where_trainings_differ_more(settings):
    rows = made_up.rollouts("gain")
    alone, near, far = (compare(settings, rows, of)["empathy_raw"] for of in (None, study(0.02), study(0.5)))
    assert (alone["new_low"], alone["new_high"], alone["between_training_sd"]) == (None, None, None)
    assert [found["verdict"] for found in (alone, near, far)] == ["improved", "improved", "no evidence of a change"]
    assert far["low"] == alone["low"] > 0 > far["new_low"]
    assert far["p_holm"] == alone["p_holm"]


def test_trainings_that_differ_by_their_seeds_alone_keep_the_verdict_of_the_interval_for_a_new_one(settings):
    """Let the gain of each rerun lie about the edge of what these stories can tell."""
    rng, alone, with_study = np.random.default_rng(3), set(), set()
    rows = made_up.rollouts("none")
    for shift in (0.08, 0.3, *rng.normal(0.19, 0.06, 6)):
        rerun = [row | {"empathy_raw": row["empathy_raw"] + shift * (row["model"] == "tuned")} for row in rows]
        alone.add(compare(settings, rerun)["empathy_raw"]["verdict"])
        with_study.add(compare(settings, rerun, study(0.15))["empathy_raw"]["verdict"])
    assert len(alone) == 2
    assert with_study == {"no evidence of a change"}


def test_a_metric_that_the_study_lacks_has_no_interval_for_a_new_training(settings):
    found = compare(settings, made_up.rollouts(), study(0.1))["semantic_similarity_raw"]
    assert found["new_low"] is None
    assert paired_comparison.deciding_interval(found) == (found["low"], found["high"])


def test_several_trainings_have_a_spread_of_their_own(settings):
    found = compare(settings, made_up.rollouts(seeds=(5, 7, 9), seed_sd=0.2), study(9.0))["empathy_raw"]
    assert found["between_training_sd"] == pytest.approx(np.std(list(found["by_seed"].values()), ddof=1))
    assert found["between_training_sd"] < 0.5
    assert found["new_low"] < found["low"] < found["high"] < found["new_high"]


def test_a_loss_of_similarity_is_excluded_for_a_new_training_or_not_at_all(settings):
    config = settings.analyse_rewards.model_copy(update={"n_resamples": 500})
    table, verdicts = response_table.responses(made_up.rollouts("gain")), []
    comparison = compare(settings, made_up.rollouts("gain"))["semantic_similarity_raw"]
    for ends in ({}, {"new_low": -0.1, "new_high": 0.2}):
        found = paired_comparison.similarity_noninferiority(table, comparison | ends, config, np.random.default_rng(0))
        verdicts.append(found["verdict"])
    assert verdicts == ["not inferior", "inconclusive"]
