import numpy as np
import pytest
from scipy import stats as scipy_stats
from test_bootstrap import clustered

from gpro_empathy.analysis import bootstrap, paired_statistics


def test_sign_flip_p_is_uniform_under_the_null():
    rng = np.random.default_rng(4)
    value_PM, cluster_P = clustered(rng, 1000)
    p_M = paired_statistics.sign_flip_p(bootstrap.clusters(value_PM, cluster_P).sums, 999, rng)
    assert scipy_stats.kstest(p_M, "uniform").pvalue > 0.01
    assert np.mean(p_M < 0.05) == pytest.approx(0.05, abs=0.02)


def test_one_sided_p_is_uniform_at_the_edge_of_the_null():
    rng = np.random.default_rng(5)
    value_PM, cluster_P = clustered(rng, 1000)
    p_M = paired_statistics.sign_flip_p(bootstrap.clusters(value_PM, cluster_P).sums, 999, rng, one_sided=True)
    assert scipy_stats.kstest(p_M, "uniform").pvalue > 0.01


def test_sign_flip_p_of_few_clusters_is_exact():
    # Of the 8 sign patterns of (1, 2, 3), the observed one and its opposite are the most extreme.
    sum_CM = np.array([[1.0], [2.0], [3.0]])
    assert paired_statistics.sign_flip_p(sum_CM, 100, np.random.default_rng(0)) == pytest.approx([0.25])
    assert paired_statistics.sign_flip_p(sum_CM, 100, np.random.default_rng(0), one_sided=True) == pytest.approx(
        [0.125]
    )
    assert paired_statistics.sign_flip_p(-sum_CM, 100, np.random.default_rng(0), one_sided=True) == pytest.approx([1.0])


@pytest.mark.parametrize(("one_sided", "alternative"), [(False, "two-sided"), (True, "greater")])
def test_sign_flip_p_agrees_with_scipy(one_sided, alternative):
    rng = np.random.default_rng(5)
    value_C = rng.normal(0.5, 1, 25)
    theirs = scipy_stats.permutation_test(
        (value_C,), np.sum, permutation_type="samples", n_resamples=20000, alternative=alternative, rng=rng
    )
    ours = paired_statistics.sign_flip_p(value_C[:, None], 20000, rng, one_sided=one_sided)[0]
    assert ours == pytest.approx(theirs.pvalue, abs=0.01)


def test_sign_flip_p_is_one_without_any_difference():
    assert paired_statistics.sign_flip_p(np.zeros((30, 1)), 200, np.random.default_rng(0)) == pytest.approx([1.0])


def test_wilcoxon_agrees_with_scipy_and_is_one_for_zeros():
    value_C = np.array([0.3, -0.1, 0.4, 0.2, 0.5])
    assert paired_statistics.wilcoxon_p(value_C) == scipy_stats.wilcoxon(value_C).pvalue
    assert paired_statistics.wilcoxon_p(np.zeros(5)) == 1.0


def test_trend_agrees_with_scipy_on_the_correlations():
    rng = np.random.default_rng(7)
    level_P, value_PM = rng.integers(0, 6, 80), rng.normal(size=(80, 2))
    rho_M, _ = paired_statistics.trend(level_P, value_PM, np.arange(80) // 2, 200, rng)
    assert rho_M == pytest.approx([scipy_stats.spearmanr(level_P, value_PM[:, m]).statistic for m in range(2)])


def test_trend_p_is_uniform_under_the_null_of_clustered_data():
    rng = np.random.default_rng(8)
    value_PM, cluster_P = clustered(rng, 1000, clusters=40)
    level_P = np.clip(np.round(rng.normal(2.3, 0.9, 40)[cluster_P] + rng.normal(0, 0.5, len(cluster_P))), 0, 5)
    p_M = paired_statistics.trend(level_P, value_PM, cluster_P, 999, rng)[1]
    assert scipy_stats.kstest(p_M, "uniform").pvalue > 0.01


def test_trend_that_is_there_is_found():
    rng = np.random.default_rng(9)
    value_PM, cluster_P = clustered(rng, 1, clusters=40)
    level_P = rng.integers(0, 6, len(cluster_P))
    rho_M, p_M = paired_statistics.trend(level_P, value_PM + level_P[:, None], cluster_P, 999, rng)
    assert rho_M[0] > 0.5
    assert p_M[0] < 0.01


def test_trend_of_one_level_or_of_equal_scores_is_undefined():
    rng = np.random.default_rng(9)
    rho_M, p_M = paired_statistics.trend(np.full(10, 2), rng.normal(size=(10, 1)), np.arange(10), 100, rng)
    assert np.isnan(rho_M).all()
    assert p_M == pytest.approx([1.0])
    rho_M, p_M = paired_statistics.trend(np.arange(10), np.ones((10, 1)), np.arange(10), 100, rng)
    assert np.isnan(rho_M).all()
    assert p_M == pytest.approx([1.0])
