"""Means, correlations and slopes over the turns of conversations, with intervals.

Whole stories are resampled: a turn's story is the news article that its conversation is about.

Shapes: _P turns, _K moments, _R resamples.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from scipy import special
from scipy import stats as scipy_stats

from gpro_empathy.analysis import bootstrap
from gpro_empathy.analysis.results import Estimate

CONFIDENCE = 0.95
N_RESAMPLES = 2000


def mean(value_P: np.ndarray, story_P: np.ndarray, rng: np.random.Generator) -> Estimate:
    """Estimate a mean over turns, with the interval of `bootstrap.bca_interval`."""
    if not len(value_P):
        return _estimate(None)
    if len(np.unique(story_P)) < bootstrap.FEWEST_STORIES:
        return _estimate(np.mean(value_P))
    data = bootstrap.clusters(value_P[:, None], story_P)
    boot_R1 = bootstrap.bootstrap_means(data, N_RESAMPLES, rng)
    low_1, high_1 = bootstrap.bca_interval(data, boot_R1, CONFIDENCE)
    return _estimate(data.means[0], low_1[0], high_1[0])


def moments(x_P: np.ndarray, y_P: np.ndarray) -> np.ndarray:
    """Return what correlation and slope are made of, turn by turn, shape (P, 5).

    Both variables are centred, which changes neither correlation nor slope.
    """
    x_P, y_P = np.asarray(x_P, dtype=float), np.asarray(y_P, dtype=float)
    if len(x_P):
        x_P, y_P = x_P - x_P.mean(), y_P - y_P.mean()
    return np.column_stack([x_P, y_P, x_P**2, y_P**2, x_P * y_P])


def correlation(mean_RK: np.ndarray) -> np.ndarray:
    """Return Pearson correlations from means of `moments`, shape (R,); NaN without spread."""
    x_R, y_R, xx_R, yy_R, xy_R = mean_RK.T
    return _ratio(xy_R - x_R * y_R, np.sqrt(np.maximum(xx_R - x_R**2, 0) * np.maximum(yy_R - y_R**2, 0)))


def slope(mean_RK: np.ndarray) -> np.ndarray:
    """Return least-squares slopes of y on x from means of `moments`, shape (R,).

    A slope is NaN without spread of x.
    """
    x_R, y_R, xx_R, _, xy_R = mean_RK.T
    return _ratio(xy_R - x_R * y_R, xx_R - x_R**2)


def statistic(
    of: Callable[[np.ndarray], np.ndarray],
    moment_PK: np.ndarray,
    story_P: np.ndarray,
    rng: np.random.Generator,
) -> Estimate:
    """Estimate a function of mean moments, with an expanded percentile interval.

    Args:
        of: Maps means of the moments, shape (R, K), to values, shape (R,), NaN where it is not
            defined.

    Source:
        Hesterberg (2015), What Teachers Should Know About the Bootstrap: the percentiles are those
        of Student's t, times sqrt(n / (n - 1)) for n stories, since the plain ones are too
        close for few of them.
    """
    if not len(moment_PK):
        return _estimate(None)
    value = of(moment_PK.mean(axis=0, keepdims=True))[0]
    n_stories = len(np.unique(story_P))
    if np.isnan(value) or n_stories < bootstrap.FEWEST_STORIES:
        return _estimate(value)
    boot_R = of(bootstrap.bootstrap_means(bootstrap.clusters(moment_PK, story_P), N_RESAMPLES, rng))
    if np.isnan(boot_R).any():
        return _estimate(value)
    return _estimate(value, *expanded_percentiles(boot_R, n_stories, CONFIDENCE))


def expanded_percentiles(boot_R: np.ndarray, n_stories: int, confidence: float) -> np.ndarray:
    """Return the ends of the interval of `statistic` from values of resamples, shape (2,)."""
    quantile = scipy_stats.t.ppf((1 + confidence) / 2, n_stories - 1)
    level = special.ndtr(-quantile * np.sqrt(n_stories / (n_stories - 1)))
    return np.quantile(boot_R, [level, 1 - level])


def correlations(
    label_PL: np.ndarray, predicted: Sequence[np.ndarray], story_P: np.ndarray, rng: np.random.Generator
) -> list[Estimate]:
    """Estimate Pearson correlations of predictions with each of L labels, and their mean.

    Args:
        predicted: One prediction, shape (P, L), or two, whose correlations are then those of the
            first less the second's.

    Returns:
        L + 1 estimates with the interval of `statistic`.
    """
    n_labels = label_PL.shape[1]
    moment_PK = np.concatenate(
        [moments(prediction_PL[:, k], label_PL[:, k]) for prediction_PL in predicted for k in range(n_labels)], axis=1
    )

    def values(mean_RK: np.ndarray, columns: Sequence[int]) -> np.ndarray:
        parts = np.split(mean_RK, len(predicted) * n_labels, axis=1)
        r_MLR = np.array([correlation(part) for part in parts]).reshape(len(predicted), n_labels, -1)
        r_MR = r_MLR[:, columns].mean(axis=1)
        return r_MR[0] if len(r_MR) == 1 else r_MR[0] - r_MR[1]

    chosen = [[k] for k in range(n_labels)] + [list(range(n_labels))]
    return [statistic(partial(values, columns=columns), moment_PK, story_P, rng) for columns in chosen]


def side(estimate: Estimate, value: float) -> int | None:
    """Return 1 if the interval lies above a value, -1 if below, and 0 if it holds it.

    None if there is no interval.
    """
    if estimate["low"] is None:
        return None
    return int(estimate["low"] > value) - int(estimate["high"] < value)


def _ratio(above_R: np.ndarray, below_R: np.ndarray) -> np.ndarray:
    return np.divide(above_R, below_R, out=np.full(len(above_R), np.nan), where=below_R > 1e-12)


def _estimate(value: float | None, low: float | None = None, high: float | None = None) -> Estimate:
    numbers = {"estimate": value, "low": low, "high": high}
    return {name: None if number is None or np.isnan(number) else float(number) for name, number in numbers.items()}
