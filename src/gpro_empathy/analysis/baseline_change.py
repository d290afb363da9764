"""The change of one metric between two runs over the same prompts, on plain arrays.

Two trainings differ by what was changed, by the stories that were drawn, and by their seeds. The
interval that verdicts go by has the latter two in it. Shapes: _P prompts, _S training seeds, _1 one
metric.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats as scipy_stats

from gpro_empathy import params
from gpro_empathy.analysis import bootstrap, effects, metric_names, paired_statistics
from gpro_empathy.analysis.baseline_results import (
    AS_A_SEED,
    NO_EVIDENCE,
    NOT_ADJUSTED,
    SPREAD_UNKNOWN,
    MetricChange,
)


def pooled(spreads: Sequence[bootstrap.Spread]) -> bootstrap.Spread | None:
    """Pool spreads between trainings, each weighted by its degrees of freedom; None of none.

    That takes trainings of both runs, and of the study, to lie apart alike. Its count of trainings
    is the one that would leave as many degrees of freedom.
    """
    if not spreads:
        return None
    df = [spread.trainings - 1 for spread in spreads]
    variance = sum(n * spread.sd_M**2 for n, spread in zip(df, spreads, strict=True)) / sum(df)
    return bootstrap.Spread(np.sqrt(variance), sum(df) + 1)


def estimate(
    baseline_SP: np.ndarray,
    run_SP: np.ndarray,
    story_P: np.ndarray,
    spread: bootstrap.Spread | None,
    config: params.AnalyseRewards,
    rng: np.random.Generator,
    *,
    comparisons: int,
) -> MetricChange:
    """Estimate the run's mean less the baseline's, over the same prompts, as far as one metric can.

    Each run's mean over n trainings misses what its settings would give by s^2 / n, s being the
    spread between trainings, so that the variance of the difference is that of the stories plus
    s^2 (1 / n + 1 / m). The quantile is Student's with Satterthwaite's degrees of freedom. Seeds
    that both runs share are taken as independent, since trainings part after a few steps.

    Args:
        baseline_SP, run_SP: Mean score of each training and prompt; their numbers of trainings may
            differ.
        comparisons: How many metrics are compared, over which Holm's method adjusts.

    Source:
        As `bootstrap.for_new_training`.
    """
    old_P = baseline_SP.mean(axis=0)
    value_P = run_SP.mean(axis=0) - old_P
    # Equal scores have means over other numbers of trainings that differ in their last bits.
    value_P[np.abs(value_P) <= 1e-12 * (1 + np.abs(old_P))] = 0
    data = bootstrap.clusters(value_P[:, None], story_P)
    low_1, high_1 = bootstrap.bca_interval(
        data, bootstrap.bootstrap_means(data, config.n_resamples, rng), config.confidence
    )
    flip_p = float(paired_statistics.sign_flip_p(data.sums, config.n_resamples, rng)[0])
    found = {
        "baseline": float(baseline_SP.mean()),
        "run": float(run_SP.mean()),
        "difference": float(data.means[0]),
        "low": float(low_1[0]),
        "high": float(high_1[0]),
        "spread_low": None,
        "spread_high": None,
        "between_training_sd": None,
        "sd_of_differences": float(value_P.std(ddof=1)),
        "p": flip_p,
        "p_holm": flip_p,
        "smallest_of_one": None,
        "smallest_of_one_adjusted": None,
        "start": 0.0,
        "verdict": NO_EVIDENCE,
    }
    if spread is None:
        return found
    within_1, within_df_1 = bootstrap.standard_error(data) ** 2, bootstrap.degrees_of_freedom(data)
    between_df = spread.trainings - 1

    def error(trainings: int) -> tuple[np.ndarray, float, float]:
        between_1 = spread.sd_M**2 * (1 / trainings + 1 / len(baseline_SP))
        df_1 = bootstrap.summed_degrees_of_freedom(within_1, within_df_1, between_1, between_df)
        return between_1, float(np.sqrt(within_1 + between_1)[0]), float(df_1[0])

    between_1, total, df = error(len(run_SP))
    ends = bootstrap.widened(data, low_1, high_1, between_1, between_df, config.confidence)
    _, of_one, of_one_df = error(1)
    alpha = effects.significance_level(config.confidence)
    return found | {
        "spread_low": float(ends[0][0]),
        "spread_high": float(ends[1][0]),
        "between_training_sd": float(spread.sd_M[0]),
        "p": student_p(found["difference"], total, df),
        "smallest_of_one": effects.smallest_detectable(of_one, alpha, degrees_of_freedom=of_one_df),
        "smallest_of_one_adjusted": effects.smallest_detectable(
            of_one, alpha / comparisons, degrees_of_freedom=of_one_df
        ),
    }


def student_p(difference: float, standard_error: float, degrees_of_freedom: float) -> float:
    """Return the two-sided p of a difference by Student's t; 1 where nothing varies nor differs."""
    if standard_error == 0:
        return float(difference == 0)
    return float(2 * scipy_stats.t.sf(abs(difference) / standard_error, degrees_of_freedom))


def verdict(found: MetricChange, p_holm: float, confidence: float, metric: str) -> str:
    """Judge a change: by the interval with the spread between trainings and the adjusted p.

    Without that spread nothing is claimed beyond the trainings at hand.
    """
    apart = found["low"] > 0 or found["high"] < 0
    if found["spread_low"] is None:
        return SPREAD_UNKNOWN if apart and p_holm < effects.significance_level(confidence) else NO_EVIDENCE
    words = metric_names.verdict_words(metric)
    judged = effects.verdict(found["spread_low"], found["spread_high"], p_holm, confidence, words)
    if judged != NO_EVIDENCE:
        return judged
    if found["spread_low"] > 0 or found["spread_high"] < 0:
        return NOT_ADJUSTED
    return AS_A_SEED if apart else NO_EVIDENCE
