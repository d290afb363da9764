import numpy as np
import pandas as pd
import pytest

import made_up
from gpro_empathy.analysis import temperature_effect

REFERENCE = {"empathy": (1.9, 0.6), "semantic_similarity": (0.4, 0.15)}
BOTH = {"empathy": 1.0, "semantic_similarity": 1.0}


@pytest.fixture
def effect(settings):
    """Return a function that measures the effect for a reward of these weights."""

    def measure(groups, weights=BOTH, reference=REFERENCE, temperature=0.6, scale_rewards="group", **changes):
        update = {"weights": weights, "calibration_temperature": temperature, **changes}
        return temperature_effect.effect(groups, reference, settings.rewards.model_copy(update=update), scale_rewards)

    return measure


def score(groups, weights, temperature=0.6):
    """Return combined scores and advantages with the published settings."""
    reward = temperature_effect.Reward(weights, "sum_then_normalize", "group", REFERENCE)
    return temperature_effect.score(groups, reward, temperature, "batch")


def test_temperature_changes_advantages_and_the_configured_one_correlates_with_itself(effect):
    found = effect(made_up.groups())
    for rows in found["modes"].values():
        by_temperature = {row["temperature"]: row for row in rows}
        assert by_temperature[0.6]["correlation"] == pytest.approx(1.0)
        assert by_temperature[0.6]["reversed_pairs"] == 0.0
        assert by_temperature[0.2]["correlation"] < 0.995
        assert by_temperature[0.2]["group_sd"] > by_temperature[1.5]["group_sd"]


def test_temperature_cannot_change_advantages_of_two_samples_beyond_their_sign(effect):
    found = effect(made_up.groups(generations=2), {"empathy": 2.0}, {"empathy": (1.9, 0.6)})
    assert [row["correlation"] for row in found["modes"]["batch"]] == pytest.approx([1.0] * 6)
    assert [row["reversed_pairs"] for row in found["modes"]["batch"]] == [0.0] * 6


@pytest.mark.parametrize(
    ("aggregation", "scale_rewards", "fixed"),
    [
        ("sum_then_normalize", "group", True),
        ("normalize_then_sum", "group", True),
        ("sum_then_normalize", "none", False),
        ("sum_then_normalize", "batch", False),
    ],
)
def test_advantages_are_those_of_the_settings(effect, aggregation, scale_rewards, fixed):
    """Two samples of one term differ by sign alone where a group is standardised, else by size."""
    groups = made_up.groups(generations=2)
    found = effect(groups, {"empathy": 2.0}, scale_rewards=scale_rewards, aggregation=aggregation)
    smallest = min(row["correlation"] for row in found["modes"]["batch"])
    assert (smallest == pytest.approx(1.0)) == fixed
    assert [row["reversed_pairs"] for row in found["modes"]["batch"]] == [0.0] * 6


def test_group_without_spread_has_no_advantage():
    groups = made_up.groups(steps=1).assign(empathy_raw=1.0)
    assert score(groups, {"empathy": 1.0})[1] == pytest.approx(np.zeros(16))


def test_statistics_of_a_batch_are_those_of_its_step_and_training_seed():
    groups = made_up.groups(steps=2, seeds=(5, 7))
    together_B, _ = score(groups, BOTH)
    for _, batch in groups.groupby(["seed", "step"]):
        alone_B, _ = score(batch.reset_index(drop=True), BOTH)
        assert together_B[batch.index] == pytest.approx(alone_B)


def test_seeds_that_share_step_and_group_numbers_are_different_groups(effect):
    groups = made_up.groups(steps=1, prompts=1, generations=2, seeds=(5, 7))
    groups["length_raw"] = [0.1, 0.2, 1.0, 0.5]
    assert score(groups, {"length": 1.0})[1] == pytest.approx([-1.0, 1.0, 1.0, -1.0])
    assert effect(groups)["groups"] == 2


def test_one_prompt_alone_equals_the_batch_when_a_step_holds_one_prompt(effect):
    found = effect(made_up.groups(prompts=1))["modes"]
    assert found["prompt"] == found["batch"]


def test_reversed_pairs_of_a_case_worked_by_hand():
    groups = pd.DataFrame({"seed": 1, "step": 1, "group": [0, 0, 0, 1, 1]})
    # Group 0: of (1, 2, 3) against (1, 3, 2) one pair of three is reversed; group 1: a tie is no
    # reversal.
    share = temperature_effect.reversed_pairs(groups, np.array([1.0, 2, 3, 1, 2]), np.array([1.0, 3, 2, 5, 5]))
    assert share == pytest.approx(0.25)


def test_groups_of_one_have_no_pairs():
    groups = made_up.groups(steps=2, prompts=1, generations=1)
    assert temperature_effect.reversed_pairs(groups, np.ones(2), np.ones(2)) is None


def test_a_missing_column_is_named(effect):
    with pytest.raises(ValueError, match="'seed'"):
        effect(made_up.groups().drop(columns="seed"))


def test_terms_that_are_not_calibrated_enter_as_they_are_and_count_more_at_a_large_temperature(effect):
    """One step of one group: z of 1 and -1 against a well-formed reply that the other is not."""
    groups = pd.DataFrame({
        "seed": 5, "step": 1, "group": 0, "sample": [0, 1], "empathy_raw": [3.0, 1.0], "well_formed_raw": [0.0, 1.0],
    })  # fmt: skip
    weights = {"empathy": 3.0, "well_formed": 1.0}
    for at in (0.5, 2.0):
        high = 1 / (1 + np.exp(-1 / at))
        expected = [3 * high / 4, (3 * (1 - high) + 1) / 4]
        assert score(groups, weights, at)[0] == pytest.approx(expected)
    found = effect(groups, weights, {"empathy": (2.0, 1.0)}, 0.2)
    rows = found["modes"]["batch"]
    assert (rows[0]["reversed_pairs"], rows[-1]["reversed_pairs"]) == (0.0, 1.0)
