"""Compare the rewards of the starting policy and the tuned one.

Reads   data/rollouts/rollouts.jsonl       one line per (prompt, model, sample)
        reports/training/groups.csv        raw scores of every training sample
        reports/training/reference.json    frozen statistics of the starting policy
        reports/seeds/reward_analysis.json the study of several trainings, where there is one: the
                                           spread between trainings of a run with one, if made
                                           under the same conditions
Writes  reports/reward_analysis.json       every number that the report quotes about the comparison
        reports/metrics.json               the few of them that tell experiments apart at a glance
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gpro_empathy import calibration, csv_table, entry_point, files, params
from gpro_empathy.analysis import (
    by_intensity,
    paired_comparison,
    response_table,
    reward_hacking,
    temperature_effect,
    templates,
    trainings,
)
from gpro_empathy.analysis.results import Analysis, RolloutAnalysis

ROLLOUTS = Path("data/rollouts/rollouts.jsonl")
GROUPS = Path("reports/training/groups.csv")
REFERENCE = Path("reports/training/reference.json")
STUDY = Path("reports/seeds/reward_analysis.json")
ANALYSIS = Path("reports/reward_analysis.json")
METRICS = Path("reports/metrics.json")
# What a training and its rollouts depend on, beside the terms of the reward and GRPO's settings.
CONDITIONS = (params.Policy, params.Prepare, params.TrainScorer, params.TrainReader, params.WarmStart, params.Rollout)
# What the analysis of the rollouts is told by while it runs.
PARTS = ("declared metrics", "intensity levels", "audit", "templates")


def run(
    config: params.AnalyseRewards,
    rewards: params.Rewards,
    grpo: params.TrainGrpo,
    root: Path = Path(),
    others: Sequence[params.Section] = (),
) -> None:
    """Analyse the rollouts below `root` and write the numbers.

    Args:
        others: The other sections that a training and its rollouts depend on.

    Raises:
        UserError: If an input is missing or does not allow the comparison.
    """
    for metric in paired_comparison.HEADLINE:
        if metric not in config.metrics:
            raise files.UserError(f"params.yaml: analyse_rewards.metrics must name {metric}; the report rests on it")
    if repeated := [metric for metric in config.metrics if config.metrics.count(metric) > 1]:
        # It would count twice in the correction of all p-values.
        raise files.UserError(f"params.yaml: analyse_rewards.metrics names {repeated[0]} more than once; name it once")
    rng = np.random.default_rng(config.seed)
    rows = files.read_jsonl(root / ROLLOUTS)
    # A run of several trainings has a spread of its own.
    study = trainings.read(root / STUDY) if len(grpo.seeds) == 1 else None
    conditions = trainings.conditions(
        [rewards, grpo, *others], {row.get("prompt_id"): row.get("prompt") for row in rows}
    )
    source = trainings.source(grpo.seeds, conditions, study)
    # Trainings of another kind may lie apart by more or less than those of this one.
    of_this_kind = None if source["other_conditions"] else study
    try:
        of_rollouts = analyse(rows, config, rewards.weights, rng, of_this_kind)
    except ValueError as error:
        raise files.UserError(f"{ROLLOUTS}: {error}") from error
    groups = csv_table.read(root / GROUPS, ["seed", "step", "group", "sample"])
    reference = calibration.stored_statistics(files.read_json(root / REFERENCE))
    try:
        temperature = temperature_effect.effect(groups, reference, rewards, grpo.scale_rewards)
    except ValueError as error:
        raise files.UserError(f"{GROUPS}: {error}") from error
    analysis: Analysis = {
        **of_rollouts,
        "conditions": conditions,
        "between_trainings": source,
        "temperature": temperature,
    }
    files.write_json(root / ANALYSIS, analysis)
    files.write_json(root / METRICS, glance(analysis))


def analyse(
    rows: list[dict],
    config: params.AnalyseRewards,
    weights: Mapping[str, float],
    rng: np.random.Generator,
    study: Analysis | None = None,
) -> RolloutAnalysis:
    """Return all numbers from the rollouts of a policy trained on rewards of these weights.

    Args:
        study: The analysis of several trainings, which a run of one takes their spread from.

    Raises:
        ValueError: If the rollouts do not allow the comparison, naming prompt and column, or have
            no column of numbers for a metric.
    """
    started = time.perf_counter()
    table = response_table.responses(rows)
    _check_metrics(table, config.metrics)
    metrics = paired_comparison.compare(table, config.metrics, config, rng, study)
    similarity = paired_comparison.similarity_noninferiority(table, metrics["semantic_similarity_raw"], config, rng)
    tell("declared metrics", started)
    levels = by_intensity.by_intensity(table, config.metrics, config, rng)
    tell("intensity levels", started)
    audited = reward_hacking.audit(table, metrics, weights, config, rng, study)
    tell("audit", started)
    by_template = templates.audit(table, config.seed)
    tell("templates", started)
    return {
        "prompts": int(table["prompt_id"].nunique()),
        "conversations": int(table["conversation"].nunique()),
        "stories": int(table["story"].nunique()),
        "responses": len(table),
        "training_seeds": response_table.training_seeds(table),
        "policies": response_table.policies(table),
        "starting_policy": response_table.starting_policy(table),
        "confidence": config.confidence,
        "n_resamples": config.n_resamples,
        "metric_order": list(config.metrics),
        "metrics": metrics,
        "similarity_noninferiority": similarity,
        "intensity_agreement": by_intensity.stated_agreement(table),
        "by_intensity": levels,
        "audit": {**audited, "templates": by_template},
    }


def _check_metrics(table: pd.DataFrame, metrics: Sequence[str]) -> None:
    numbers = sorted(name for name in table.columns if pd.api.types.is_numeric_dtype(table[name]))
    if unknown := [metric for metric in metrics if metric not in numbers]:
        raise ValueError(
            f"no column {unknown[0]!r} of numbers, which analyse_rewards.metrics in params.yaml names; there are "
            f"{', '.join(numbers)}"
        )


def tell(part: str, started: float) -> None:
    """Print that a part is done, and the time left if the parts take equally long."""
    done = PARTS.index(part) + 1
    left = (time.perf_counter() - started) / done * (len(PARTS) - done)
    print(f"analyse_rewards: {part} compared, {done}/{len(PARTS)}, about {left:.0f} s left", flush=True)


def glance(analysis: Analysis) -> dict[str, dict[str, float]]:
    """Return both policies' means, their difference and its adjusted p, by declared metric."""
    start = analysis["starting_policy"]
    return {
        name: {
            "start": comparison["means"][start],
            "tuned": comparison["means"]["tuned"],
            "difference": comparison["difference"],
            "p_holm": comparison["p_holm"],
        }
        for name, comparison in analysis["metrics"].items()
    }


def main() -> None:
    """Run the stage with the settings of params.yaml."""
    others = [params.load(section) for section in CONDITIONS]
    run(params.load(params.AnalyseRewards), params.load(params.Rewards), params.load(params.TrainGrpo), others=others)


if __name__ == "__main__":
    entry_point.run_stage(main)
