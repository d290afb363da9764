from pathlib import Path

import numpy as np
import pytest

import made_up
from gpro_empathy import params
from gpro_empathy.analysis import response_table
from gpro_empathy.stages import analyse_rewards

PARAMS = params.load_all(Path(__file__).parents[2] / "params.yaml")
CONFIG = PARAMS.analyse_rewards.model_copy(update={"n_resamples": 2000})


def analyse(rows, weights=PARAMS.rewards.weights):
    return analyse_rewards.analyse(rows, CONFIG, weights, np.random.default_rng(1))


@pytest.mark.parametrize(
    ("effect", "verdict", "audit"),
    [
        ("gain", "improved", "confirmed"),
        ("none", "no evidence of a change", "no gain to audit"),
        ("harm", "worsened", "no gain to audit"),
    ],
)
def test_verdicts_follow_the_made_up_effect(effect, verdict, audit):
    found = analyse(made_up.rollouts(effect))
    assert found["metrics"]["empathy_raw"]["verdict"] == verdict
    assert audit in found["audit"]["verdict"]


@pytest.mark.slow
def test_starting_policy_is_the_base_model_without_a_warm_start():
    found = analyse(made_up.rollouts(warm_start=False))
    assert found["starting_policy"] == "base"
    assert found["policies"] == ["base", "tuned"]


def test_samples_of_a_prompt_are_averaged_before_prompts_are_compared():
    rows = made_up.rollouts("none", prompts=4, conversations=4)
    for row in rows:
        row["empathy_raw"] = {"base": 0.0, "warm_start": 1.0, "tuned": 1.0 + row["sample"]}[row["model"]]
    found = analyse(rows)["metrics"]["empathy_raw"]
    assert found["difference"] == pytest.approx(0.5)
    assert found["low"] == found["high"] == pytest.approx(0.5)
    assert found["means"]["tuned"] == pytest.approx(1.5)


def test_a_gain_of_the_reward_alone_is_not_confirmed():
    rows = made_up.rollouts("gain")
    rng = np.random.default_rng(2)
    for row in rows:
        row["audit_empathy_raw"] = 2 + rng.normal(0, 0.3)
    assert analyse(rows)["audit"]["verdict"] == "not confirmed"


def test_stock_phrases_are_found_whatever_the_case_and_the_apostrophe():
    rows = made_up.rollouts("none", prompts=2, conversations=2)
    for row in rows:
        row["answer"] = "SORRY TO HEAR that" if row["sample"] else "It\N{RIGHT SINGLE QUOTATION MARK}s okay to cry"
    assert response_table.responses(rows)["stock_phrase"].mean() == 1.0


def test_stated_intensity_is_compared_with_the_label_rounded_half_up():
    rows = made_up.rollouts("none", prompts=4, conversations=4)
    for row in rows:
        row["emotion"], row["stated_intensity"] = 2.5, 3 if row["sample"] == 0 else 1
    found = analyse(rows)
    assert found["intensity_agreement"]["tuned"] == {"n": 8, "missing": 0, "exact": 0.5, "within_one": 0.5}
    assert found["metrics"]["intensity_agreement"]["means"]["tuned"] == 0.5


def test_a_response_that_states_no_intensity_agrees_with_none():
    rows = made_up.rollouts("none", prompts=4, conversations=4)
    for row in rows:
        row["emotion"], row["stated_intensity"] = 2.0, None if row["sample"] else 2
    assert analyse(rows)["metrics"]["intensity_agreement"]["means"]["tuned"] == 0.5


def test_prompts_without_an_emotion_label_are_left_out_of_the_levels_and_counted():
    rows = made_up.rollouts("none")
    unlabelled = rows[0]["prompt_id"]
    for row in rows:
        if row["prompt_id"] == unlabelled:
            row["emotion"] = None
    found = analyse(rows)
    assert found["by_intensity"]["unlabelled_prompts"] == 1
    assert sum(level["prompts"] for level in found["by_intensity"]["levels"]) == 59
    assert found["metrics"]["intensity_agreement"]["prompts"] == 59
    assert found["metrics"]["empathy_raw"]["prompts"] == 60


def test_training_seeds_are_averaged_per_prompt_each_counting_once():
    rows = made_up.rollouts("none", prompts=4, conversations=4, seeds=(5, 7))
    for row in rows:
        row["empathy_raw"] = {None: 1.0, 5: 2.0, 7: 4.0}[row["seed"]]
    # One sample less of one seed changes nothing.
    found = analyse([row for row in rows if (row["seed"], row["sample"]) != (5, 1)])
    assert found["training_seeds"] == [5, 7]
    assert found["metrics"]["empathy_raw"]["difference"] == pytest.approx(2.0)
    assert found["metrics"]["empathy_raw"]["by_seed"] == pytest.approx({"5": 1.0, "7": 3.0})


@pytest.mark.slow
def test_seeds_that_disagree_leave_no_evidence_of_a_change():
    together = analyse(made_up.rollouts("gain", seeds=(1, 2, 3), seed_sd=0.02))["metrics"]["empathy_raw"]
    apart = analyse(made_up.rollouts("gain", seeds=(1, 2, 3), seed_sd=1.0))["metrics"]["empathy_raw"]
    assert together["verdict"] == "improved"
    assert apart["verdict"] == "no evidence of a change"
    assert apart["high"] - apart["low"] > 2 * (together["high"] - together["low"])


def test_rows_that_all_carry_the_one_seed_give_the_same_numbers():
    rows = made_up.rollouts("gain", prompts=8, conversations=8)
    assert analyse([{**row, "seed": 23} for row in rows]) == analyse(rows)


def test_levels_have_intervals_only_from_enough_stories_on():
    rows = made_up.rollouts("gain", prompts=40, conversations=20)
    for row in rows:
        row["emotion"] = 4.0 if row["conversation"] in {"1", "2", "3"} else 2.0
    found = analyse(rows)["by_intensity"]
    assert [level["conversations"] for level in found["levels"]] == [17, 3]
    assert [level["stories"] for level in found["levels"]] == [17, 3]
    many, few = found["values"]["empathy_raw"]["change"]["levels"]
    assert many["low"] < many["mean"] < many["high"]
    assert (few["low"], few["high"]) == (None, None)
    of_few = [row for row in rows if row["emotion"] == 4.0]
    mean = {m: np.mean([r["empathy_raw"] for r in of_few if r["model"] == m]) for m in ("tuned", "warm_start")}
    assert few["mean"] == pytest.approx(mean["tuned"] - mean["warm_start"])


def test_a_response_that_grows_with_the_need_shows_as_a_trend():
    rows = made_up.rollouts("none")
    for row in rows:
        row["empathy_raw"] = row["emotion"] * (1.0 if row["model"] == "tuned" else 0.2)
    found = analyse(rows)["by_intensity"]["values"]["empathy_raw"]
    assert found["tuned"]["trend"]["spearman"] > 0.9
    assert found["change"]["trend"]["p"] < 0.01


def test_a_margin_that_is_lost_is_not_excluded():
    kept = analyse(made_up.rollouts("gain"))["similarity_noninferiority"]
    lost = analyse(made_up.rollouts("harm"))["similarity_noninferiority"]
    assert (kept["verdict"], lost["verdict"]) == ("not inferior", "inferior")
    assert kept["p"] < 0.01
    assert lost["p"] > 0.99


def test_audit_names_the_prompts_that_changed_most():
    rows = made_up.rollouts("none", prompts=8, conversations=8)
    for row in rows:
        row["empathy_raw"] = float(row["prompt_id"].split(".")[0]) if row["model"] == "tuned" else 4.0
    found = analyse(rows)["audit"]
    assert [row["prompt_id"] for row in found["best_prompts"]] == ["8.2", "7.2", "6.2"]
    assert [row["prompt_id"] for row in found["worst_prompts"]] == ["1.2", "2.2", "3.2"]
    assert found["worst_prompts"][0]["empathy_raw"] == pytest.approx(-3.0)


@pytest.mark.parametrize(
    ("tuned", "weights", "drifts", "asked"),
    [
        (0.0, {"empathy": 1.0, "overlap": 1.0}, [], ["overlap"]),
        (0.0, {"empathy": 1.0}, ["overlap"], []),
        (1.0, {"empathy": 1.0, "overlap": 1.0}, ["overlap"], []),
    ],
)
def test_a_change_that_the_reward_asks_for_is_no_drift_beside_it(tuned, weights, drifts, asked):
    rows = [row | {"overlap": tuned if row["model"] == "tuned" else 0.4} for row in made_up.rollouts()]
    found = analyse(rows, weights)["audit"]
    assert (found["drifts"], found["asked_changes"]) == (drifts, asked)


def test_progress_is_told_part_by_part_with_the_time_left(capsys):
    analyse(made_up.rollouts(prompts=4, conversations=4))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[0] for line in lines] == [
        f"analyse_rewards: {part} compared" for part in analyse_rewards.PARTS
    ]
    assert lines[-1].endswith("4/4, about 0 s left")


def test_stock_phrase_rates_are_shares_of_a_policys_responses():
    rows = made_up.rollouts("none", prompts=2, conversations=2)
    for row in rows:
        row["answer"] = "Sorry to hear." if row["model"] == "tuned" and row["sample"] == 0 else "Go on."
    assert analyse(rows)["audit"]["stock_phrases"]["sorry to hear"] == {"base": 0.0, "warm_start": 0.0, "tuned": 0.5}


def test_agreement_of_the_scorers_is_their_correlation_over_a_policys_responses():
    rows = made_up.rollouts("none", prompts=4, conversations=4)
    for row in rows:
        row["audit_empathy_raw"] = {"base": 1.0, "warm_start": row["empathy_raw"], "tuned": -row["empathy_raw"]}[
            row["model"]
        ]
    found = analyse(rows)["audit"]["response_agreement"]
    assert found == {"base": None, "warm_start": pytest.approx(1.0), "tuned": pytest.approx(-1.0)}


def test_spread_of_the_scorers_is_that_over_the_starting_policys_responses():
    rows = made_up.rollouts("none", prompts=4, conversations=4)
    for row in rows:
        row["audit_empathy_raw"] = 0.5 * row["empathy_raw"] if row["model"] == "warm_start" else 1.0
    found = analyse(rows)["audit"]["start_sd"]
    started = [row["empathy_raw"] for row in rows if row["model"] == "warm_start"]
    assert found["empathy_raw"] == pytest.approx(np.std(started, ddof=1))
    assert found["audit_empathy_raw"] == pytest.approx(found["empathy_raw"] / 2)


def test_same_seed_gives_the_same_numbers():
    assert analyse(made_up.rollouts()) == analyse(made_up.rollouts())


def spoil(rows, **changes):
    rows[5] = {**rows[5], **changes}
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no responses"),
        (made_up.rollouts(prompts=5, conversations=1), r"\bstories\b.*\b1$"),
        (made_up.rollouts(stories=1), r"\bstories\b.*\b1$"),
        (made_up.rollouts()[:-2], r"\b30\.3\b.*'tuned'.*\b23\b"),
        (
            spoil(made_up.rollouts(), empathy_raw=float("nan")),
            r"\bempathy_raw\b.*\b1\.2\b.*\btuned\b.*\b1\b",
        ),
        (spoil(made_up.rollouts(), empathy_raw=None), r"\bempathy_raw\b.*\b1\.2\b.*\btuned\b.*\b1\b"),
        (spoil(made_up.rollouts(), model="best"), "'best'"),
        (spoil(made_up.rollouts(), sample=0), r"\b1\.2\b.*\btuned\b.*\b0\b.*twice"),
        ([r for r in made_up.rollouts() if r["model"] != "tuned"], "'tuned'"),
        (
            made_up.rollouts(seeds=(5, 7))[:-2],
            r"\b30\.3\b.*'tuned'.*\b7\b",
        ),
        (
            [{**r, "seed": None} for r in made_up.rollouts()],
            r"'tuned'.*\b1\.2\b.*\bseed\b",
        ),
        (
            [{**r, "emotion": None if r["conversation"] != "1" else 2.0} for r in made_up.rollouts()],
            r"intensity_agreement: .*\bstories\b.*\b1$",
        ),
        ([{k: v for k, v in r.items() if k != "overlap"} for r in made_up.rollouts()], "'overlap'"),
    ],
)
def test_refuses_rollouts_that_allow_no_comparison(rows, message):
    with pytest.raises(ValueError, match=message):
        analyse(rows)
