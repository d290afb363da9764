import json

import numpy as np
import pytest

from gpro_empathy import files
from gpro_empathy.analysis import paired_comparison, trainings

PROMPTS = {"1.2": "I lost my job.", "1.4": "It hurts."}


def comparison(start, by_seed):
    mean, sd = float(np.mean(by_seed)), float(np.std(by_seed, ddof=1))
    return {
        "difference": mean, "low": mean - 0.1, "high": mean + 0.1, "new_low": mean - 0.3, "new_high": mean + 0.3,
        "between_training_sd": sd, "by_seed": {str(5 + s): gain for s, gain in enumerate(by_seed)},
        "means": {"warm_start": start, "tuned": start + mean}, "p_holm": 0.01, "verdict": "improved",
    }  # fmt: skip


def study(settings, **changes):
    """Make a study of three trainings, in what is read of it."""
    audited = {"audit_empathy_raw": comparison(2.0, [0.2, 0.4, 0.6]), "well_formed": comparison(0.9, [0.0, 0.1, 0.05])}
    return {
        "training_seeds": [5, 6, 7], "stories": 16, "starting_policy": "warm_start", "metric_order": ["empathy_raw"],
        "metrics": {"empathy_raw": comparison(1.9, [0.5, 0.7, 0.9])},
        "audit": {"metrics": audited, "gap": {"between_training_sd": 0.3}},
        "by_intensity": {}, "confidence": 0.95, "similarity_noninferiority": {"margin": 0.05},
        "conditions": trainings.conditions(sections(settings), PROMPTS),
    } | changes  # fmt: skip


def sections(settings, **grpo):
    return [settings.policy, settings.rewards, settings.train_grpo.model_copy(update=grpo)]


def test_spread_is_that_of_each_metric_and_unknown_for_one_that_the_study_lacks(settings):
    found = paired_comparison.study_spread(study(settings), ["empathy_raw", "well_formed", "scorer_gap", "overlap"])
    assert found.sd_M == pytest.approx([0.2, 0.05, 0.3, np.nan], nan_ok=True)
    assert found.trainings == 3


def test_rows_are_those_of_the_declared_metrics_and_the_held_out_scorer(settings):
    first, held_out = trainings.rows(study(settings))
    assert (first["metric"], held_out["metric"]) == ("empathy_raw", "audit_empathy_raw")
    assert (first["mean"], first["lowest"], first["highest"]) == pytest.approx((0.7, 0.5, 0.9))
    assert (first["low"], first["new_high"]) == pytest.approx((0.6, 1.0))
    assert (first["p_holm"], first["verdict"]) == (0.01, "improved")


def test_changes_that_a_study_does_not_let_expect_are_named(settings):
    several = study(settings)  # lets expect 0.4 to 1.0, and of the held-out scorer 0.1 to 0.7
    run = {
        "prompts": 20,
        "metrics": {"empathy_raw": {"difference": 1.04}, "unknown": {"difference": 9.0}},
        "audit": {"metrics": {"audit_empathy_raw": {"difference": 0.04}, "well_formed": {"difference": 0.1}}},
    }
    assert trainings.outside(several, run) == ["audit_empathy_raw"]  # one prompt of 20 may be 0.05
    run["metrics"]["empathy_raw"] = {"difference": 1.06}
    assert trainings.outside(several, run) == ["audit_empathy_raw", "empathy_raw"]


def test_range_of_the_tuned_policy_is_that_of_single_trainings(settings):
    assert trainings.tuned_range(study(settings), "well_formed") == pytest.approx((0.9, 1.0))


def test_study_under_equal_conditions_differs_in_nothing_whatever_the_seeds(settings):
    own = trainings.conditions(sections(settings, seeds=[99]), PROMPTS)
    assert trainings.source([99], own, study(settings)) == {"study": True, "trainings": 3, "other_conditions": []}


def test_study_under_other_conditions_is_told_by_what_differs(settings):
    own = trainings.conditions(sections(settings, steps=3), PROMPTS | {"2.2": "Why?"})
    assert trainings.source([23], own, study(settings))["other_conditions"] == ["train_grpo.steps", "test prompts"]


def test_run_of_several_trainings_needs_no_study_and_one_alone_has_no_spread(settings):
    own = trainings.conditions(sections(settings), PROMPTS)
    assert trainings.source([1, 2], own, study(settings)) == {"study": False, "trainings": 2, "other_conditions": []}
    assert trainings.source([1], own, None) == {"study": False, "trainings": 0, "other_conditions": []}


def test_study_that_is_not_there_is_none_and_a_run_of_several_is_its_own(settings, tmp_path):
    path = tmp_path / "reward_analysis.json"
    assert trainings.of_report({"training_seeds": [1]}, path) is None
    several = {"training_seeds": [1, 2]}
    assert trainings.of_report(several, path) is several
    path.write_text(json.dumps(study(settings)))
    assert trainings.of_report({"training_seeds": [1]}, path) == study(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"training_seeds": [5]},
            r"reward_analysis\.json: .*\[5\].*`make seeds`",
        ),
        (None, r"reward_analysis\.json: .*version.*delete"),
    ],
)
def test_refuses_a_file_that_is_no_study(settings, tmp_path, changes, message):
    path = tmp_path / "reward_analysis.json"
    path.write_text(json.dumps([] if changes is None else study(settings, **changes)))
    with pytest.raises(files.UserError, match=message):
        trainings.read(path)


def test_refuses_a_study_that_lacks_a_part(settings, tmp_path):
    path = tmp_path / "reward_analysis.json"
    path.write_text(json.dumps({key: value for key, value in study(settings).items() if key != "confidence"}))
    with pytest.raises(files.UserError, match="of another version"):
        trainings.read(path)
