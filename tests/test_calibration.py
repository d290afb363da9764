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
        ([1.0, float("nan")], {}, "raw scores must be finite, got nan at index 1"),
        ([float("inf")], {}, "raw scores must be finite, got inf at index 0"),
        ([1.0], {"sd": -0.1}, r"need a finite mean and sd >= 0, got 0\.0 and -0\.1"),
        ([1.0], {"mean": float("nan")}, "need a finite mean and sd >= 0, got nan"),
        ([1.0], {"temperature": 0.0}, r"need temperature > 0, got 0\.0"),
        ([1.0], {"temperature": float("nan")}, "need temperature > 0, got nan"),
    ],
)
def test_refuses_what_is_not_finite_or_out_of_range(raw, changes, message):
    with pytest.raises(ValueError, match=message):
        calibration.calibrate(np.array(raw), **{"mean": 0.0, "sd": 1.0, "temperature": 0.6, **changes})


def test_refuses_statistics_of_nothing():
    with pytest.raises(ValueError, match="need at least one score"):
        calibration.batch_statistics(np.array([]))
