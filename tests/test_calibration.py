import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from gpro_empathy import calibration

scores = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20)


def test_scores_one_sd_from_the_mean_are_calibrated_as_worked_by_hand():
    # ((3 - 2) / 0.5) / 0.8 = 2.5, and 1 / (1 + e^-2.5) = 0.924142
    found = calibration.calibrate(np.array([3.0, 2.0, 1.0]), mean=2.0, sd=0.5, temperature=0.8)
    assert found == pytest.approx([0.9241418, 0.5, 0.0758582], abs=1e-7)


@given(scores, st.floats(-10, 10), st.floats(0.01, 10), st.floats(0.05, 5))
def test_calibration_agrees_with_scipy(raw, mean, sd, temperature):
    found = calibration.calibrate(np.array(raw), mean=mean, sd=sd, temperature=temperature)
    assert found == pytest.approx(special.expit((np.array(raw) - mean) / sd / temperature), abs=1e-12)


@given(scores)
def test_calibration_keeps_the_order_and_stays_in_the_unit_interval(raw):
    ordered = np.sort(raw)
    mean, sd = calibration.batch_statistics(ordered)
    found = calibration.calibrate(ordered, mean=mean, sd=sd, temperature=0.6)
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_a_small_temperature_sharpens_and_a_large_one_flattens():
    raw = np.array([1.0, 2.0, 3.0])
    spread = [np.ptp(calibration.calibrate(raw, mean=2.0, sd=1.0, temperature=t)) for t in (0.2, 0.6, 2.0)]
    assert spread[0] > spread[1] > spread[2]


def test_calibration_against_its_own_batch_ignores_unit_and_offset():
    raw = np.array([0.1, 0.4, 0.2, 0.9])
    found = [
        calibration.calibrate(x, mean=x.mean(), sd=x.std(), temperature=0.6) for x in (raw, 5 * raw - 3)
    ]  # fmt: skip
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("raw", [[2.0, 2.0, 2.0], [1.7], [0.1 + 0.2, 0.3]])
def test_scores_without_spread_carry_no_signal(raw):
    mean, sd = calibration.batch_statistics(np.array(raw))
    assert calibration.calibrate(np.array(raw), mean=mean, sd=sd, temperature=0.6).tolist() == [0.5] * len(raw)


def test_extreme_scores_reach_the_ends_without_a_warning(recwarn):
    found = calibration.calibrate(np.array([-1e300, 1e300]), mean=0.0, sd=1.0, temperature=0.6)
    assert found == pytest.approx([0.0, 1.0], abs=1e-20)
    assert not recwarn.list


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_statistics_are_the_mean_and_the_population_sd(raw):
    mean, sd = calibration.batch_statistics(np.array(raw))
    assert mean == pytest.approx(np.mean(raw))
    assert sd == pytest.approx(statistics.pstdev(raw), abs=1e-9)


@pytest.mark.parametrize(
    ("raw", "changes", "message"),
    [
        ([1.0, float("nan")], {}, r"\bnan\b.*\b1\b"),
        ([float("inf")], {}, r"\binf\b.*\b0\b"),
        ([1.0], {"sd": -0.1}, r"\bsd\b.*-0\.1"),
        ([1.0], {"mean": float("nan")}, r"\bmean\b.*\bnan\b"),
        ([1.0], {"temperature": 0.0}, r"\btemperature\b.*\b0\.0"),
        ([1.0], {"temperature": float("nan")}, r"\btemperature\b.*\bnan\b"),
    ],
)
def test_refuses_what_is_not_finite_or_out_of_range(raw, changes, message):
    with pytest.raises(ValueError, match=message):
        calibration.calibrate(np.array(raw), **{"mean": 0.0, "sd": 1.0, "temperature": 0.6, **changes})


def test_refuses_statistics_of_nothing():
    with pytest.raises(ValueError, match="at least one"):
        calibration.batch_statistics(np.array([]))


# Scores and advantages

RAW = {"empathy": np.array([1.0, 3.0, 2.0, 2.0]), "well_formed": np.array([0.0, 1.0, 1.0, 0.0])}


def test_terms_are_calibrated_against_their_batch_or_the_reference_and_others_stay_as_they_are():
    # Mean 2 and SD 1 / sqrt(2) of the batch; the reference has mean 1 and SD 2.
    batch = calibration.calibrated(RAW, 0.5)
    reference = calibration.calibrated(RAW, 0.5, {"empathy": (1.0, 2.0)})
    assert batch["empathy"] == pytest.approx(special.expit(np.array([-1, 1, 0, 0]) * np.sqrt(2) / 0.5))
    assert reference["empathy"] == pytest.approx(special.expit(np.array([0.0, 1.0, 0.5, 0.5]) / 0.5))
    assert batch["well_formed"].tolist() == reference["well_formed"].tolist() == [0.0, 1.0, 1.0, 0.0]


def test_statistics_come_back_as_they_were_stored():
    stored = calibration.statistics_json({"empathy": (1.5, 0.5)})
    assert stored == {"empathy": {"mean": 1.5, "sd": 0.5}}
    assert calibration.stored_statistics(stored) == {"empathy": (1.5, 0.5)}


def advantages(scores, weights, aggregation="sum_then_normalize", scale_rewards="group"):
    """Return the advantages of two groups of two samples in one batch."""
    groups, batch = ["a", "a", "b", "b"], [0, 0, 0, 0]
    return calibration.advantages(
        scores, weights, groups, batch, aggregation=aggregation, scale_rewards=scale_rewards
    ).tolist()


@pytest.mark.parametrize(
    ("scale_rewards", "expected"),
    # Means 2 and 5 of the groups, SD 1 and 3 of them, SD sqrt(29 / 4) of the batch.
    [("group", [-1, 1, -1, 1]), ("none", [-1, 1, -3, 3]), ("batch", np.array([-1, 1, -3, 3]) / np.sqrt(7.25))],
)
def test_advantages_of_summed_terms_worked_by_hand(scale_rewards, expected):
    scores = {"x": np.array([1.0, 3.0, 2.0, 8.0]), "unweighted": np.array([9.0, 0.0, 0.0, 0.0])}
    assert advantages(scores, {"x": 7.0}, scale_rewards=scale_rewards) == pytest.approx(expected)


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_advantages_of_terms_standardised_one_by_one_worked_by_hand(scale_rewards):
    # x gives -1, 1, -1, 1 and y 1, -1, -1, 1; weighted 3 to 1 their mean is -0.5, 0.5, -1, 1,
    # whose SD is sqrt(0.625).
    scores = {"x": np.array([1.0, 3.0, 2.0, 8.0]), "y": np.array([1.0, 0.0, 0.0, 1.0])}
    expected = np.array([-0.5, 0.5, -1.0, 1.0]) / np.sqrt(0.625)
    assert advantages(scores, {"x": 3.0, "y": 1.0}, "normalize_then_sum", scale_rewards) == pytest.approx(expected)


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_scores_without_spread_have_no_advantage(aggregation, scale_rewards):
    assert advantages({"x": np.full(4, 0.3)}, {"x": 1.0}, aggregation, scale_rewards) == [0.0] * 4


def test_refuses_unknown_ways_to_make_advantages():
    with pytest.raises(ValueError, match=r"aggregation.*'sum'"):
        advantages({"x": np.zeros(4)}, {"x": 1.0}, "sum")
    with pytest.raises(ValueError, match=r"scale_rewards.*'sd'"):
        advantages({"x": np.zeros(4)}, {"x": 1.0}, scale_rewards="sd")
