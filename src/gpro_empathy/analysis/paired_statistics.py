"""Paired comparisons of clustered data: estimates and tests, on plain arrays.

Prompts on one story are not independent, so every interval and test here treats whole stories
(clusters) as the unit that is drawn. Shapes: _P prompts, _C clusters, _M metrics, _R
resamples, _S training seeds.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from gpro_empathy.analysis import bootstrap


@dataclass(frozen=True)
class Paired:
    """Mean differences and what is known of them, each of shape (M,).

    `low` and `high` are for the trainings at hand, or, where there are several, for the mean over
    trainings; `new_low` and `new_high` are for a new training, and NaN where the spread between
    trainings, `between_sd`, is not known.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    new_low: np.ndarray
    new_high: np.ndarray
    between_sd: np.ndarray
    standard_error: np.ndarray
    p_sign_flip: np.ndarray
    p_wilcoxon: np.ndarray


def paired(
    value_PM: np.ndarray,
    cluster_P: np.ndarray,
    n_resamples: int,
    confidence: float,
    rng: np.random.Generator,
    seed_mean_SM: np.ndarray | None = None,
    known: bootstrap.Spread | None = None,
) -> Paired:
    """Estimate mean differences over prompts, with interval, standard error and tests.

    Args:
        value_PM: Difference of each prompt in each metric, averaged over samples and training
            seeds.
        cluster_P: Story of each prompt.
        seed_mean_SM: Mean difference of each training seed, if there are several: interval and
            standard error then include the spread between trainings. The tests are about the
            policies at hand.
        known: The spread between trainings from a study of several, for a single training.

    Raises:
        ValueError: As `bootstrap.clusters`.
    """
    data = bootstrap.clusters(value_PM, cluster_P)
    boot_RM = bootstrap.bootstrap_means(data, n_resamples, rng)
    low_M, high_M = bootstrap.bca_interval(data, boot_RM, confidence)
    error_M, trainings = bootstrap.standard_error(data), 1 if seed_mean_SM is None else len(seed_mean_SM)
    spread = bootstrap.seed_spread(seed_mean_SM) if trainings > 1 else known
    new_low_M = new_high_M = np.full(len(low_M), np.nan)
    if spread is not None:
        new_low_M, new_high_M = bootstrap.for_new_training(data, low_M, high_M, spread, trainings, confidence)
    if trainings > 1:
        low_M, high_M = bootstrap.with_seeds(data, low_M, high_M, seed_mean_SM, confidence)
        error_M = np.hypot(error_M, bootstrap.seed_error(seed_mean_SM))
    between_M = np.full(len(low_M), np.nan) if spread is None else spread.sd_M
    mean_CM = data.sums / data.counts[:, None]
    wilcoxon_M = np.array([wilcoxon_p(mean_C) for mean_C in mean_CM.T])
    p_M = sign_flip_p(data.sums, n_resamples, rng)
    return Paired(data.means, low_M, high_M, new_low_M, new_high_M, between_M, error_M, p_M, wilcoxon_M)


def sign_flip_p(
    sum_CM: np.ndarray, n_resamples: int, rng: np.random.Generator, *, one_sided: bool = False
) -> np.ndarray:
    """Test that the clusters' sums are symmetric about 0: p of their total, shape (M,).

    All 2**C sign patterns are taken if there are no more than `n_resamples`, and the p is then
    exact; otherwise the observed pattern counts as one of the resamples, so p is never 0.
    Two-sided, or against a positive total.

    Source:
        Phipson & Smyth (2010), Permutation p-values should never be zero.
    """
    n_clusters = len(sum_CM)

    def size(total_RM: np.ndarray) -> np.ndarray:
        return total_RM if one_sided else np.abs(total_RM)

    # Equal sums, added in another order, differ in their last bits.
    threshold_M = size(sum_CM.sum(axis=0)) - 1e-9 * np.abs(sum_CM).sum(axis=0)
    if n_clusters < 63 and 2**n_clusters <= n_resamples:
        pattern_R = np.arange(2**n_clusters)[:, None]
        sign_RC = 1.0 - 2.0 * (pattern_R >> np.arange(n_clusters) & 1)
        return (size(sign_RC @ sum_CM) >= threshold_M).mean(axis=0)
    extreme_M = np.ones(sum_CM.shape[1])
    for rows in bootstrap.chunks(n_resamples, n_clusters):
        sign_RC = 1.0 - 2.0 * rng.integers(0, 2, size=(rows, n_clusters), dtype=np.int8)
        extreme_M += (size(sign_RC @ sum_CM) >= threshold_M).sum(axis=0)
    return extreme_M / (n_resamples + 1)


def wilcoxon_p(value_C: np.ndarray) -> float:
    """Return Wilcoxon's signed-rank p, two-sided, of the clusters' means; 1 if all are 0."""
    if not np.any(value_C):
        return 1.0
    return float(scipy_stats.wilcoxon(value_C).pvalue)


def trend(
    level_P: np.ndarray, value_PM: np.ndarray, cluster_P: np.ndarray, n_resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return Spearman's correlation of each column with the level, shape (M,), and its p.

    They are NaN and 1 without spread. The covariance of the ranks is a sum over clusters; the p
    flips the signs of the clusters' parts.

    Raises:
        ValueError: As `bootstrap.clusters`.

    Source:
        Hemerik, Goeman & Finos (2020), Robust testing in generalized linear models by sign flipping
        score contributions.
    """
    level_P = scipy_stats.rankdata(level_P)
    rank_PM = scipy_stats.rankdata(value_PM, axis=0)
    level_P, rank_PM = level_P - level_P.mean(), rank_PM - rank_PM.mean(axis=0)
    product_PM = level_P[:, None] * rank_PM
    norm_M = np.sqrt((level_P**2).sum() * (rank_PM**2).sum(axis=0))
    sum_CM = bootstrap.clusters(product_PM, cluster_P).sums
    undefined_M = np.full(len(norm_M), np.nan)
    correlation_M = np.divide(product_PM.sum(axis=0), norm_M, out=undefined_M, where=norm_M > 0)
    return correlation_M, np.where(norm_M > 0, sign_flip_p(sum_CM, n_resamples, rng), 1.0)
