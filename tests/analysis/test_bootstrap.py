import numpy as np
import pytest
from scipy import stats as scipy_stats

from gpro_empathy.analysis import bootstrap, paired_statistics


def clustered(rng, n_draws, mean=0.0, skewed=False, clusters=30):
    """Draw (P, M) values of `clusters` conversations of 1 to 4 prompts that share an effect."""
    cluster_P = np.repeat(np.arange(clusters), 1 + np.arange(clusters) % 4)
    effect_CM = rng.exponential(1, (clusters, n_draws)) - 1 if skewed else rng.normal(0, 1, (clusters, n_draws))
    return mean + effect_CM[cluster_P] + rng.normal(0, 1, (len(cluster_P), n_draws)), cluster_P


def bca(value_PM, cluster_P, n_resamples, rng, confidence=0.95):
    data = bootstrap.clusters(value_PM, cluster_P)
    return bootstrap.bca_interval(data, bootstrap.bootstrap_means(data, n_resamples, rng), confidence)


def test_mean_counts_each_prompt_once():
    data = bootstrap.clusters(np.array([[1.0], [2.0], [6.0]]), np.array(["a", "a", "b"]))
    assert data.means == pytest.approx([3.0])


def test_resamples_are_means_of_whole_conversations():
    # Of two conversations, a resample holds the first twice, the second twice, or both.
    data = bootstrap.clusters(np.array([[0.0], [0.0], [6.0]]), np.array(["a", "a", "b"]))
    boot_RM = bootstrap.bootstrap_means(data, 4000, np.random.default_rng(0))
    shares = [np.isclose(boot_RM, value).mean() for value in (0.0, 2.0, 6.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_resampling_in_many_parts_gives_every_resample(monkeypatch):
    monkeypatch.setattr(bootstrap, "CHUNK", 7)
    data = bootstrap.clusters(np.arange(3.0)[:, None], np.arange(3))
    assert bootstrap.bootstrap_means(data, 101, np.random.default_rng(0)).shape == (101, 1)


def test_constant_gain_has_a_zero_width_interval():
    low_M, high_M = bca(np.full((6, 1), 0.1), np.arange(6) // 2, 200, np.random.default_rng(0))
    assert low_M[0] == high_M[0] == pytest.approx(0.1, abs=1e-15)


def test_interval_agrees_with_scipy_where_clusters_are_many_and_single():
    rng = np.random.default_rng(1)
    value_P = rng.exponential(1, 400)
    low_M, high_M = bca(value_P[:, None], np.arange(400), 20000, rng)
    theirs = scipy_stats.bootstrap((value_P,), np.mean, n_resamples=20000, method="BCa", rng=rng).confidence_interval
    width = theirs.high - theirs.low
    assert low_M[0] == pytest.approx(theirs.low, abs=0.05 * width)
    assert high_M[0] == pytest.approx(theirs.high, abs=0.05 * width)


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("clusters", [24, 60])
def test_interval_covers_the_true_gain_at_its_stated_rate(skewed, clusters):
    rng = np.random.default_rng(2)
    value_PM, cluster_P = clustered(rng, 1000, mean=0.3, skewed=skewed, clusters=clusters)
    low_M, high_M = bca(value_PM, cluster_P, 2000, rng)
    assert np.mean((low_M <= 0.3) & (high_M >= 0.3)) == pytest.approx(0.95, abs=0.02)


def test_interval_of_another_confidence_covers_at_that_rate():
    rng = np.random.default_rng(3)
    value_PM, cluster_P = clustered(rng, 1000, clusters=40)
    low_M, high_M = bca(value_PM, cluster_P, 1000, rng, confidence=0.8)
    assert np.mean((low_M <= 0) & (high_M >= 0)) == pytest.approx(0.8, abs=0.03)


def test_interval_that_ignores_conversations_would_cover_too_rarely():
    rng = np.random.default_rng(3)
    value_PM, cluster_P = clustered(rng, 400)
    low_M, high_M = bca(value_PM, np.arange(len(cluster_P)), 1000, rng)
    assert np.mean((low_M <= 0) & (high_M >= 0)) < 0.9


def test_interval_falls_short_on_heavily_skewed_conversations_by_a_known_amount():
    # Log-normal parts, skewness 6: what the report says of the method's limit.
    rng = np.random.default_rng(9)
    effect_CM = rng.lognormal(0, 1, (31, 1000)) - np.exp(0.5)
    low_M, high_M = bca(np.repeat(effect_CM, 2, axis=0), np.repeat(np.arange(31), 2), 1000, rng)
    assert 0.89 < np.mean((low_M <= 0) & (high_M >= 0)) < 0.94


def several_seeds(rng, n_draws, n_seeds, seed_sd, mean):
    """Draw what trainings with other seeds give on the same clustered prompts: (S, P, M) values."""
    value_PM, cluster_P = clustered(rng, n_draws, mean=mean)
    seed_SM = rng.normal(0, seed_sd, (n_seeds, n_draws))
    noise_SPM = rng.normal(0, 1, (n_seeds, *value_PM.shape))
    return value_PM + seed_SM[:, None, :] + noise_SPM, cluster_P


@pytest.mark.parametrize(("n_seeds", "seed_sd"), [(3, 0.0), (3, 0.2), (3, 0.5), (5, 0.5), (5, 2.0)])
def test_interval_over_seeds_covers_the_gain_of_all_trainings(n_seeds, seed_sd):
    rng = np.random.default_rng(4)
    value_SPM, cluster_P = several_seeds(rng, 1000, n_seeds, seed_sd, mean=0.3)
    found = paired_statistics.paired(value_SPM.mean(axis=0), cluster_P, 999, 0.95, rng, value_SPM.mean(axis=1))
    assert np.mean((found.low <= 0.3) & (found.high >= 0.3)) == pytest.approx(0.95, abs=0.02)


def test_interval_of_three_seeds_that_leaves_them_out_would_cover_too_rarely():
    rng = np.random.default_rng(5)
    value_SPM, cluster_P = several_seeds(rng, 400, 3, 0.5, mean=0.3)
    found = paired_statistics.paired(value_SPM.mean(axis=0), cluster_P, 999, 0.95, rng)
    assert np.mean((found.low <= 0.3) & (found.high >= 0.3)) < 0.9


def resampled_seeds(value_SPM, cluster_P, n_resamples, rng):
    """Return the percentile interval that resamples seeds, and conversations below them."""
    by_seed = [bootstrap.clusters(value_PM, cluster_P) for value_PM in value_SPM]
    n_clusters, n_seeds = len(by_seed[0].counts), len(by_seed)
    weight_RC = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=n_resamples)
    share_RS = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_resamples) / n_seeds
    sum_RM = sum(share_RS[:, [s]] * (weight_RC @ data.sums) for s, data in enumerate(by_seed))
    return np.quantile(sum_RM / (weight_RC @ by_seed[0].counts)[:, None], [0.025, 0.975], axis=0)


def test_resampling_three_seeds_would_cover_too_rarely_where_trainings_differ():
    rng = np.random.default_rng(10)
    value_SPM, cluster_P = several_seeds(rng, 400, 3, 2.0, mean=0.3)
    low_M, high_M = resampled_seeds(value_SPM, cluster_P, 999, rng)
    assert np.mean((low_M <= 0.3) & (high_M >= 0.3)) < 0.85


def test_one_seed_leaves_the_interval_as_it_is():
    value_PM, cluster_P = clustered(np.random.default_rng(6), 2)
    without = paired_statistics.paired(value_PM, cluster_P, 200, 0.95, np.random.default_rng(7))
    one = paired_statistics.paired(
        value_PM, cluster_P, 200, 0.95, np.random.default_rng(7), value_PM.mean(axis=0)[None]
    )
    assert one.low == pytest.approx(without.low)
    assert one.standard_error == pytest.approx(without.standard_error)


def test_seeds_widen_an_interval_as_worked_by_hand():
    # Conversations: variance 0, so that the seeds' t interval is left: 12.706 standard errors of 1
    # on either side.
    data = bootstrap.clusters(np.zeros((4, 1)), np.arange(4))
    zero_M = np.zeros(1)
    low_M, high_M = bootstrap.with_seeds(data, zero_M, zero_M, np.array([[-1.0], [1.0]]), 0.95)
    assert low_M == pytest.approx([-12.7062], abs=1e-3)
    assert high_M == pytest.approx([12.7062], abs=1e-3)


def test_equal_seeds_leave_the_interval_as_it_is():
    data = bootstrap.clusters(np.array([[1.0], [2.0], [4.0], [9.0]]), np.arange(4))
    low_M, high_M = bootstrap.with_seeds(data, np.array([1.0]), np.array([8.0]), np.full((3, 1), 4.0), 0.95)
    assert (low_M[0], high_M[0]) == pytest.approx((1.0, 8.0))


def test_metrics_without_any_spread_have_no_width_over_seeds_either():
    data = bootstrap.clusters(np.full((4, 1), 0.5), np.arange(4))
    half_M = np.array([0.5])
    low_M, high_M = bootstrap.with_seeds(data, half_M, half_M, np.full((3, 1), 0.5), 0.95)
    assert low_M[0] == high_M[0] == pytest.approx(0.5)


def new_training(rng, n_draws, trainings, sd, behind=None):
    """Simulate studies of `trainings` seeds; return their intervals and a new training's gain.

    The spread is that of these seeds, or of `behind` others on the same prompts.
    """
    value_SPM, cluster_P = several_seeds(rng, n_draws, trainings, sd, mean=0.3)
    data = bootstrap.clusters(value_SPM.mean(axis=0), cluster_P)
    low_M, high_M = bootstrap.bca_interval(data, bootstrap.bootstrap_means(data, 300, rng), 0.95)
    others_SM = value_SPM.mean(axis=1)
    if behind is not None:
        noise_SM = rng.normal(0, 1 / np.sqrt(len(cluster_P)), (behind, n_draws))
        others_SM = rng.normal(0, sd, (behind, n_draws)) + noise_SM
    spread = bootstrap.seed_spread(others_SM)
    return *bootstrap.for_new_training(data, low_M, high_M, spread, trainings, 0.95), rng.normal(0.3, sd, n_draws)


@pytest.mark.parametrize(
    ("trainings", "sd", "behind"), [(5, 0.2, None), (5, 2.0, None), (3, 2.0, None), (1, 0.2, 5), (1, 2.0, 5)]
)
def test_interval_for_a_new_training_covers_its_gain(trainings, sd, behind):
    low_M, high_M, gain_M = new_training(np.random.default_rng(11), 800, trainings, sd, behind)
    assert np.mean((low_M <= gain_M) & (gain_M <= high_M)) == pytest.approx(0.95, abs=0.025)


def test_interval_of_the_mean_over_trainings_would_miss_the_gain_of_a_new_one():
    rng = np.random.default_rng(12)
    value_SPM, cluster_P = several_seeds(rng, 400, 5, 2.0, mean=0.3)
    found = paired_statistics.paired(value_SPM.mean(axis=0), cluster_P, 300, 0.95, rng, value_SPM.mean(axis=1))
    gain_M = rng.normal(0.3, 2.0, 400)
    assert np.mean((found.low <= gain_M) & (gain_M <= found.high)) < 0.8
    assert np.mean((found.new_low <= gain_M) & (gain_M <= found.new_high)) > 0.92


def test_interval_for_a_new_training_is_students_prediction_interval_where_stories_do_not_vary():
    data, zero_M = bootstrap.clusters(np.zeros((4, 1)), np.arange(4)), np.zeros(1)
    spread = bootstrap.seed_spread(np.array([[-1.0], [0.0], [1.0]]))
    _, high_M = bootstrap.for_new_training(data, zero_M, zero_M, spread, 3, 0.95)
    assert high_M == pytest.approx([scipy_stats.t.ppf(0.975, 2) * np.sqrt(1 + 1 / 3)])


def test_interval_for_a_new_training_is_not_known_without_a_spread():
    value_PM, cluster_P = clustered(np.random.default_rng(6), 2)
    alone = paired_statistics.paired(value_PM, cluster_P, 200, 0.95, np.random.default_rng(7))
    assert np.isnan([alone.new_low, alone.new_high, alone.between_sd]).all()
    one = bootstrap.Spread(np.array([0.1, np.nan]), 5)
    found = paired_statistics.paired(value_PM, cluster_P, 200, 0.95, np.random.default_rng(7), known=one)
    assert found.new_low[0] < found.low[0] < found.high[0] < found.new_high[0]
    assert np.isnan([found.new_low[1], found.new_high[1]]).all()
    assert found.low == pytest.approx(alone.low)


def test_standard_error_of_single_prompts_is_the_textbook_one():
    value_P = np.array([1.0, 2.0, 4.0, 9.0])
    data = bootstrap.clusters(value_P[:, None], np.arange(4))
    assert bootstrap.standard_error(data) == pytest.approx([scipy_stats.sem(value_P)])


def test_degrees_of_freedom_fall_with_heavy_tails():
    rng = np.random.default_rng(8)
    value_PM = np.column_stack([rng.normal(size=2000), rng.standard_t(5, size=2000)])
    normal, heavy = bootstrap.degrees_of_freedom(bootstrap.clusters(value_PM, np.arange(2000)))
    assert normal > 1500
    assert heavy < 0.7 * normal


def test_degrees_of_freedom_of_two_conversations_is_one():
    data = bootstrap.clusters(np.array([[1.0], [4.0]]), np.arange(2))
    assert bootstrap.degrees_of_freedom(data) == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("value_PM", "cluster_P", "message"),
    [
        (np.ones((3, 1)), np.zeros(3), r"\bstories\b.*\b1$"),
        (np.array([[1.0], [np.nan]]), np.arange(2), r"\bnan\b.*\b1\b.*\b0\b"),
        (np.array([[np.inf], [1.0]]), np.arange(2), r"\binf\b.*\b0\b.*\b0\b"),
        (np.ones((3, 1)), np.arange(2), r"\(3, 1\).*\(2,\)"),
    ],
)
def test_refuses_what_cannot_be_resampled(value_PM, cluster_P, message):
    with pytest.raises(ValueError, match=message):
        bootstrap.clusters(value_PM, cluster_P)
