import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from gpro_empathy import stats


def clustered(rng, n_draws, mean=0.0, skewed=False, clusters=30):
    """Draw (P, M) values of `clusters` conversations of 1 to 4 prompts that share an effect."""
    cluster_P = np.repeat(np.arange(clusters), 1 + np.arange(clusters) % 4)
    effect_CM = rng.exponential(1, (clusters, n_draws)) - 1 if skewed else rng.normal(0, 1, (clusters, n_draws))
    return mean + effect_CM[cluster_P] + rng.normal(0, 1, (len(cluster_P), n_draws)), cluster_P


def intervals(value_PM, cluster_P, n_resamples, rng, confidence=0.95):
    data = stats.clusters(value_PM, cluster_P)
    return stats.bca_interval(data, stats.bootstrap_means(data, n_resamples, rng), confidence)


def test_mean_counts_each_prompt_once():
    data = stats.clusters(np.array([[1.0], [2.0], [6.0]]), np.array(["a", "a", "b"]))
    assert data.means == pytest.approx([3.0])


def test_constant_gain_has_a_zero_width_interval():
    low_M, high_M = intervals(np.full((6, 1), 0.1), np.arange(6) // 2, 200, np.random.default_rng(0))
    assert low_M[0] == high_M[0] == pytest.approx(0.1, abs=1e-15)


def test_interval_agrees_with_scipy_where_clusters_are_many_and_single():
    rng = np.random.default_rng(1)
    value_P = rng.exponential(1, 400)
    low_M, high_M = intervals(value_P[:, None], np.arange(400), 20000, rng)
    theirs = scipy_stats.bootstrap((value_P,), np.mean, n_resamples=20000, method="BCa", rng=rng).confidence_interval
    width = theirs.high - theirs.low
    assert low_M[0] == pytest.approx(theirs.low, abs=0.04 * width)
    assert high_M[0] == pytest.approx(theirs.high, abs=0.04 * width)


@pytest.mark.parametrize("skewed", [False, True])
def test_interval_covers_the_true_gain_at_its_stated_rate(skewed):
    rng = np.random.default_rng(2)
    value_PM, cluster_P = clustered(rng, 1000, mean=0.3, skewed=skewed, clusters=40)
    low_M, high_M = intervals(value_PM, cluster_P, 2000, rng)
    assert np.mean((low_M <= 0.3) & (high_M >= 0.3)) == pytest.approx(0.95, abs=0.03 if skewed else 0.02)


def test_interval_that_ignores_conversations_would_cover_too_rarely():
    rng = np.random.default_rng(3)
    value_PM, cluster_P = clustered(rng, 400)
    low_M, high_M = intervals(value_PM, np.arange(len(cluster_P)), 1000, rng)
    assert np.mean((low_M <= 0) & (high_M >= 0)) < 0.9


def test_sign_flip_p_is_uniform_under_the_null():
    rng = np.random.default_rng(4)
    value_PM, cluster_P = clustered(rng, 1000)
    p_M = stats.sign_flip_p(stats.clusters(value_PM, cluster_P).sums, 999, rng)
    assert scipy_stats.kstest(p_M, "uniform").pvalue > 0.01
    assert np.mean(p_M < 0.05) == pytest.approx(0.05, abs=0.02)


def test_sign_flip_p_of_few_clusters_is_exact():
    # Of the 8 sign patterns of (1, 2, 3), the observed one and its opposite are the most extreme.
    assert stats.sign_flip_p(np.array([[1.0], [2.0], [3.0]]), 100, np.random.default_rng(0)) == pytest.approx([0.25])


def test_sign_flip_p_agrees_with_scipy():
    rng = np.random.default_rng(5)
    value_C = rng.normal(0.3, 1, 25)
    theirs = scipy_stats.permutation_test((value_C,), np.sum, permutation_type="samples", n_resamples=20000, rng=rng)
    ours = stats.sign_flip_p(value_C[:, None], 20000, rng)[0]
    assert ours == pytest.approx(theirs.pvalue, abs=0.01)


def test_sign_flip_p_is_one_without_any_difference():
    assert stats.sign_flip_p(np.zeros((30, 1)), 200, np.random.default_rng(0)) == pytest.approx([1.0])


def test_holm_of_a_case_worked_by_hand():
    assert stats.holm(np.array([0.04, 0.01, 0.03])) == pytest.approx([0.06, 0.03, 0.06])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_and_keeps_their_order(p):
    p_M, adjusted_M = np.array(p), stats.holm(np.array(p))
    assert (adjusted_M >= p_M).all()
    assert (adjusted_M <= 1).all()
    assert (np.diff(adjusted_M[np.argsort(p_M, kind="stable")]) >= 0).all()


def test_d_z_and_probability_of_improvement_of_a_case_worked_by_hand():
    assert stats.d_z(np.array([0.0, 1.0, 2.0])) == pytest.approx(1.0)
    assert stats.probability_of_improvement(np.array([0.0, 1.0, 2.0, -1.0])) == pytest.approx(0.625)


def test_d_z_of_equal_differences_is_undefined_unless_they_are_zero():
    assert stats.d_z(np.full(4, 0.3)) is None
    assert stats.d_z(np.zeros(4)) == 0.0


def test_smallest_detectable_difference_is_found_with_the_stated_power():
    rng = np.random.default_rng(6)
    difference = stats.smallest_detectable(standard_error=0.1, confidence=0.95)
    found = np.abs(rng.normal(difference, 0.1, 20000)) > 1.96 * 0.1
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_wilcoxon_agrees_with_scipy_and_is_one_for_zeros():
    value_C = np.array([0.3, -0.1, 0.4, 0.2, 0.5])
    assert stats.wilcoxon_p(value_C) == scipy_stats.wilcoxon(value_C).pvalue
    assert stats.wilcoxon_p(np.zeros(5)) == 1.0


def test_trend_agrees_with_scipy_on_the_correlation():
    rng = np.random.default_rng(7)
    level_P, value_P = rng.integers(0, 6, 80), rng.normal(size=80)
    rho, _ = stats.trend(level_P, value_P, np.arange(80) // 2, 200, rng)
    assert rho == pytest.approx(scipy_stats.spearmanr(level_P, value_P).statistic)


def test_trend_p_is_uniform_under_the_null_of_clustered_data():
    rng = np.random.default_rng(8)
    p = []
    for _ in range(300):
        value_PM, cluster_P = clustered(rng, 1, clusters=40)
        level_P = np.clip(np.round(rng.normal(2.3, 0.9, 40)[cluster_P] + rng.normal(0, 0.5, len(cluster_P))), 0, 5)
        p.append(stats.trend(level_P, value_PM[:, 0], cluster_P, 199, rng)[1])
    assert scipy_stats.kstest(p, "uniform").pvalue > 0.01


def test_trend_of_one_level_is_undefined():
    rng = np.random.default_rng(9)
    assert stats.trend(np.full(10, 2), rng.normal(size=10), np.arange(10), 100, rng) == (None, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.1, 0.3, 0.01, "improved"),
        (-0.3, -0.1, 0.01, "worsened"),
        (0.1, 0.3, 0.05, "no evidence of a change"),
        (-0.1, 0.3, 0.01, "no evidence of a change"),
    ],
)
def test_verdict_needs_the_interval_and_the_adjusted_p(low, high, p, expected):
    assert stats.verdict(low, high, p, 0.95, ("improved", "worsened")) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.04, 0.1, "not inferior"), (-0.06, 0.1, "inconclusive"), (-0.2, -0.06, "inferior")],
)
def test_noninferiority_compares_the_interval_with_the_margin(low, high, expected):
    assert stats.noninferiority(low, high, 0.05) == expected


@pytest.mark.parametrize(
    ("value_PM", "cluster_P", "message"),
    [
        (np.ones((3, 1)), np.zeros(3), "at least two conversations to resample, got 1"),
        (np.array([[1.0], [np.nan]]), np.arange(2), "must be finite, got nan at row 1, column 0"),
        (np.ones((3, 1)), np.arange(2), r"got \(3, 1\) and \(2,\)"),
    ],
)
def test_refuses_what_cannot_be_resampled(value_PM, cluster_P, message):
    with pytest.raises(ValueError, match=message):
        stats.clusters(value_PM, cluster_P)
