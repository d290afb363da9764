"""The comparison by the intensity of the user's turn: does the response grow with the need?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gpro_empathy import params
from gpro_empathy.analysis import bootstrap, paired_statistics, response_table
from gpro_empathy.analysis.results import ByIntensity, ByLevel, LevelMean, StatedAgreement


def by_intensity(
    table: pd.DataFrame, metrics: Sequence[str], config: params.AnalyseRewards, rng: np.random.Generator
) -> ByIntensity:
    """Estimate each metric's means and change at each intensity level, and test both for a trend.

    Returns `levels` (level, prompts, conversations, stories), `unlabelled_prompts`, and for each
    metric `values`, one entry a policy and one for the `change`: the estimates in the order of the
    levels and Spearman's correlation with the level. Intervals are over stories; a level of fewer
    than bootstrap.FEWEST_STORIES has none.

    Raises:
        ValueError: As `response_table.per_prompt`.
    """
    level = table.groupby("prompt_id")["level"].first().sort_index().dropna().astype(int)
    columns, names = _columns(table, metrics, level.index)
    conversation = table.groupby("prompt_id")["conversation"].first().loc[level.index].to_numpy()
    story = response_table.stories(table, level.index)
    levels, estimates = [], []
    for value in sorted(level.unique()):
        at_level = (level == value).to_numpy()
        levels.append(
            {
                "level": int(value),
                "prompts": int(at_level.sum()),
                "conversations": len(np.unique(conversation[at_level])),
                "stories": len(np.unique(story[at_level])),
            }
        )
        estimates.append(_estimate(columns[at_level], story[at_level], config, rng))
    n_columns = columns.shape[1]
    correlation_M, p_M = np.full(n_columns, np.nan), np.ones(n_columns)
    if len(np.unique(story)) >= 2:
        correlation_M, p_M = paired_statistics.trend(level.to_numpy(), columns, story, config.n_resamples, rng)
    values: dict[str, dict[str, ByLevel]] = {metric: {} for metric in metrics}
    for m, (metric, what) in enumerate(names):
        spearman = None if np.isnan(correlation_M[m]) else float(correlation_M[m])
        values[metric][what] = {
            "levels": [estimate[m] for estimate in estimates],
            "trend": {"spearman": spearman, "p": float(p_M[m])},
        }
    unlabelled = int(table["prompt_id"].nunique() - len(level))
    return {"levels": levels, "values": values, "unlabelled_prompts": unlabelled}


def _columns(table: pd.DataFrame, metrics: Sequence[str], prompts: pd.Index) -> tuple[np.ndarray, list[tuple]]:
    """Return each policy's scores in each metric, and their change, as columns over prompts."""
    columns, names = [], []
    start = response_table.starting_policy(table)
    for metric in metrics:
        wide = response_table.per_prompt(table, metric).loc[prompts]
        wide = wide.assign(change=wide["tuned"] - wide[start])
        columns.append(wide.to_numpy())
        names.extend((metric, what) for what in wide)
    return np.concatenate(columns, axis=1), names


def _estimate(
    columns: np.ndarray, story: np.ndarray, config: params.AnalyseRewards, rng: np.random.Generator
) -> list[LevelMean]:
    if len(np.unique(story)) < bootstrap.FEWEST_STORIES:
        return [{"mean": float(mean), "low": None, "high": None} for mean in columns.mean(axis=0)]
    data = bootstrap.clusters(columns, story)
    boot_RM = bootstrap.bootstrap_means(data, config.n_resamples, rng)
    low_M, high_M = bootstrap.bca_interval(data, boot_RM, config.confidence)
    return [
        {"mean": float(mean), "low": float(low), "high": float(high)}
        for mean, low, high in zip(data.means, low_M, high_M, strict=True)
    ]


def stated_agreement(table: pd.DataFrame) -> dict[str, StatedAgreement]:
    """Compare each response's stated intensity with the user turn's rounded emotion label.

    Responses without a stated intensity are counted as `missing`; shares are None if none is left.
    """
    result = {}
    labelled = table[table["level"].notna()]
    for policy in response_table.policies(table):
        rows = labelled[labelled["model"] == policy]
        stated = rows[rows["stated_intensity"].notna()]
        distance = (stated["stated_intensity"] - stated["level"]).abs()
        result[policy] = {
            "n": len(stated),
            "missing": len(rows) - len(stated),
            "exact": float((distance == 0).mean()) if len(stated) else None,
            "within_one": float((distance <= 1).mean()) if len(stated) else None,
        }
    return result
