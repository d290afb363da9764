import numpy as np
import pandas as pd
import pytest

import made_up
from gpro_empathy.report import figures

LOOK = {"width": 6.3, "palette": "colorblind"}
METRIC = {"difference": 0.2, "low": 0.1, "high": 0.4, "sd_of_differences": 0.5, "verdict": "improved",
          "by_seed": {"23": 0.2}, "new_low": None, "new_high": None}  # fmt: skip


def test_intervals_are_drawn_in_standard_deviations_of_the_differences():
    ax = figures.paired_differences({"overlap": METRIC}, ["overlap"], **LOOK).axes[0]
    assert ax.lines[0].get_xdata() == pytest.approx([0.2, 0.8])
    assert ax.lines[1].get_xdata() == pytest.approx([0.4])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["overlap"]


def test_interval_for_a_new_training_is_a_thinner_line():
    ax = figures.paired_differences(
        {"overlap": {**METRIC, "new_low": -0.1, "new_high": 0.6}}, ["overlap"], **LOOK
    ).axes[0]
    assert ax.lines[2].get_xdata() == pytest.approx([-0.2, 1.2])
    assert ax.lines[2].get_linewidth() < ax.lines[0].get_linewidth()


@pytest.mark.parametrize(
    ("ends", "is_open"), [({}, False), ({"low": -0.1}, True), ({"new_low": -0.1, "new_high": 0.6}, True)]
)
def test_a_point_whose_wider_interval_holds_zero_is_open(ends, is_open):
    ax = figures.paired_differences({"overlap": METRIC | ends}, ["overlap"], **LOOK).axes[0]
    assert (ax.lines[1].get_markerfacecolor() == "white") == is_open


def test_a_metric_without_spread_is_named_instead_of_divided_by_zero():
    ax = figures.paired_differences({"overlap": {**METRIC, "sd_of_differences": 0.0}}, ["overlap"], **LOOK).axes[0]
    assert "equal" in ax.texts[0].get_text()


def test_training_curves_show_every_step_of_every_column():
    log = made_up.training_log(steps=7)
    axes = figures.training_curves(log, made_up.groups(steps=7), **LOOK).axes
    for ax, (column, _) in zip(axes, figures.CURVES, strict=True):
        assert ax.lines[0].get_ydata() == pytest.approx(log[column].to_numpy())


def test_each_training_seed_has_its_line_and_their_mean_the_thick_one():
    log = made_up.training_log(steps=9, seeds=(5, 7, 9))
    ax = figures.training_curves(log, made_up.groups(steps=9, seeds=(5, 7, 9)), **LOOK, window=1).axes[0]
    assert len(ax.lines) == 4
    assert ax.lines[3].get_ydata() == pytest.approx(log.groupby("step")["empathy_raw"].mean().to_numpy())
    assert ax.lines[3].get_linewidth() > ax.lines[0].get_linewidth()


def test_band_reaches_from_the_lowest_to_the_highest_prompt():
    groups = made_up.groups(steps=1, prompts=2, generations=2).assign(empathy_raw=[1.0, 3.0, 0.0, 1.0])
    ax = figures.training_curves(made_up.training_log(steps=1), groups, **LOOK).axes[0]
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.5, 2.0)


def test_several_seeds_are_marked_beside_their_mean():
    seeds = {**METRIC, "by_seed": {"5": 0.1, "7": 0.3}}
    ax = figures.paired_differences({"overlap": seeds}, ["overlap"], **LOOK).axes[0]
    assert ax.lines[1].get_xdata() == pytest.approx([0.2, 0.6])


def test_levels_without_an_interval_are_drawn_as_points():
    rows = [{"mean": 1.0, "low": 0.5, "high": 2.0}, {"mean": 2.0, "low": None, "high": None}]
    found = {
        "levels": [{"level": 1, "prompts": 9}, {"level": 2, "prompts": 1}],
        "values": {"empathy_raw": {"tuned": {"levels": rows}}},
    }
    ax = figures.empathy_by_intensity(found, ["tuned"], **LOOK).axes[0]
    assert ax.lines[0].get_ydata() == pytest.approx([1.0, 2.0])
    bars = ax.collections[0].get_segments()
    assert bars[0][:, 1] == pytest.approx([0.5, 2.0])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1\nn = 9", "2\nn = 1"]


def test_one_step_of_training_can_be_drawn():
    figure = figures.training_curves(made_up.training_log(steps=1), made_up.groups(steps=1), **LOOK)
    figure.draw_without_rendering()
    assert all(any(list(line.get_xdata()) == [1] for line in ax.lines) for ax in figure.axes)


def test_reliability_shows_every_bin_with_its_interval_and_count():
    predictions = pd.DataFrame({"label_empathy": [1.0], "predicted_empathy": [2.0], "audit_empathy": [3.0]})
    bins = [
        {"turns": 51, "predicted": 1.0, "labelled": made_up.estimate(1.5, 0.25)},
        {"turns": 50, "predicted": 2.0, "labelled": made_up.estimate(2.5, None)},
    ]
    ax = figures.scorer_reliability(predictions, {"reward": bins, "audit": bins[:1]}, **LOOK).axes[0]
    points, line, interval, diagonal = ax.lines
    assert (points.get_xdata()[0], points.get_ydata()[0]) == (2.0, 1.0)
    assert line.get_xydata().tolist() == [[1.0, 1.5], [2.0, 2.5]]
    assert interval.get_xydata().tolist() == [[1.0, 1.25], [1.0, 1.75]]
    assert tuple(diagonal.get_xdata()) == (0, 5)
    assert ax.texts[0].get_text() == "n = 50 or 51 a bin"


def test_audit_figure_has_the_same_scale_on_both_axes():
    change = pd.DataFrame({"empathy_raw": [0.1, 1.0], "audit_empathy_raw": [-0.5, 0.2]})
    ax = figures.reward_against_held_out(change, **LOOK).axes[0]
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_xlim()[1] > 1.0


def test_undefined_correlations_leave_a_gap():
    rows = [{"temperature": t, "correlation": None, "reversed_pairs": None, "group_sd": 0.0} for t in (0.2, 0.6)]
    modes = dict.fromkeys(("batch", "prompt", "reference"), rows)
    figure = figures.temperature_effect({"modes": modes, "configured": 0.6}, **LOOK)
    assert np.isnan(figure.axes[0].lines[0].get_ydata()).all()


def test_figures_leave_the_global_state_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with figures.style(9):
        figures.paired_differences({"overlap": METRIC}, ["overlap"], **LOOK)
    assert dict(mpl.rcParams) == before


def auc(value, reach=0.1):
    low, high = (None, None) if reach is None else (value - reach, value + reach)
    return {"estimate": value, "low": low, "high": high, "reason": None}


def test_scores_stand_by_how_well_they_tell_sensible_answers():
    validity = {
        "overlap": {"sensible": auc(0.4), "empathetic": auc(0.7)},
        "distinct_2": {"sensible": auc(0.6, None), "empathetic": auc(None, None)},
        "well_formed": {"sensible": auc(None, None), "empathetic": auc(None, None)},
    }
    ax = figures.score_validity(validity, **LOOK).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["distinct bigrams", "overlap"]
    interval, sensible, other_interval, empathetic = (line.get_xdata() for line in ax.lines[:4])
    assert (interval, other_interval) == (pytest.approx([0.3, 0.5]), pytest.approx([0.6, 0.8]))
    assert (list(sensible), list(empathetic)) == ([0.6, 0.4], [0.7])
    assert ax.lines[4].get_xdata() == [0.5, 0.5]


def test_a_score_that_only_empathetic_answers_are_compared_by_is_drawn_last():
    validity = {
        "distinct_2": {"sensible": auc(None, None), "empathetic": auc(0.7)},
        "overlap": {"sensible": auc(0.4), "empathetic": auc(None, None)},
    }
    ax = figures.score_validity(validity, **LOOK).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["overlap", "distinct bigrams"]
    assert not ax.texts


def test_ratings_without_any_auc_are_not_told_as_none():
    nothing = {"overlap": {"sensible": auc(None, None), "empathetic": auc(None, None)}}
    ax = figures.score_validity(nothing, **LOOK).axes[0]
    assert ax.texts[0].get_text() == "no AUC is defined"


def test_without_ratings_the_figure_says_so():
    ax = figures.score_validity({}, **LOOK).axes[0]
    assert ax.texts[0].get_text() == "no ratings of single answers"
