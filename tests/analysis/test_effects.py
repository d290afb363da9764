import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from gpro_empathy.analysis import effects


def test_holm_of_a_case_worked_by_hand():
    assert effects.holm(np.array([0.04, 0.01, 0.03])) == pytest.approx([0.06, 0.03, 0.06])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_and_keeps_their_order(p):
    p_M, adjusted_M = np.array(p), effects.holm(np.array(p))
    assert (adjusted_M >= p_M).all()
    assert (adjusted_M <= 1).all()
    assert (np.diff(adjusted_M[np.argsort(p_M, kind="stable")]) >= 0).all()


def test_d_z_and_probability_of_improvement_of_a_case_worked_by_hand():
    assert effects.d_z(np.array([0.0, 1.0, 2.0])) == pytest.approx(1.0)
    assert effects.probability_of_improvement(np.array([0.0, 1.0, 2.0, -1.0])) == pytest.approx(0.625)


def test_d_z_of_equal_differences_is_undefined_unless_they_are_zero():
    assert effects.d_z(np.full(4, 0.3)) is None
    assert effects.d_z(np.zeros(4)) == 0.0


def test_cliffs_delta_of_a_case_worked_by_hand():
    # Of the six pairs, the tuned score wins four, loses one and ties one.
    assert effects.cliffs_delta(np.array([1.0, 3.0]), np.array([2.0, 3.0, 4.0])) == pytest.approx(0.5)


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    st.lists(st.integers(-3, 3), min_size=1, max_size=12),
)
def test_cliffs_delta_agrees_with_scipys_mann_whitney(start, tuned):
    u = scipy_stats.mannwhitneyu(tuned, start, method="asymptotic").statistic
    expected = 2 * u / (len(start) * len(tuned)) - 1
    assert effects.cliffs_delta(np.array(start), np.array(tuned)) == pytest.approx(expected, abs=1e-12)


def test_interquartile_mean_leaves_out_a_quarter_at_either_end():
    assert effects.interquartile_mean(np.array([100.0, 1.0, 2.0, 3.0, -100.0, 4.0, 0.0, 5.0])) == pytest.approx(2.5)


def test_smallest_detectable_difference_is_found_with_the_stated_power():
    rng = np.random.default_rng(6)
    difference = effects.smallest_detectable(standard_error=0.1, alpha=0.05)
    found = np.abs(rng.normal(difference, 0.1, 20000)) > 1.96 * 0.1
    assert found.mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.1, 0.3, 0.01, "improved"),
        (-0.3, -0.1, 0.01, "worsened"),
        (-0.1, 0.3, 0.01, "no evidence of a change"),
        (0.1, 0.3, 0.05, "no evidence of a change"),
    ],
)
def test_verdict_needs_interval_and_adjusted_p(low, high, p, expected):
    assert effects.verdict(low, high, p, 0.95, ("improved", "worsened")) == expected


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (-0.04, 0.1, 0.01, "not inferior"),
        (-0.04, 0.1, 0.025, "inconclusive"),
        (-0.06, 0.1, 0.01, "inconclusive"),
        (-0.2, -0.06, 1.0, "inferior"),
    ],
)
def test_noninferiority_needs_the_interval_and_the_test(low, high, p, expected):
    assert effects.noninferiority(low, high, p, 0.05, 0.95) == expected


def test_pearson_agrees_with_scipy_and_is_not_defined_without_spread_or_of_two():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 20))
    assert effects.pearson(x, y) == pytest.approx(scipy_stats.pearsonr(x, y).statistic)
    assert effects.pearson(x, np.ones(20)) is None
    assert effects.pearson(x[:2], y[:2]) is None
