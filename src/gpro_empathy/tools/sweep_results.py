"""Write what a sweep found: results.csv, summary.json, table.tex, figure.pdf and figure.png."""

from collections.abc import Mapping
from pathlib import Path

from gpro_empathy import csv_table, files, params
from gpro_empathy.analysis import trainings
from gpro_empathy.report import figure_files, figures, sweep_figure, sweeps
from gpro_empathy.tools import sweep_estimates, sweep_folder, sweep_grid

COLUMNS = ("seed", "status", "reason", "metric", "start", "tuned", "change")


def metrics(config: params.Params) -> list[str]:
    """Return the metrics that are kept of a run: the declared ones, and the held-out scorer's."""
    declared = config.analyse_rewards.metrics
    return [*declared, *([] if trainings.HELD_OUT in declared else [trainings.HELD_OUT])]


def write(sweep: sweep_folder.Sweep, config: params.Params, root: Path) -> None:
    """Write all of it anew from the rows of the runs."""
    folder, ended = root / sweep_folder.place(sweep.name), sweep_folder.ended(sweep, root)
    files.write_text(folder / "results.csv", csv_table.text([*sweep.grid, *COLUMNS], table(sweep, ended)))
    found = sweep_estimates.summary(sweep, ended, config.analyse_rewards, metrics(config))
    files.write_text(folder / "table.tex", sweeps.latex_table(found))
    draw(found, config.draw_figures, folder)
    # The last, as the report takes in what has a summary.
    files.write_json(folder / sweeps.SUMMARY, found)


def draw(summary: Mapping, look: params.DrawFigures, folder: Path) -> None:
    """Draw the figure of a sweep."""
    with figures.style(look.font_size):
        figure_files.save(sweep_figure.changes(summary, look.width, look.palette), folder / "figure")


def table(sweep: sweep_folder.Sweep, ended: Mapping[str, dict]) -> list[dict]:
    """Return a row for each run and metric; one for a run that failed or is missing."""
    rows = []
    for setting, seed in sweep.runs():
        row = ended.get(sweep_folder.key(setting, seed))
        told = {key: sweep_grid.text(value) for key, value in setting.items()} | {"seed": seed}
        if row is None or row["failed"] is not None:
            rows.append(told | ({"status": "failed", "reason": row["failed"]} if row else {"status": "missing"}))
            continue
        for metric, one in row["metrics"].items():
            scores = {"start": one["start"], "tuned": one["tuned"], "change": one["tuned"] - one["start"]}
            rows.append(told | {"status": "done", "metric": metric} | scores)
    return rows
