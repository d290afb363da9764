import re
from pathlib import Path

import numpy as np
import pytest

import made_up
import made_up_runs
from gpro_empathy import params
from gpro_empathy.analysis import baseline_comparison, baseline_differences, baseline_results

CONFIG = params.load_all(Path(__file__).parents[2] / "params.yaml").analyse_rewards.model_copy(
    update={"n_resamples": 300, "metrics": list(made_up_runs.DECLARED)}
)
BASE = made_up_runs.run()
ROWS = made_up.rollouts()


def compare(run, before=BASE, study="its own", config=CONFIG):
    study = made_up_runs.study(before) if study == "its own" else study
    return baseline_comparison.compare(before, run, config, study, np.random.default_rng(1))


def moved(shift, seeds=(23,), **made):
    rows = made_up_runs.shifted(made_up_runs.several(ROWS, seeds), shift, noise=0.3, **made)
    return made_up_runs.run(rows, rewards={"calibration_temperature": 0.8}, train_grpo={"seeds": list(seeds)})


def test_equal_scores_are_the_baselines_own_whatever_else_differs():
    assert compare(made_up_runs.run(machine="another", rewards={"calibration_temperature": 9.0})) == {"state": "same"}
    assert compare(made_up_runs.run(made_up_runs.shifted(ROWS, 1e-12)))["state"] == "compared"


def test_without_a_baseline_nothing_is_compared():
    assert baseline_comparison.compare(None, BASE, CONFIG, None, np.random.default_rng(1)) == {"state": "none"}


@pytest.mark.parametrize("seeds", [(23,), (23, 24, 25)])
def test_a_large_change_is_found_and_a_small_or_no_change_is_not(seeds):
    for shift, verdicts in (
        (0.0, {baseline_results.NO_EVIDENCE, baseline_results.AS_A_SEED}),
        (0.05, {baseline_results.NO_EVIDENCE, baseline_results.AS_A_SEED, baseline_results.NOT_ADJUSTED}),
        (1.5, {"improved"}),
        (-1.5, {"worsened"}),
    ):
        found = compare(moved(shift, seeds, seed_sd=0.02))
        empathy = found["metrics"]["empathy_raw"]
        assert empathy["verdict"] in verdicts, shift
        assert empathy["difference"] == pytest.approx(shift, abs=0.15)
        assert empathy["start"] == 0
        assert found["metrics"]["overlap"]["verdict"] == baseline_results.NO_EVIDENCE
        assert found["trainings"] == {"baseline": 1, "run": len(seeds)}


def test_one_training_with_a_wide_spread_between_trainings_tells_nothing():
    found = compare(moved(0.5), study=made_up_runs.study(BASE, sd=0.4))
    assert found["metrics"]["empathy_raw"]["verdict"] == baseline_results.AS_A_SEED
    assert found["spread"] == {"runs": False, "study": 5, "other_conditions": []}


def test_p_values_are_adjusted_over_the_compared_metrics():
    found = compare(moved(0.5))
    p = {metric: one["p"] for metric, one in found["metrics"].items()}
    smallest = min(p, key=p.get)
    assert found["metrics"][smallest]["p_holm"] == pytest.approx(min(1, p[smallest] * len(p)))
    # The temperature is part of the combined score: equal responses have other ones.
    assert found["left_out"] == {"combined_reference": ["rewards.calibration_temperature"]}
    assert "combined_reference" not in found["metrics"]


def test_spread_is_the_runs_own_where_both_have_several_trainings():
    seeds = (23, 24, 25)
    before = made_up_runs.run(made_up.rollouts(seeds=seeds, seed_sd=0.2))
    found = compare(moved(0.3, seeds, seed_sd=0.2), before)
    assert found["spread"] == {"runs": True, "study": 0, "other_conditions": []}
    wide = [baseline_comparison.by_seed(run, "empathy_raw") for run in (before, moved(0.3, seeds, seed_sd=0.2))]
    variance = np.mean([one.mean().var(ddof=1) for one in wide])
    assert found["metrics"]["empathy_raw"]["between_training_sd"] == pytest.approx(np.sqrt(variance))


def test_a_study_under_other_conditions_than_both_runs_is_not_used():
    other = made_up_runs.study(made_up_runs.run(rewards={"calibration_temperature": 0.1}))
    found = compare(moved(0.5), study=other)
    assert found["spread"] == {"runs": False, "study": 0, "other_conditions": ["rewards.calibration_temperature"]}
    assert found["metrics"]["empathy_raw"]["verdict"] == baseline_results.SPREAD_UNKNOWN
    other["conditions"] = made_up_runs.study(BASE)["conditions"]
    other["conditions"]["settings"].pop("rewards.similarity_model")
    assert compare(moved(0.5), study=other)["spread"]["other_conditions"] == ["rewards.similarity_model"]
    # One of the run at hand serves as well as one of the baseline.
    assert compare(moved(0.5), study=made_up_runs.study(moved(0)))["spread"]["study"] == 5


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"rewards": {"calibration_temperature": 0.8}, "machine": "b"}, "settings"),
        ({"rewards": {"weights": {"empathy": 2.0, "length": 0.5}}}, "settings"),
        ({"files": made_up_runs.FILES | {"src/gpro_empathy/rewards.py": "z"}, "machine": "b"}, "code"),
        ({"files": {}}, "unknown"),
        ({"machine": "b"}, "machine"),
        ({"packages": {"torch": "2.1", "dvc": "3.0"}}, "machine"),
        ({"packages": {"torch": "2.0", "dvc": "4.0"}}, "rerun"),
        ({"train_grpo": {"seeds": [24]}, "analyse_rewards": {"n_resamples": 999}}, "rerun"),
        ({}, "rerun"),
    ],
)
def test_what_differs_says_of_what_kind_the_comparison_is(changed, kind):
    run = made_up_runs.run(made_up_runs.shifted(ROWS, 0.2), **changed)
    assert compare(run)["kind"] == kind


def test_what_decides_a_score_makes_it_another_measure():
    def other(metrics, **changed):
        run = made_up_runs.run(made_up_runs.shifted(ROWS, 0.2), **changed)
        return set(baseline_differences.other_measures(baseline_differences.between(BASE, run), metrics))

    metrics = ["empathy_raw", "combined_reference", "mine:words_raw", "overlap"]
    assert other(metrics, files=made_up_runs.FILES | {"rewards": "z"}) == {"combined_reference", "mine:words_raw"}
    assert other(metrics, train_grpo={"temperature": 0.1}) == {"combined_reference"}
    assert other(metrics, train_grpo={"learning_rate": 0.1}) == set()
    assert other(metrics, train_scorer={"layers": 2}) == {"empathy_raw", "combined_reference"}


def test_differences_are_named_key_by_key_with_both_values():
    run = made_up_runs.run(rewards={"weights": {"empathy": 2.0, "overlap": 1.0}}, packages={"torch": "2.1"}, files={})
    found = baseline_differences.between(BASE, run)
    assert found["settings"] == [
        {"what": "rewards.weights.empathy", "baseline": "1.0", "run": "2.0"},
        {"what": "rewards.weights.length", "baseline": "0.5", "run": "absent"},
        {"what": "rewards.weights.overlap", "baseline": "absent", "run": "1.0"},
    ]
    assert found["deciding"] == [one["what"] for one in found["settings"]]
    assert found["packages"] == [{"what": "torch", "baseline": "2.0", "run": "2.1"}]
    assert found["files"] is None


def without(run, metric):
    return type(run)(run.settings, run.scores.drop(columns=metric), run.provenance)


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (
            made_up_runs.run(made_up.rollouts(prompts=50)),
            r"other test prompts \(50, this run 60, in common 50\)\. .*make baseline",
        ),
        (made_up_runs.run([row | {"prompt": "x"} for row in ROWS]), r"other texts"),
        (
            made_up_runs.run(files=made_up_runs.FILES | {"data/prepared/train.jsonl": "z"}),
            r"scorers learned from other data",
        ),
        (without(BASE, "overlap"), r"no scores of overlap, as it is of an older version of the metrics"),
    ],
)
def test_a_baseline_of_other_prompts_data_or_metrics_is_refused_with_what_to_do(before, said):
    run = made_up_runs.run(made_up_runs.shifted(ROWS, 0.2))
    found = compare(run, before)
    assert found["state"] == "refused"
    assert re.search(said, found["reason"])


def test_another_scorer_makes_other_measures_which_are_not_compared():
    run = made_up_runs.run(made_up_runs.shifted(ROWS, 0.2), train_scorer={"layers": 6})
    found = compare(run)
    assert found["left_out"] == {metric: ["train_scorer.layers"] for metric in ("empathy_raw", "combined_reference")}
    only = CONFIG.model_copy(update={"metrics": ["empathy_raw"]})
    assert "Every declared metric is another measure" in compare(run, config=only)["reason"]
