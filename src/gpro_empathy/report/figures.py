"""The figures of the report, each a function from numbers to a matplotlib Figure.

No function here reads or writes files or works out statistics.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpro_empathy.analysis import metric_names
from gpro_empathy.analysis.paired_comparison import deciding_interval
from gpro_empathy.analysis.results import ByIntensity, Comparison, ScoreValidity, TemperatureEffect

# Told apart by shape as well as by colour, so that the figures can be read in grey.
MARKERS = {"base": "o", "warm_start": "s", "tuned": "^"}
DASHES = {"base": (0, (1, 1)), "warm_start": (0, (4, 2)), "tuned": "solid"}
CURVES = (
    ("empathy_raw", "empathy (label units)"),
    ("semantic_similarity_raw", "semantic similarity"),
    ("well_formed", "well-formed share"),
    ("completion_tokens", "completion (tokens)"),
    ("entropy", "entropy (nats per token)"),
    ("grad_norm", "gradient norm"),
)


# Curves behind which the spread over the prompts of a step is drawn.
BANDED = frozenset({"empathy_raw", "semantic_similarity_raw"})
MODES = {
    "batch": ("o", "solid", "step's batch"),
    "prompt": ("^", (0, (1, 1)), "one prompt alone"),
    "reference": ("s", (0, (4, 2)), "frozen reference"),
}


def style(font_size: float) -> AbstractContextManager:
    """Return the context in which the figures are made and saved.

    It sets small type and thin axes, and embeds fonts.
    """
    settings = {
        **sns.axes_style("ticks"),
        "font.size": font_size,
        "axes.labelsize": font_size,
        "axes.titlesize": font_size,
        "xtick.labelsize": font_size - 1,
        "ytick.labelsize": font_size - 1,
        "legend.fontsize": font_size - 1,
        "legend.frameon": False,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "pdf.fonttype": 42,
        "svg.hashsalt": "fixed",
        "figure.constrained_layout.use": True,
    }
    return mpl.rc_context(settings)


def _colours(palette: str) -> dict[str, tuple]:
    return dict(zip(metric_names.POLICIES, sns.color_palette(palette, 3), strict=True))


def training_curves(log: pd.DataFrame, groups: pd.DataFrame, width: float, palette: str, window: int = 5) -> Figure:
    """Draw six columns of the training log against the step, each with its centred moving mean.

    Each training seed has a thin line; the thick one is the moving mean of their mean. Behind the
    raw rewards, a band goes from the lowest to the highest mean of a prompt's group in the step.
    """
    figure = Figure(figsize=(width, 0.36 * width))
    axes = figure.subplots(2, 3, sharex=True)
    colour = sns.color_palette(palette, 1)[0]
    by_prompt = groups.groupby(["seed", "step", "group"]).mean(numeric_only=True).groupby("step")
    for ax, (column, label) in zip(axes.flat, CURVES, strict=True):
        if column in BANDED:
            low, high = by_prompt[column].min(), by_prompt[column].max()
            ax.fill_between(low.index, low, high, color="0.9", linewidth=0, zorder=0)
        for _, run in log.groupby("seed"):
            ax.plot(run["step"], run[column].astype(float), color="0.6", linewidth=0.7, marker=".", markersize=2.5)
        mean = log.astype({column: float}).groupby("step")[column].mean()
        smooth = mean.rolling(window, center=True, min_periods=1).mean()
        ax.plot(smooth.index, smooth, color=colour, linewidth=1.6)
        ax.set_title(label, loc="left")
        if column == "well_formed":
            ax.set_ylim(-0.05, 1.05)
    for ax in axes[1]:
        ax.set_xlabel("step")
        ax.xaxis.get_major_locator().set_params(integer=True)
    return figure


def paired_differences(metrics: Mapping[str, Comparison], order: Sequence[str], width: float, palette: str) -> Figure:
    """Draw each metric's mean difference and its interval, and thin that for a new training.

    All are in standard deviations of the differences. Several training seeds are small bars beside
    the mean.
    """
    figure = Figure(figsize=(0.56 * width, 0.19 * len(order) + 0.6))
    ax = figure.subplots()
    colour = _colours(palette)["tuned"]
    for row, metric in enumerate(order):
        comparison = metrics[metric]
        sd = comparison["sd_of_differences"]
        if sd <= 1e-12:
            ax.annotate(
                "all differences are equal", (0.02, row), xycoords=("axes fraction", "data"), va="center", color="0.4"
            )
            continue
        centre, low, high = (comparison[key] / sd for key in ("difference", "low", "high"))
        ax.plot([low, high], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
        if len(comparison["by_seed"]) > 1:
            seeds = np.array(list(comparison["by_seed"].values())) / sd
            ax.plot(seeds, np.full(len(seeds), row + 0.22), "|", color="0.35", markersize=5)
        ends = deciding_interval(comparison)
        clear = ends[0] > 0 or ends[1] < 0
        ax.plot(centre, row, "o", color=colour, markerfacecolor=colour if clear else "white", markersize=5)
        if comparison["new_low"] is not None:
            ax.plot(np.array(ends) / sd, [row, row], "|-", color=colour, linewidth=0.6, markersize=4, zorder=1)
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_yticks(range(len(order)), [metric_names.short_label(metric) for metric in order])
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlabel("difference (standard deviations)")
    ax.grid(axis="x", color="0.9", linewidth=0.6)
    return figure


def score_validity(validity: Mapping[str, ScoreValidity], width: float, palette: str) -> Figure:
    """Draw how well each score tells sensible answers, and empathetic ones, from others: its AUC.

    The scores that are highest for sensible answers come first, and last those that only empathetic
    ones are compared by; a score that tells nothing lies at one half.

    Args:
        validity: By score; empty where no single answer was rated.
    """
    shown = {"sensible": ("o", "tuned", -0.13), "empathetic": ("^", "base", 0.13)}
    known = {name: one for name, one in validity.items() if any(one[what]["estimate"] is not None for what in shown)}

    def place(name: str) -> tuple:
        auc = known[name]["sensible"]["estimate"]
        return auc is None, -(auc or 0), name

    order = sorted(known, key=place)
    figure = Figure(figsize=(0.56 * width, 0.19 * max(len(order), 4) + 0.7))
    ax = figure.subplots()
    colours = _colours(palette)
    for what, (marker, policy, shift) in shown.items():
        colour = colours[policy]
        rows = [row for row, name in enumerate(order) if known[name][what]["estimate"] is not None]
        for row in rows:
            found = known[order[row]][what]
            if found["low"] is not None:
                ends = [found["low"], found["high"]]
                ax.plot(ends, [row + shift] * 2, color=colour, linewidth=1.2, solid_capstyle="butt")
        values = [known[order[row]][what]["estimate"] for row in rows]
        ax.plot(values, np.array(rows) + shift, marker, color=colour, markersize=4, linestyle="none", label=what)
    if not order:
        why = "no AUC is defined" if validity else "no ratings of single answers"
        ax.annotate(why, (0.5, 0.5), xycoords="axes fraction", ha="center", color="0.4")
        ax.set_axis_off()
        return figure
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    ax.axvline(0.5, color="0.4", linewidth=0.8)
    ax.set_xlim(0, 1)
    ax.set_yticks(range(len(order)), [metric_names.short_label(name) for name in order])
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlabel("AUC")
    ax.grid(axis="x", color="0.9", linewidth=0.6)
    return figure


def reward_distributions(responses: pd.DataFrame, policies: Sequence[str], width: float, palette: str) -> Figure:
    """Draw the raw scores of all responses, policy by policy, as boxes over the single points."""
    figure = Figure(figsize=(0.41 * width, 0.37 * width))
    colours = _colours(palette)
    for ax, metric in zip(figure.subplots(2, 1, sharex=True), ("empathy_raw", "semantic_similarity_raw"), strict=True):
        for place, policy in enumerate(policies):
            values = responses.loc[responses["model"] == policy, metric].to_numpy(dtype=float)
            # A fixed spread in place of random jitter: the golden ratio fills the width evenly.
            jitter = (np.arange(len(values)) * 0.6180339887 % 1 - 0.5) * 0.5
            ax.plot(place + jitter, values, ".", color=colours[policy], markersize=3, alpha=0.6, zorder=1)
            line = {"color": "0.15", "linewidth": 1.0}
            ax.boxplot(
                values,
                positions=[place],
                widths=0.55,
                showfliers=False,
                medianprops={**line, "linewidth": 1.8},
                boxprops=line,
                whiskerprops=line,
                capprops=line,
                manage_ticks=False,
                zorder=2,
            )
        ax.set_xticks(range(len(policies)), [metric_names.POLICY_LABELS[policy] for policy in policies])
        ax.set_title(_short_label(metric), loc="left")
    return figure


def empathy_by_intensity(intensity: ByIntensity, policies: Sequence[str], width: float, palette: str) -> Figure:
    """Draw the mean raw empathy of each policy by the intensity of the user's turn.

    Intervals are drawn where there are any.

    Args:
        intensity: What by_intensity.by_intensity returns.
    """
    figure = Figure(figsize=(0.49 * width, 0.38 * width))
    ax = figure.subplots()
    colours = _colours(palette)
    places = np.array([row["level"] for row in intensity["levels"]], dtype=float)
    for number, policy in enumerate(policies):
        rows = intensity["values"]["empathy_raw"][policy]["levels"]
        mean, low, high = (
            np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=float)
            for key in ("mean", "low", "high")
        )
        ax.errorbar(
            places + 0.1 * (number - (len(policies) - 1) / 2),
            mean,
            yerr=[mean - low, high - mean],
            marker=MARKERS[policy],
            markersize=4.5,
            linestyle=DASHES[policy],
            linewidth=1.2,
            elinewidth=0.9,
            color=colours[policy],
            label=metric_names.POLICY_LABELS[policy],
        )
    ax.set_xticks(places, [f"{row['level']}\nn = {row['prompts']}" for row in intensity["levels"]])
    ax.margins(x=0.08)
    ax.set_xlabel("intensity of the user's turn")
    ax.set_ylabel(_short_label("empathy_raw"))
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=len(policies), columnspacing=0.8, handletextpad=0.4)
    return figure


def scorer_reliability(
    predictions: pd.DataFrame, reliability: Mapping[str, Sequence[Mapping]], width: float, palette: str
) -> Figure:
    """Draw labelled against predicted empathy on test turns, for both scorers.

    The means of bins are drawn too, with their intervals.

    Args:
        reliability: For `reward` and `audit` the bins of turns by their prediction.
    """
    figure = Figure(figsize=(0.62 * width, 0.33 * width))
    colour = sns.color_palette(palette, 1)[0]
    panels = {"reward": ("predicted_empathy", "reward's scorer"), "audit": ("audit_empathy", "held-out scorer")}
    kept = predictions.dropna(subset=["label_empathy"])
    for ax, (role, (column, title)) in zip(
        figure.subplots(1, 2, sharey=True, sharex=True), panels.items(), strict=True
    ):
        ax.plot(kept[column], kept["label_empathy"], ".", color="0.7", markersize=3)
        bins = reliability[role]
        ax.plot(
            [b["predicted"] for b in bins],
            [b["labelled"]["estimate"] for b in bins],
            "o-",
            color=colour,
            markersize=4,
            linewidth=1.2,
        )
        for b in bins:
            if b["labelled"]["low"] is not None:
                ends = [b["labelled"]["low"], b["labelled"]["high"]]
                ax.plot([b["predicted"]] * 2, ends, color=colour, linewidth=1.2, solid_capstyle="butt")
        counts = sorted({b["turns"] for b in bins})
        count = f"n = {' or '.join(map(str, counts))} a bin"
        ax.text(0.98, 0.02, count, transform=ax.transAxes, ha="right", va="bottom", size="small", color="0.3")
        _diagonal(ax, (0, 5))
        ax.set_title(title, loc="left")
        ax.set_xlabel("predicted (label units)")
    figure.axes[0].set_ylabel("labelled (label units)")
    return figure


def reward_against_held_out(change: pd.DataFrame, width: float, palette: str) -> Figure:
    """Draw each prompt's change on the held-out scorer against that on the reward's scorer."""
    figure = Figure(figsize=(0.49 * width, 0.38 * width))
    ax = figure.subplots()
    colour = _colours(palette)["tuned"]
    ax.plot(change["empathy_raw"], change["audit_empathy_raw"], ".", color="0.55", markersize=4)
    ax.plot(change["empathy_raw"].mean(), change["audit_empathy_raw"].mean(), "^", color=colour, markersize=9)
    reach = 1.08 * max(float(change[["empathy_raw", "audit_empathy_raw"]].abs().to_numpy().max()), 0.1)
    _diagonal(ax, (-reach, reach))
    ax.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    ax.axvline(0, color="0.8", linewidth=0.6, zorder=0)
    ax.set_xlabel("reward's scorer (label units)")
    ax.set_ylabel("held-out scorer (label units)")
    return figure


def temperature_effect(temperature: TemperatureEffect, width: float, palette: str) -> Figure:
    """Draw what each T does in each way of calibrating.

    It shows the effect on the advantages, on the order within groups and on the spread.
    """
    figure = Figure(figsize=(width, 0.29 * width))
    axes = figure.subplots(1, 3)
    for colour, (mode, rows) in zip(sns.color_palette(palette, 3), temperature["modes"].items(), strict=True):
        marker, line, label = MODES[mode]
        for ax, key in zip(axes, ("correlation", "reversed_pairs", "group_sd"), strict=True):
            factor = 100 if key == "reversed_pairs" else 1
            values = [np.nan if row[key] is None else factor * row[key] for row in rows]
            places = [row["temperature"] for row in rows]
            ax.plot(places, values, marker=marker, markersize=4, linestyle=line, color=colour, label=label)
    at = f"T = {temperature['configured']:g}"
    titles = (f"correlation with {at}", f"pairs reordered from {at} (%)", "spread within a group")
    for ax, title in zip(axes, titles, strict=True):
        ax.axvline(temperature["configured"], color="0.6", linewidth=0.8, zorder=0)
        ax.set_title(title, loc="left", fontsize="small")
        ax.set_xlabel("temperature T")
    axes[1].set_ylim(bottom=0)
    axes[2].set_ylim(bottom=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _diagonal(ax: Axes, limits: tuple[float, float]) -> None:
    ax.plot(limits, limits, color="0.4", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    ax.set_xlim(limits)
    ax.set_ylim(limits)
    ax.set_aspect("equal")


def _short_label(metric: str) -> str:
    return {"empathy_raw": "empathy (label units)", "semantic_similarity_raw": "semantic similarity"}[metric]
