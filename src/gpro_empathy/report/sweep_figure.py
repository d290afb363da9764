"""The figure of a sweep: what tuning changes under each setting."""

from collections.abc import Mapping

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpro_empathy.analysis import metric_names
from gpro_empathy.report import sweeps


def changes(summary: Mapping, width: float, palette: str) -> Figure:
    """Draw each setting's change with its interval, and thin that for a new training.

    There is one panel for each metric that the table shows too. Small bars are training seeds; a
    filled point differs from the reference, which is a square. A setting of which no run has
    finished has a row without a point.
    """
    arms, shown = summary["arms"], sweeps.shown(summary)
    figure = Figure(figsize=(width, 0.24 * len(arms) + 0.75))
    axes = figure.subplots(1, max(len(shown), 1), sharey=True, squeeze=False)[0]
    colour = sns.color_palette(palette, 3)[2]
    for ax, metric in zip(axes, shown, strict=False):
        for row, arm in enumerate(arms):
            if metric in arm["change"]:
                _draw(ax, row, arm, metric, row == summary["reference"], colour)
        ax.axvline(0, color="0.4", linewidth=0.8, zorder=0)
        ax.grid(axis="x", color="0.9", linewidth=0.6)
        ax.set_title(metric_names.short_label(metric), loc="left")
        ax.set_xlabel(_unit(metric))
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
    if not shown:
        axes[0].annotate("no run has finished", (0.5, 0.5), xycoords="axes fraction", ha="center", color="0.4")
    axes[0].set_yticks(range(len(arms)), [arm["label"] for arm in arms])
    axes[0].set_ylim(len(arms) - 0.4, -0.6)
    return figure


def _draw(ax: Axes, row: int, arm: Mapping, metric: str, is_reference: bool, colour: tuple) -> None:
    change = arm["change"][metric]
    if change["low"] is not None:
        ends = [change["low"], change["high"]]
        ax.plot(ends, [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
    if change["new_low"] is not None:
        ends = [change["new_low"], change["new_high"]]
        ax.plot(ends, [row, row], "|-", color=colour, linewidth=0.6, markersize=4, zorder=1)
    seeds = list(change["by_seed"].values())
    if len(seeds) > 1:
        ax.plot(seeds, [row + 0.25] * len(seeds), "|", color="0.35", markersize=4)
    differs = arm["against"].get(metric, {}).get("verdict") in ("higher", "lower")
    face = colour if differs else "white"
    ax.plot(change["estimate"], row, "s" if is_reference else "o", color=colour, markerfacecolor=face, markersize=5)


def _unit(metric: str) -> str:
    name = metric_names.label(metric)
    return f"change{metric_names.label_with_unit(metric).removeprefix(name)}"
