"""What a sweep finds, on runs whose true differences are known."""

import numpy as np
import pytest

import made_up_sweep
from gpro_empathy.tools import sweep_estimates

T = "rewards.calibration_temperature"
METRICS = ["empathy_raw", "audit_empathy_raw", "answer_words"]


@pytest.fixture(scope="module")
def config(settings):
    return settings.analyse_rewards.model_copy(update={"n_resamples": 200})


@pytest.fixture
def summarise(settings, config):
    """Return a function that sums up runs, given by temperature, as seed and row."""

    def summarise(gains, seeds=(23, 24, 25), ended=None, **made):
        sweep = made_up_sweep.sweep({T: list(gains)}, seeds, settings.model_dump())
        runs = [made_up_sweep.row(setting, seed, gains[setting[T]], **made) for setting, seed in sweep.runs()]
        return sweep_estimates.summary(sweep, made_up_sweep.by_key(ended or runs), config, METRICS)

    return summarise


def test_changes_and_their_differences_are_exact_without_noise(summarise):
    found = summarise({0.2: 0.1, 0.6: 0.3, 1.0: 0.3}, noise=0)
    low, reference, same = found["arms"]
    assert found["reference"] == 1
    assert low["change"]["empathy_raw"]["estimate"] == pytest.approx(0.1)
    assert low["change"]["empathy_raw"]["by_seed"] == pytest.approx({"23": 0.1, "24": 0.1, "25": 0.1})
    assert low["against"]["empathy_raw"]["estimate"] == pytest.approx(-0.2)
    assert low["against"]["audit_empathy_raw"]["estimate"] == pytest.approx(-0.1)
    assert low["against"]["empathy_raw"]["verdict"] == "lower"
    assert same["against"]["empathy_raw"]["low"] == pytest.approx(0, abs=1e-9)
    assert reference["against"] == {}
    assert (found["prompts"], found["stories"], found["confidence_together"]) == (48, 24, pytest.approx(0.975))


def test_a_large_difference_is_found_and_none_is_not(summarise):
    found = summarise({0.6: 0.3, 1.0: 0.9, 2.0: 0.3}, training_sd=0.05)
    assert [arm["against"].get("empathy_raw", {}).get("verdict") for arm in found["arms"]] == [
        None,
        "higher",
        "no evidence",
    ]
    assert found["arms"][1]["against"]["answer_words"]["verdict"] == "no evidence"


def test_scores_that_a_setting_makes_another_measure_are_not_compared(settings, config):
    sweep = made_up_sweep.sweep({"train_scorer.layers": [2, 4]}, (23, 24), settings.model_dump())
    runs = [made_up_sweep.row(setting, seed, 0.3) for setting, seed in sweep.runs()]
    found = sweep_estimates.summary(sweep, made_up_sweep.by_key(runs), config, METRICS)
    scored = {"empathy_raw": ["train_scorer.layers"], "audit_empathy_raw": ["train_scorer.layers"]}
    assert found["other_measures"] == scored
    assert [sorted(arm["against"]) for arm in found["arms"]] == [["answer_words"], []]
    assert set(found["arms"][0]["change"]) == set(METRICS)


def test_one_training_each_tells_nothing_of_a_difference(summarise):
    found = summarise({0.6: 0.3, 1.0: 0.9}, seeds=(23,))
    one = found["arms"][1]
    assert one["against"]["empathy_raw"]["verdict"] == "not told"
    assert one["change"]["empathy_raw"]["low"] is not None
    assert one["change"]["empathy_raw"]["new_low"] is None


def test_only_seeds_that_both_settings_have_are_compared(summarise):
    def ended(t, *runs):
        return [made_up_sweep.row({T: t}, seed, gain, noise=0) for seed, gain in runs]

    rows = [
        *ended(0.6, (23, 0.1), (24, 0.2)),
        *ended(1.0, (24, 0.5), (25, 9.0)),
        made_up_sweep.failed({T: 1.0}, 23, "why"),
    ]
    low, high = summarise({0.6: 0, 1.0: 0}, ended=rows)["arms"]
    assert high["against"]["empathy_raw"]["seeds"] == [24]
    assert high["against"]["empathy_raw"]["estimate"] == pytest.approx(0.3)
    assert (high["done"], high["failed"], high["missing"]) == ([24, 25], {"23": "why"}, [])
    assert low["missing"] == [25]


def test_a_setting_without_a_finished_run_is_there_and_compared_with_nothing(summarise):
    rows = [made_up_sweep.row({T: 1.0}, seed, 0.5) for seed in (23, 24, 25)]
    found = summarise({0.6: 0, 1.0: 0}, ended=rows)
    assert [sorted(arm["change"]) for arm in found["arms"]] == [[], sorted(METRICS)]
    assert found["arms"][1]["against"] == {}


def test_runs_on_other_prompts_are_not_compared(summarise):
    rows = [made_up_sweep.row({T: 0.6}, 23, 0.5), made_up_sweep.row({T: 1.0}, 23, 0.5, prompts=40)]
    assert summarise({0.6: 0, 1.0: 0}, ended=rows)["arms"][1]["against"] == {}


def test_too_few_stories_give_no_interval(summarise):
    rows = [made_up_sweep.row({T: t}, 23, 0.5, prompts=10) for t in (0.6, 1.0)]
    arm = summarise({0.6: 0, 1.0: 0}, ended=rows)["arms"][1]
    assert (arm["change"]["empathy_raw"]["low"], arm["against"]["empathy_raw"]["low"]) == (None, None)
    assert arm["against"]["empathy_raw"]["verdict"] == "not told"


def test_without_the_setting_of_params_the_first_one_is_the_reference(summarise):
    assert summarise({0.2: 0.1, 1.0: 0.3}, noise=0)["reference"] == 0


def test_spread_between_trainings_is_what_setting_and_seed_leave():
    rng = np.random.default_rng(3)
    settings, seeds, sd = (0.2, 0.6, 1.0, 2.0), range(200), 0.3
    of_seed = rng.normal(0, 1.0, len(seeds))
    runs = [
        [
            made_up_sweep.row({}, seed, gain + of_seed[seed] + rng.normal(0, sd), noise=0, metrics=["empathy_raw"])
            for seed in seeds
        ]
        for gain in settings
    ]
    variance, freedom = sweep_estimates.spread(runs, "empathy_raw")
    assert freedom == 3 * 199
    assert variance == pytest.approx(sd**2, rel=0.15)


def test_spread_needs_a_run_that_setting_and_seed_do_not_explain():
    def runs(*seeds_of_settings):
        return [[made_up_sweep.row({}, seed, 0.3) for seed in seeds] for seeds in seeds_of_settings]

    assert sweep_estimates.spread(runs([1], [1], []), "empathy_raw") is None
    assert sweep_estimates.spread(runs([1, 2], [2, 3]), "empathy_raw") is None
    assert sweep_estimates.spread(runs([1, 2], [1, 2]), "empathy_raw")[1] == 1
    assert sweep_estimates.spread(runs([1, 2], [1, 2], [2]), "empathy_raw")[1] == 1
    assert sweep_estimates.spread([], "empathy_raw") is None


@pytest.mark.parametrize("training_sd", [0.15, 0.0])
def test_intervals_of_differences_cover_the_true_one_at_their_rate(config, training_sd):
    rng, true, covered, trials = np.random.default_rng(0), 0.2, 0, 150
    made = {"training_sd": training_sd, "rng": rng, "metrics": ["empathy_raw"]}
    for _ in range(trials):
        of_seed = rng.normal(0, 0.2, 3)
        runs = [
            [made_up_sweep.row({}, seed, gain + of_seed[seed], **made) for seed in range(3)]
            for gain in (0.3, 0.3 + true, 0.3 + true)
        ]
        between = sweep_estimates.spread(runs, "empathy_raw")
        for other in runs[1:]:
            found = sweep_estimates.against(other, runs[0], "empathy_raw", config, 0.95, between)
            covered += found["low"] <= true <= found["high"]
    # Two standard errors of 300 draws at 95 % are 2.5 points, and more as they come in pairs.
    assert 0.92 <= covered / (2 * trials) <= 0.99
