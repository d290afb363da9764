import time
from pathlib import Path

import numpy as np
import pytest

import made_up
from gpro_empathy import comparison, params, temperature
from gpro_empathy.stages import analyse_rewards

PARAMS = params.load_all(Path(__file__).parents[1] / "params.yaml")
CONFIG = PARAMS.analyse_rewards.model_copy(update={"n_resamples": 2000})


def analyse(rows):
    return analyse_rewards.analyse(rows, CONFIG, np.random.default_rng(1))


@pytest.mark.parametrize(
    ("effect", "verdict", "audit"),
    [
        ("gain", "improved", "confirmed"),
        ("none", "no evidence of a change", "no gain to audit"),
        ("harm", "worsened", "no gain to audit"),
    ],
)
def test_verdicts_follow_the_made_up_effect(effect, verdict, audit):
    found = analyse(made_up.rollouts(effect))
    assert found["metrics"]["empathy_raw"]["verdict"] == verdict
    assert audit in found["audit"]["verdict"]


def test_starting_policy_is_the_base_model_without_a_warm_start():
    found = analyse(made_up.rollouts(warm_start=False))
    assert found["starting_policy"] == "base"
    assert found["policies"] == ["base", "tuned"]


def test_samples_of_a_prompt_are_averaged_before_prompts_are_compared():
    rows = made_up.rollouts("none", prompts=4, conversations=4)
    for row in rows:
        row["empathy_raw"] = {"base": 0.0, "warm_start": 1.0, "tuned": 1.0 + row["sample"]}[row["model"]]
    found = analyse(rows)["metrics"]["empathy_raw"]
    assert found["difference"] == pytest.approx(0.5)
    assert found["low"] == found["high"] == pytest.approx(0.5)
    assert found["means"]["tuned"] == pytest.approx(1.5)


def test_a_gain_of_the_reward_alone_is_not_confirmed():
    rows = made_up.rollouts("gain")
    rng = np.random.default_rng(2)
    for row in rows:
        row["audit_empathy_raw"] = 2 + rng.normal(0, 0.3)
    assert analyse(rows)["audit"]["verdict"] == "not confirmed"


def test_stock_phrases_are_found_whatever_the_case_and_the_apostrophe():
    rows = made_up.rollouts("none", prompts=2, conversations=2)
    for row in rows:
        row["answer"] = "SORRY TO HEAR that" if row["sample"] else "It\N{RIGHT SINGLE QUOTATION MARK}s okay to cry"
    assert comparison.responses(rows)["stock_phrase"].mean() == 1.0


def test_stated_intensity_is_compared_with_the_label_rounded_half_up():
    rows = made_up.rollouts("none", prompts=4, conversations=4)
    for row in rows:
        row["emotion"], row["stated_intensity"] = 2.5, 3 if row["sample"] == 0 else 1
    agreement = analyse(rows)["intensity_agreement"]["tuned"]
    assert agreement == {"n": 8, "missing": 0, "exact": 0.5, "within_one": 0.5}


def test_prompts_without_an_emotion_label_are_left_out_of_the_levels_and_counted():
    rows = made_up.rollouts("none")
    unlabelled = rows[0]["prompt_id"]
    for row in rows:
        if row["prompt_id"] == unlabelled:
            row["emotion"] = None
    found = analyse(rows)["empathy_by_intensity"]
    assert found["unlabelled_prompts"] == 1
    assert sum(level["prompts"] for level in found["levels"]) == 59


def test_same_seed_gives_the_same_numbers():
    assert analyse(made_up.rollouts()) == analyse(made_up.rollouts())


def spoil(rows, **changes):
    rows[5] = {**rows[5], **changes}
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no responses"),
        (made_up.rollouts(prompts=5, conversations=1), "at least two conversations to resample, got 1"),
        (made_up.rollouts()[:-2], r"prompt 30.3 has no response of model 'tuned'"),
        (
            spoil(made_up.rollouts(), empathy_raw=float("nan")),
            r"empathy_raw of prompt 1.2, model tuned, sample 1 is not",
        ),
        (spoil(made_up.rollouts(), empathy_raw=None), r"empathy_raw of prompt 1.2, model tuned, sample 1 is not"),
        (spoil(made_up.rollouts(), model="best"), "unknown model 'best'"),
        (spoil(made_up.rollouts(), sample=0), "prompt 1.2, model tuned, sample 0 occurs twice"),
        ([r for r in made_up.rollouts() if r["model"] != "tuned"], "no response of model 'tuned'"),
        ([{k: v for k, v in r.items() if k != "overlap"} for r in made_up.rollouts()], "column 'overlap' is missing"),
    ],
)
def test_refuses_rollouts_that_allow_no_comparison(rows, message):
    with pytest.raises(ValueError, match=message):
        analyse(rows)


def test_temperature_changes_advantages_and_the_configured_one_correlates_with_itself():
    found = temperature.effect(
        made_up.groups(), {"empathy": {"mean": 1.9, "sd": 0.6}, "semantic_similarity": {"mean": 0.4, "sd": 0.15}},
        {"empathy": 1.0, "semantic_similarity": 1.0}, 0.6,
    )  # fmt: skip
    for rows in found["modes"].values():
        by_temperature = {row["temperature"]: row for row in rows}
        assert by_temperature[0.6]["correlation"] == pytest.approx(1.0)
        assert by_temperature[0.2]["correlation"] < 0.99
        assert by_temperature[0.2]["group_sd"] > by_temperature[1.5]["group_sd"]


def test_temperature_cannot_change_advantages_of_two_samples_beyond_their_sign():
    groups = made_up.groups(generations=2)
    found = temperature.effect(groups, {"empathy": {"mean": 1.9, "sd": 0.6}}, {"empathy": 2.0}, 0.6)
    assert [row["correlation"] for row in found["modes"]["batch"]] == pytest.approx([1.0] * 6)


def test_group_without_spread_has_no_advantage():
    groups = made_up.groups(steps=1).assign(empathy_raw=1.0)
    score_B = temperature.combined_scores(groups, {"empathy": 1.0}, 0.6, None)
    assert temperature.advantages(groups, score_B) == pytest.approx(np.zeros(16))


def test_ten_thousand_prompts_are_compared_within_the_time_allowed():
    # A tenth of the size that the report allows 20 s for, so that the tests stay quick.
    rows = made_up.rollouts(prompts=1000, conversations=300, samples=1)
    config = CONFIG.model_copy(update={"n_resamples": 10000})
    started = time.perf_counter()
    comparison.gains(comparison.responses(rows), config.metrics, config, np.random.default_rng(0))
    assert time.perf_counter() - started < 6
