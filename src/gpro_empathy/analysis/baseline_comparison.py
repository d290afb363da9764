"""What changed against the baseline: paired differences of the tuned policies, prompt by prompt."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gpro_empathy import params
from gpro_empathy.analysis import (
    baseline_change,
    baseline_differences,
    bootstrap,
    effects,
    paired_comparison,
    response_table,
)
from gpro_empathy.analysis.baseline import Run
from gpro_empathy.analysis.baseline_results import Comparison, MetricChange
from gpro_empathy.analysis.results import Analysis


def compare(
    baseline: Run | None, run: Run, config: params.AnalyseRewards, study: Analysis | None, rng: np.random.Generator
) -> Comparison | dict[str, str]:
    """Compare a run with the baseline on the declared metrics.

    Args:
        study: The analysis of several trainings, from which the spread between trainings is taken
            if one of the runs has a single training.

    Raises:
        ValueError: If there are fewer than two stories.
    """
    if baseline is None:
        return {"state": "none"}
    if same(baseline, run, config.metrics):
        return {"state": "same"}
    if reason := baseline_differences.refusal(baseline, run, config.metrics):
        return {"state": "refused", "reason": reason}
    differs = baseline_differences.between(baseline, run)
    left_out = baseline_differences.other_measures(differs, config.metrics)
    order = [metric for metric in config.metrics if metric not in left_out]
    if not order:
        settings = ", ".join(sorted(set().union(*left_out.values())))
        reason = f"Every declared metric is another measure with other {settings}. {baseline_differences.REMEDY}"
        return {"state": "refused", "reason": reason}
    seeds = {
        name: len(baseline_differences.training_seeds(one)) for name, one in (("baseline", baseline), ("run", run))
    }
    conditions = baseline_differences.study_conditions(study, (baseline, run)) if study else []
    used = study if study and not conditions and min(seeds.values()) == 1 else None
    changes = {metric: change(baseline, run, metric, config, used, rng, comparisons=len(order)) for metric in order}
    return {
        "state": "compared",
        "commit": baseline.provenance["commit"],
        "kind": baseline_differences.kind(differs),
        "differs": differs,
        "trainings": seeds,
        "spread": {
            "runs": max(seeds.values()) > 1,
            "study": len(used["training_seeds"]) if used else 0,
            "other_conditions": conditions,
        },
        "confidence": config.confidence,
        "left_out": left_out,
        "metric_order": order,
        "metrics": _judged(changes, config.confidence),
    }


def same(baseline: Run, run: Run, metrics: Sequence[str]) -> bool:
    """Say whether two runs have the same scores of these metrics, to the last digit."""
    columns = ["prompt_id", "model", "seed", *metrics]
    old, new = (
        one.scores.reindex(columns=columns).sort_values(columns[:3], ignore_index=True) for one in (baseline, run)
    )
    prompts = baseline.provenance["prompts_sha256"] == run.provenance["prompts_sha256"]
    return prompts and set(metrics) <= set(baseline.scores.columns) and old.equals(new)


def change(
    baseline: Run,
    run: Run,
    metric: str,
    config: params.AnalyseRewards,
    study: Analysis | None,
    rng: np.random.Generator,
    *,
    comparisons: int,
) -> MetricChange:
    """Estimate the change of one metric; its adjusted p and verdict follow from all of them.

    Raises:
        ValueError: If there are fewer than two stories.
    """
    old, new = (by_seed(one, metric) for one in (baseline, run))
    story_P = run.scores.groupby("prompt_id")["story"].first().loc[new.index].to_numpy()
    known = [bootstrap.seed_spread(wide.mean().to_numpy()[:, None]) for wide in (old, new) if wide.shape[1] > 1]
    if study is not None and not np.isnan((spread := paired_comparison.study_spread(study, [metric])).sd_M[0]):
        known.append(spread)
    found = baseline_change.estimate(
        old.to_numpy().T,
        new.to_numpy().T,
        story_P,
        baseline_change.pooled(known),
        config,
        rng,
        comparisons=comparisons,
    )
    starts = [_start_mean(one, metric) for one in (baseline, run)]
    return {**found, "start": starts[1] - starts[0]}


def by_seed(run: Run, metric: str) -> pd.DataFrame:
    """Return a metric of the tuned policy, one row a prompt, one column a training seed."""
    tuned = run.scores[(run.scores["model"] == "tuned") & run.scores[metric].notna()]
    return tuned.pivot(index="prompt_id", columns="seed", values=metric).sort_index()


def _start_mean(run: Run, metric: str) -> float:
    start = response_table.starting_policy(run.scores)
    return float(run.scores.loc[run.scores["model"] == start, metric].mean())


def _judged(changes: dict[str, MetricChange], confidence: float) -> dict[str, MetricChange]:
    adjusted = effects.holm(np.array([one["p"] for one in changes.values()]))
    return {
        metric: {**one, "p_holm": float(p), "verdict": baseline_change.verdict(one, float(p), confidence, metric)}
        for (metric, one), p in zip(changes.items(), adjusted, strict=True)
    }
