"""Draw the figures of the report.

Reads   reports/reward_analysis.json       comparison of the policies
        reports/ratings.json               what raters found, and how the scores go with it
        reports/scorer.json                reliability of both scorers
        reports/scorer_predictions.csv     labels and predictions of the test split
        reports/training/log.csv           one row per training seed and GRPO step
        reports/training/groups.csv        raw scores of every training sample
        data/rollouts/rollouts.jsonl       one line per (prompt, model, sample)
        reports/baseline_comparison.json   what differs from the baseline
Writes  reports/figures/<name>.pdf, .png   for the paper and for the web
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from gpro_empathy import csv_table, entry_point, files, params
from gpro_empathy.analysis import response_table
from gpro_empathy.analysis.results import Analysis, RunRatings
from gpro_empathy.report import baseline_section, baseline_tables, figure_files, figures, rating_verdicts

ANALYSIS = Path("reports/reward_analysis.json")
RATINGS = Path("reports/ratings.json")
SCORER = Path("reports/scorer.json")
PREDICTIONS = Path("reports/scorer_predictions.csv")
LOG = Path("reports/training/log.csv")
GROUPS = Path("reports/training/groups.csv")
ROLLOUTS = Path("data/rollouts/rollouts.jsonl")
COMPARISON = Path("reports/baseline_comparison.json")
FIGURES = Path("reports/figures")


def run(config: params.DrawFigures, root: Path = Path()) -> None:
    """Draw all figures from the files below `root`; the folder is replaced as a whole.

    Raises:
        UserError: If an input is missing or malformed, or the palette is unknown.
    """
    analysis, scorer = files.read_json(root / ANALYSIS), files.read_json(root / SCORER)
    ratings, comparison = files.read_json(root / RATINGS), files.read_json(root / COMPARISON)
    log = csv_table.read(root / LOG, ["seed", "step", *(column for column, _ in figures.CURVES)])
    groups = csv_table.read(root / GROUPS, ["seed", "step", "group", *figures.BANDED])
    predictions = csv_table.read(root / PREDICTIONS, ["label_empathy", "predicted_empathy", "audit_empathy"])
    try:
        responses = response_table.responses(files.read_jsonl(root / ROLLOUTS))
    except ValueError as error:
        raise files.UserError(f"{ROLLOUTS}: {error}") from error
    with figures.style(config.font_size):
        try:
            drawn = draw(analysis, ratings, log, groups, scorer, predictions, responses, config)
            drawn |= against_baseline(comparison, config)
        except ValueError as error:
            if "palette" not in str(error):
                raise
            raise files.UserError(f"params.yaml: draw_figures.palette: {config.palette!r} is no palette") from error
        with files.atomic_path(root / FIGURES) as folder:
            folder.mkdir()
            for name, figure in drawn.items():
                figure_files.save(figure, folder / name)


def draw(
    analysis: Analysis,
    ratings: RunRatings,
    log: pd.DataFrame,
    groups: pd.DataFrame,
    scorer: dict,
    predictions: pd.DataFrame,
    responses: pd.DataFrame,
    config: params.DrawFigures,
) -> dict[str, Figure]:
    """Return every figure of the report by its file name."""
    look = {"width": config.width, "palette": config.palette}
    policies, start = analysis["policies"], analysis["starting_policy"]
    reliability = {role: scorer[role]["calibration"]["reliability"] for role in ("reward", "audit")}
    rated = rating_verdicts.leading(ratings, "single")
    changes = {}
    for metric in ("empathy_raw", "audit_empathy_raw"):
        wide = response_table.per_prompt(responses, metric)
        changes[metric] = wide["tuned"] - wide[start]
    return {
        "training_curves": figures.training_curves(log, groups, **look),
        "paired_differences": figures.paired_differences(analysis["metrics"], analysis["metric_order"], **look),
        "reward_distributions": figures.reward_distributions(responses, policies, **look),
        "empathy_by_intensity": figures.empathy_by_intensity(analysis["by_intensity"], policies, **look),
        "scorer_reliability": figures.scorer_reliability(predictions, reliability, **look),
        "score_validity": figures.score_validity(rated["validity"] if rated else {}, **look),
        "reward_against_audit": figures.reward_against_held_out(pd.DataFrame(changes), **look),
        "temperature_effect": figures.temperature_effect(analysis["temperature"], **look),
    }


def against_baseline(comparison: dict, config: params.DrawFigures) -> dict[str, Figure]:
    """Return the figure of the changes against the baseline, if the run was compared with one."""
    if not baseline_section.is_compared(comparison):
        return {}
    changes = baseline_tables.drawn(comparison)
    drawn = figures.paired_differences(changes, comparison["metric_order"], config.width, config.palette)
    return {"baseline_differences": drawn}


def main() -> None:
    """Run the stage with the settings of params.yaml."""
    run(params.load(params.DrawFigures))


if __name__ == "__main__":
    entry_point.run_stage(main)
