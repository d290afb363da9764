"""The figures of the report: each a function from numbers to a matplotlib Figure, without files or statistics."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpro_empathy import metric_names

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


def style(font_size: float) -> AbstractContextManager:
    """Return the context in which the figures are made and saved: small type, thin axes, fonts embedded."""
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


def training_curves(log: pd.DataFrame, width: float, palette: str, window: int = 5) -> Figure:
    """Draw six columns of the training log against the step, each with its centred moving mean."""
    figure = Figure(figsize=(width, 0.47 * width))
    axes = figure.subplots(2, 3, sharex=True)
    colour = sns.color_palette(palette, 1)[0]
    for ax, (column, label) in zip(axes.flat, CURVES, strict=True):
        values = log[column].astype(float)
        ax.plot(log["step"], values, color="0.65", linewidth=0.8, marker=".", markersize=3)
        smooth = values.rolling(window, center=True, min_periods=1).mean()
        ax.plot(log["step"], smooth, color=colour, linewidth=1.6)
        ax.set_title(label, loc="left")
        if column == "well_formed":
            ax.set_ylim(-0.05, 1.05)
    for ax in axes[1]:
        ax.set_xlabel("step")
        ax.xaxis.get_major_locator().set_params(integer=True)
    return figure


def paired_differences(metrics: Mapping[str, dict], order: Sequence[str], width: float, palette: str) -> Figure:
    """Draw each metric's mean difference and its interval, in standard deviations of the differences."""
    figure = Figure(figsize=(0.9 * width, 0.25 * len(order) + 0.7))
    ax = figure.subplots()
    colour = _colours(palette)["tuned"]
    for row, metric in enumerate(order):
        found = metrics[metric]
        sd = found["sd_of_differences"]
        if sd <= 1e-12:
            ax.annotate(
                "all differences are equal", (0.02, row), xycoords=("axes fraction", "data"), va="center", color="0.4"
            )
            continue
        centre, low, high = (found[key] / sd for key in ("difference", "low", "high"))
        ax.plot([low, high], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
        clear = found["verdict"] != "no evidence of a change"
        ax.plot(centre, row, "o", color=colour, markerfacecolor=colour if clear else "white", markersize=5)
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_yticks(range(len(order)), [metric_names.label(metric) for metric in order])
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlabel("difference (standard deviations)")
    ax.grid(axis="x", color="0.9", linewidth=0.6)
    return figure


def reward_distributions(responses: pd.DataFrame, policies: Sequence[str], width: float, palette: str) -> Figure:
    """Draw the raw scores of all responses, policy by policy, as boxes over the single points."""
    figure = Figure(figsize=(0.9 * width, 0.3 * width))
    colours = _colours(palette)
    for ax, metric in zip(figure.subplots(1, 2), ("empathy_raw", "semantic_similarity_raw"), strict=True):
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
        ax.set_ylabel(_short_label(metric))
    return figure


def empathy_by_intensity(levels: Sequence[dict], policies: Sequence[str], width: float, palette: str) -> Figure:
    """Draw the mean raw empathy of each policy's responses by the intensity of the user's turn."""
    figure = Figure(figsize=(0.49 * width, 0.44 * width))
    ax = figure.subplots()
    colours = _colours(palette)
    places = [row["level"] for row in levels]
    for policy in policies:
        ax.plot(
            places,
            [row["means"][policy] for row in levels],
            marker=MARKERS[policy],
            linestyle=DASHES[policy],
            color=colours[policy],
            label=metric_names.POLICY_LABELS[policy],
        )
    ax.set_xticks(places, [f"{row['level']}\nn = {row['prompts']}" for row in levels])
    ax.margins(x=0.08)
    ax.set_xlabel("intensity of the user's turn")
    ax.set_ylabel(_short_label("empathy_raw"))
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=len(policies), columnspacing=0.8, handletextpad=0.4)
    return figure


def scorer_reliability(predictions: pd.DataFrame, width: float, palette: str, bins: int = 5) -> Figure:
    """Draw predicted against labelled empathy on test turns, for both scorers, with means of equally filled bins."""
    figure = Figure(figsize=(0.8 * width, 0.4 * width))
    colour = sns.color_palette(palette, 1)[0]
    titles = {"predicted_empathy": "reward's scorer", "audit_empathy": "second scorer"}
    kept = predictions.dropna(subset=["label_empathy"])
    for ax, (column, title) in zip(figure.subplots(1, 2, sharey=True, sharex=True), titles.items(), strict=True):
        ax.plot(kept[column], kept["label_empathy"], ".", color="0.7", markersize=3)
        ordered = kept.sort_values([column, "label_empathy"])
        parts = [part for part in np.array_split(np.arange(len(ordered)), bins) if len(part)]
        means = [ordered.iloc[part][[column, "label_empathy"]].mean() for part in parts]
        ax.plot([m[column] for m in means], [m["label_empathy"] for m in means], "o-", color=colour, markersize=5)
        _diagonal(ax, (0, 5))
        ax.set_xlabel(f"predicted empathy, {title}")
    figure.axes[0].set_ylabel("labelled empathy")
    return figure


def reward_against_audit(change: pd.DataFrame, width: float, palette: str) -> Figure:
    """Draw each prompt's change on the second scorer against that on the reward's scorer."""
    figure = Figure(figsize=(0.49 * width, 0.44 * width))
    ax = figure.subplots()
    colour = _colours(palette)["tuned"]
    ax.plot(change["empathy_raw"], change["audit_empathy_raw"], ".", color="0.55", markersize=4)
    ax.plot(change["empathy_raw"].mean(), change["audit_empathy_raw"].mean(), "^", color=colour, markersize=9)
    reach = 1.08 * max(float(change[["empathy_raw", "audit_empathy_raw"]].abs().to_numpy().max()), 0.1)
    _diagonal(ax, (-reach, reach))
    ax.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    ax.axvline(0, color="0.8", linewidth=0.6, zorder=0)
    ax.set_xlabel("change, reward's scorer (label units)")
    ax.set_ylabel("change, second scorer (label units)")
    return figure


def temperature_effect(temperature: Mapping, width: float, palette: str) -> Figure:
    """Draw, for each T, the correlation of advantages with those at the configured T, and the groups' spread."""
    figure = Figure(figsize=(0.95 * width, 0.33 * width))
    axes = figure.subplots(1, 2)
    looks = {"batch": ("o", "solid"), "reference": ("s", (0, (4, 2)))}
    for colour, (mode, rows) in zip(sns.color_palette(palette, 2), temperature["modes"].items(), strict=True):
        marker, line = looks[mode]
        for ax, key in zip(axes, ("correlation", "group_sd"), strict=True):
            values = [np.nan if row[key] is None else row[key] for row in rows]
            places = [row["temperature"] for row in rows]
            ax.plot(places, values, marker=marker, linestyle=line, color=colour, label=f"{mode} calibration")
    for ax in axes:
        ax.axvline(temperature["configured"], color="0.6", linewidth=0.8, zorder=0)
        ax.set_xlabel("calibration temperature T")
    axes[0].set_ylabel(f"correlation with\nadvantages at T = {temperature['configured']:g}")
    axes[1].set_ylabel("standard deviation\nwithin a group")
    axes[1].set_ylim(bottom=0)
    axes[1].legend()
    return figure


def _diagonal(ax: Axes, limits: tuple[float, float]) -> None:
    ax.plot(limits, limits, color="0.4", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    ax.set_xlim(limits)
    ax.set_ylim(limits)
    ax.set_aspect("equal")


def _short_label(metric: str) -> str:
    return {"empathy_raw": "empathy (label units)", "semantic_similarity_raw": "semantic similarity"}[metric]
