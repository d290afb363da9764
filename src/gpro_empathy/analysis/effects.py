"""Effect sizes, correlation, correction for many tests, and words for a result, on plain arrays.

Shapes: _P prompts, _M metrics.
"""

import math

import numpy as np
from scipy import special
from scipy import stats as scipy_stats

POWER = 0.8


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


def pearson(x_P: np.ndarray, y_P: np.ndarray) -> float | None:
    """Return Pearson's correlation of two arrays, shape (P,) each.

    None without spread, and of fewer than three values: of two it is 1 or -1, whatever they are.
    """
    if len(x_P) < 3 or np.std(x_P) == 0 or np.std(y_P) == 0:
        return None
    return float(np.corrcoef(x_P, y_P)[0, 1])


def d_z(value_P: np.ndarray) -> float | None:
    """Return the mean of paired differences over their standard deviation.

    None if the differences are equal and not 0.
    """
    sd = float(np.std(value_P, ddof=1))
    mean = float(np.mean(value_P))
    if sd <= 1e-12 * (1 + abs(mean)):
        return 0.0 if abs(mean) <= 1e-12 else None
    return mean / sd


def cliffs_delta(start_P: np.ndarray, tuned_P: np.ndarray) -> float:
    """Return how much more often a tuned score exceeds a starting one than the reverse.

    It is taken over all pairs, and lies in [-1, 1]. The scores are compared across prompts too, so
    this says how far apart the two distributions lie, where the probability of improvement stays
    within the prompt.

    Source:
        Cliff (1993), Dominance statistics: ordinal analyses to answer ordinal questions.
    """
    n_start, n_tuned = len(start_P), len(tuned_P)
    rank_sum = scipy_stats.rankdata(np.concatenate([tuned_P, start_P]))[:n_tuned].sum()
    return float(2 * (rank_sum - n_tuned * (n_tuned + 1) / 2) / (n_start * n_tuned) - 1)


def probability_of_improvement(value_P: np.ndarray) -> float:
    """Return the share of positive paired differences, half of the zeros included."""
    return float(np.mean(value_P > 0) + 0.5 * np.mean(value_P == 0))


def interquartile_mean(value_P: np.ndarray) -> float:
    """Return the mean of the middle half: a quarter, rounded down, is cut off at either end.

    Source:
        Agarwal et al. (2021), Deep reinforcement learning at the edge of the statistical precipice.
    """
    return float(scipy_stats.trim_mean(value_P, 0.25))


def smallest_detectable(
    standard_error: float, alpha: float, power: float = POWER, degrees_of_freedom: float = math.inf
) -> float:
    """Return the mean difference that a two-sided test at `alpha` finds with this power.

    It is worked out by Student's quantiles at the standard error's degrees of freedom; by default
    by the normal approximation.
    """
    two_sided, one_sided = quantile(1 - alpha / 2, degrees_of_freedom), quantile(power, degrees_of_freedom)
    return float((two_sided + one_sided) * standard_error)


def quantile(probability: float, degrees_of_freedom: float) -> float:
    """Return Student's quantile; for infinite degrees of freedom, the normal one."""
    if math.isinf(degrees_of_freedom):
        return float(special.ndtri(probability))
    return float(scipy_stats.t.ppf(probability, degrees_of_freedom))


def significance_level(confidence: float) -> float:
    """Return 1 - confidence without the last bits of that subtraction.

    They would let p = 0.05 pass at 95 %.
    """
    return round(1 - confidence, 12)


def verdict(low: float, high: float, p: float, confidence: float, words: tuple[str, str]) -> str:
    """Return words[0] for a rise, words[1] for a fall, or that there is no evidence of a change.

    For a rise or a fall, the interval and the adjusted p must agree that there is one.
    """
    if p < significance_level(confidence) and low > 0:
        return words[0]
    if p < significance_level(confidence) and high < 0:
        return words[1]
    return "no evidence of a change"


def noninferiority(low: float, high: float, p: float, margin: float, confidence: float) -> str:
    """Say whether a loss of `margin` or more is excluded.

    Both the interval of the difference and the test must exclude it.

    Args:
        p: One-sided p of the hypothesis that the loss is `margin` or more; half of 1 - confidence
            is its level, since the interval's lower end has that error too.
    """
    if low > -margin and p < significance_level(confidence) / 2:
        return "not inferior"
    return "inferior" if high < -margin else "inconclusive"
