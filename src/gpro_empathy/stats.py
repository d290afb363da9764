"""Paired comparisons of clustered data: intervals, tests and effect sizes, on plain arrays.

Prompts of one conversation are not independent, so every interval and test here resamples whole conversations
(clusters). Shapes: _P prompts, _C clusters, _M metrics, _R resamples.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy import stats as scipy_stats

POWER = 0.8
# Resamples that are drawn at once: bounds memory at this number times the clusters.
CHUNK = 500


@dataclass(frozen=True)
class Clusters:
    """Sums of the metrics over each cluster, shape (C, M), and the clusters' numbers of prompts, shape (C,)."""

    sums: np.ndarray
    counts: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """Means over all prompts, each counted once, shape (M,)."""
        return self.sums.sum(axis=0) / self.counts.sum()


def clusters(value_PM: np.ndarray, cluster_P: np.ndarray) -> Clusters:
    """Sum values over the prompts of each cluster.

    Raises:
        ValueError: If the shapes differ, a value is not finite, or there are fewer than two clusters.
    """
    value_PM, cluster_P = np.asarray(value_PM, dtype=np.float64), np.asarray(cluster_P)
    if value_PM.ndim != 2 or cluster_P.shape != value_PM.shape[:1]:
        raise ValueError(f"need values (P, M) and clusters (P,), got {value_PM.shape} and {cluster_P.shape}")
    if not np.isfinite(value_PM).all():
        row, column = np.argwhere(~np.isfinite(value_PM))[0]
        raise ValueError(f"values must be finite, got {value_PM[row, column]} at row {row}, column {column}")
    names, index_P = np.unique(cluster_P, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"need at least two conversations to resample, got {len(names)}")
    sum_CM = np.zeros((len(names), value_PM.shape[1]))
    np.add.at(sum_CM, index_P, value_PM)
    return Clusters(sum_CM, np.bincount(index_P).astype(np.float64))


def bootstrap_means(data: Clusters, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Resample clusters with replacement; return the means over prompts, shape (R, M)."""
    n_clusters = len(data.counts)
    means = []
    for start in range(0, n_resamples, CHUNK):
        size = min(CHUNK, n_resamples - start)
        weight_RC = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=size).astype(np.float64)
        means.append((weight_RC @ data.sums) / (weight_RC @ data.counts)[:, None])
    return np.concatenate(means)


def bca_interval(data: Clusters, boot_RM: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the bias-corrected and accelerated interval of each mean, (low_M, high_M).

    The normal quantile of the BCa formula is replaced by sqrt(C / (C - 1)) times that of Student's t with C - 1
    degrees of freedom: with some thirty clusters the plain interval is too short. A metric without spread gets an
    interval of zero width.

    Source:
        Efron & Tibshirani (1993), An Introduction to the Bootstrap, eq. 14.9-14.15; the widening is that of
        Hesterberg (2015), What Teachers Should Know About the Bootstrap, section on expanded percentiles.
    """
    mean_M, (n_resamples, n_metrics), n_clusters = data.means, boot_RM.shape, len(data.counts)
    below_M = (boot_RM < mean_M).mean(axis=0) + 0.5 * (boot_RM == mean_M).mean(axis=0)
    bias_M = special.ndtri(np.clip(below_M, 1 / (n_resamples + 1), n_resamples / (n_resamples + 1)))
    rest_C = data.counts.sum() - data.counts
    jackknife_CM = (data.sums.sum(axis=0) - data.sums) / rest_C[:, None]
    deviation_CM = jackknife_CM.mean(axis=0) - jackknife_CM
    spread_M = (deviation_CM**2).sum(axis=0) ** 1.5
    skew_M = (deviation_CM**3).sum(axis=0)
    acceleration_M = np.divide(skew_M, 6 * spread_M, out=np.zeros(n_metrics), where=spread_M > 0)
    quantile = np.sqrt(n_clusters / (n_clusters - 1)) * scipy_stats.t.ppf((1 + confidence) / 2, n_clusters - 1)
    ends = []
    for sign in (-1, 1):
        shifted_M = bias_M + sign * quantile
        level_M = special.ndtr(bias_M + shifted_M / (1 - acceleration_M * shifted_M))
        ends.append(np.array([np.quantile(boot_RM[:, m], level_M[m]) for m in range(n_metrics)]))
    flat_M = boot_RM.std(axis=0) <= 1e-12 * (1 + np.abs(mean_M))
    return np.where(flat_M, mean_M, ends[0]), np.where(flat_M, mean_M, ends[1])


def sign_flip_p(sum_CM: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Test that the clusters' sums are symmetric about 0: two-sided p of their total, shape (M,).

    All 2**C sign patterns are taken if there are no more than `n_resamples`, and the p is then exact; otherwise the
    observed pattern counts as one of the resamples, so p is never 0.

    Source:
        Phipson & Smyth (2010), Permutation p-values should never be zero.
    """
    n_clusters = len(sum_CM)
    observed_M = np.abs(sum_CM.sum(axis=0))
    # Equal sums, added in another order, differ in their last bits.
    threshold_M = observed_M - 1e-9 * np.abs(sum_CM).sum(axis=0)
    if n_clusters < 63 and 2**n_clusters <= n_resamples:
        pattern_R = np.arange(2**n_clusters)[:, None]
        sign_RC = 1.0 - 2.0 * (pattern_R >> np.arange(n_clusters) & 1)
        return (np.abs(sign_RC @ sum_CM) >= threshold_M).mean(axis=0)
    extreme_M = np.ones(sum_CM.shape[1])
    for start in range(0, n_resamples, CHUNK):
        size = min(CHUNK, n_resamples - start)
        sign_RC = 1.0 - 2.0 * rng.integers(0, 2, size=(size, n_clusters))
        extreme_M += (np.abs(sign_RC @ sum_CM) >= threshold_M).sum(axis=0)
    return extreme_M / (n_resamples + 1)


def wilcoxon_p(value_C: np.ndarray) -> float:
    """Return Wilcoxon's signed-rank p, two-sided, of the clusters' means; 1 if all are 0."""
    if not np.any(value_C):
        return 1.0
    return float(scipy_stats.wilcoxon(value_C).pvalue)


def holm(p_M: np.ndarray) -> np.ndarray:
    """Adjust p-values for the number of tests.

    Source:
        Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    p_M = np.asarray(p_M, dtype=np.float64)
    order_M = np.argsort(p_M, kind="stable")
    adjusted_M = np.empty_like(p_M)
    adjusted_M[order_M] = np.minimum(np.maximum.accumulate(p_M[order_M] * np.arange(len(p_M), 0, -1)), 1.0)
    return adjusted_M


def d_z(value_P: np.ndarray) -> float | None:
    """Return the mean of paired differences over their standard deviation; None if they are equal and not 0."""
    sd = float(np.std(value_P, ddof=1))
    mean = float(np.mean(value_P))
    if sd <= 1e-12 * (1 + abs(mean)):
        return 0.0 if abs(mean) <= 1e-12 else None
    return mean / sd


def probability_of_improvement(value_P: np.ndarray) -> float:
    """Return the share of positive paired differences, half of the zeros included."""
    return float(np.mean(value_P > 0) + 0.5 * np.mean(value_P == 0))


def smallest_detectable(standard_error: float, confidence: float, power: float = POWER) -> float:
    """Return the mean difference that a two-sided test finds with this power, by the normal approximation."""
    return float((special.ndtri((1 + confidence) / 2) + special.ndtri(power)) * standard_error)


def trend(
    level_P: np.ndarray, value_P: np.ndarray, cluster_P: np.ndarray, n_resamples: int, rng: np.random.Generator
) -> tuple[float | None, float]:
    """Return Spearman's correlation and its p; correlation None (and p 1) if either side is constant.

    The covariance of the ranks is a sum over clusters; the p flips the signs of the clusters' parts.

    Source:
        Hemerik, Goeman & Finos (2020), Robust testing in generalized linear models by sign flipping score
        contributions.
    """
    ranks_P2 = np.column_stack([scipy_stats.rankdata(level_P), scipy_stats.rankdata(value_P)])
    centred_P2 = ranks_P2 - ranks_P2.mean(axis=0)
    norm = np.sqrt((centred_P2**2).sum(axis=0).prod())
    product_P = centred_P2.prod(axis=1)
    sum_CM = clusters(product_P[:, None], cluster_P).sums
    if norm == 0:
        return None, 1.0
    return float(product_P.sum() / norm), float(sign_flip_p(sum_CM, n_resamples, rng)[0])


def significance_level(confidence: float) -> float:
    """Return 1 - confidence without the last bits of that subtraction, which would let p = 0.05 pass at 95 %."""
    return round(1 - confidence, 12)


def verdict(low: float, high: float, p: float, confidence: float, words: tuple[str, str]) -> str:
    """Return words[0] for a rise, words[1] for a fall, when interval and adjusted p agree that there is one."""
    if p < significance_level(confidence) and low > 0:
        return words[0]
    if p < significance_level(confidence) and high < 0:
        return words[1]
    return "no evidence of a change"


def noninferiority(low: float, high: float, margin: float) -> str:
    """Say whether a loss of `margin` or more is excluded by the interval of the difference."""
    if low > -margin:
        return "not inferior"
    return "inferior" if high < -margin else "inconclusive"
