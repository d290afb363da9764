"""Differences, tests and effect sizes of each metric: the tuned policy against its start.

Its start is the policy that it was tuned from.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from gpro_empathy import params
from gpro_empathy.analysis import bootstrap, effects, metric_names, paired_statistics, response_table, trainings
from gpro_empathy.analysis.results import Analysis, Comparison, Gap, Noninferiority

# What the report's sentences rest on.
HEADLINE = ("empathy_raw", "semantic_similarity_raw")


def compare(
    table: pd.DataFrame,
    metrics: Sequence[str],
    config: params.AnalyseRewards,
    rng: np.random.Generator,
    study: Analysis | None = None,
) -> dict[str, Comparison]:
    """Compare the tuned policy with the starting policy on a family of metrics.

    Returns, for each metric: means and interquartile means of all policies, the difference with its
    interval and standard error, for a new training, and for each training seed; sign-flip, Wilcoxon
    and Holm-adjusted p; d_z, Cliff's delta, probability of improvement; the smallest difference
    that the test would find by itself, and at the strictest level that Holm's method may ask of it;
    and a verdict, chosen by `deciding_interval` and the adjusted p.

    Args:
        study: The analysis of several trainings, from which a single one takes the spread between
            trainings.

    Raises:
        ValueError: As `response_table.per_seed`; and if there are fewer than two stories.
    """
    wide = {metric: response_table.per_seed(table, metric) for metric in metrics}
    result: dict[str, Comparison] = {}
    # Metrics that rest on the same prompts are resampled together.
    for same in _by_prompts(wide):
        result |= _estimates(table, {metric: wide[metric] for metric in same}, config, rng, study)
    alpha = effects.significance_level(config.confidence)
    adjusted = effects.holm(np.array([result[metric]["p_sign_flip"] for metric in metrics]))
    for metric, p in zip(metrics, adjusted, strict=True):
        comparison = result[metric]
        words = metric_names.verdict_words(metric)
        comparison["p_holm"] = float(p)
        error = comparison["standard_error"]
        comparison["smallest_detectable"] = effects.smallest_detectable(error, alpha)
        comparison["smallest_detectable_adjusted"] = effects.smallest_detectable(error, alpha / len(metrics))
        comparison["verdict"] = effects.verdict(*deciding_interval(comparison), float(p), config.confidence, words)
    return {metric: result[metric] for metric in metrics}


def deciding_interval(comparison: Comparison | Gap) -> tuple[float, float]:
    """Return the interval that verdicts go by: that for a new training, where there is one.

    What holds for these weights alone may be otherwise after the next training, be it only on
    another processor, which rounds differently.
    """
    if comparison["new_low"] is None:
        return comparison["low"], comparison["high"]
    return comparison["new_low"], comparison["new_high"]


def _by_prompts(wide: Mapping[str, pd.DataFrame]) -> list[list[str]]:
    alike: dict[int, list[str]] = {}
    for metric, values in wide.items():
        # Prompts are left out of one metric alone, so that their number tells the sets apart.
        alike.setdefault(len(values), []).append(metric)
    return list(alike.values())


def _estimates(
    table: pd.DataFrame,
    wide: Mapping[str, pd.DataFrame],
    config: params.AnalyseRewards,
    rng: np.random.Generator,
    study: Analysis | None,
) -> dict[str, Comparison]:
    start, seeds = response_table.starting_policy(table), response_table.training_seeds(table)
    prompts = next(iter(wide.values())).index
    starting_PM = np.column_stack([values[(start, response_table.NO_SEED)].to_numpy() for values in wide.values()])
    tuned_SPM = np.stack([[values[("tuned", seed)].to_numpy() for seed in seeds] for values in wide.values()], axis=-1)
    difference_PM = tuned_SPM.mean(axis=0) - starting_PM
    seed_mean_SM = (tuned_SPM - starting_PM).mean(axis=1)
    try:
        differences = paired_statistics.paired(
            difference_PM,
            response_table.stories(table, prompts),
            config.n_resamples,
            config.confidence,
            rng,
            seed_mean_SM,
            None if study is None else study_spread(study, list(wide)),
        )
    except ValueError as error:
        raise ValueError(f"{', '.join(wide)}: {error}") from error
    result = {}
    for m, metric in enumerate(wide):
        by_policy, difference_P = response_table.per_prompt(table, metric), difference_PM[:, m]
        result[metric] = {
            "prompts": len(prompts),
            "means": {policy: float(values.mean()) for policy, values in by_policy.items()},
            "interquartile_means": {
                policy: effects.interquartile_mean(values.to_numpy()) for policy, values in by_policy.items()
            },
            "difference": float(differences.mean[m]),
            "low": float(differences.low[m]),
            "high": float(differences.high[m]),
            "new_low": _or_none(differences.new_low[m]),
            "new_high": _or_none(differences.new_high[m]),
            "between_training_sd": _or_none(differences.between_sd[m]),
            "standard_error": float(differences.standard_error[m]),
            "by_seed": {str(seed): float(seed_mean_SM[s, m]) for s, seed in enumerate(seeds)},
            "p_sign_flip": float(differences.p_sign_flip[m]),
            "p_wilcoxon": float(differences.p_wilcoxon[m]),
            "sd_of_differences": float(difference_P.std(ddof=1)),
            "d_z": effects.d_z(difference_P),
            "cliffs_delta": effects.cliffs_delta(starting_PM[:, m], tuned_SPM.mean(axis=0)[:, m]),
            "probability_of_improvement": effects.probability_of_improvement(difference_P),
            "interquartile_mean_difference": effects.interquartile_mean(difference_P),
        }
    return result


def study_spread(study: Analysis, metrics: Sequence[str]) -> bootstrap.Spread:
    """Return the spread between the trainings of a study; NaN for a metric that it lacks."""
    known = trainings.known(study)
    sd_M = [known[metric]["between_training_sd"] if metric in known else None for metric in metrics]
    return bootstrap.Spread(np.array(sd_M, dtype=float), len(study["training_seeds"]))


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def similarity_noninferiority(
    table: pd.DataFrame, comparison: Comparison, config: params.AnalyseRewards, rng: np.random.Generator
) -> Noninferiority:
    """Test whether the tuned policy loses `similarity_margin` or more of raw semantic similarity.

    Args:
        comparison: That of semantic_similarity_raw, by `compare`.
    """
    wide = response_table.per_prompt(table, "semantic_similarity_raw")
    excess_P = (wide["tuned"] - wide[response_table.starting_policy(table)]).to_numpy() + config.similarity_margin
    data = bootstrap.clusters(excess_P[:, None], response_table.stories(table, wide.index))
    p = float(paired_statistics.sign_flip_p(data.sums, config.n_resamples, rng, one_sided=True)[0])
    verdict = effects.noninferiority(*deciding_interval(comparison), p, config.similarity_margin, config.confidence)
    return {"margin": config.similarity_margin, "p": p, "verdict": verdict}
