import math

import numpy as np
import pandas as pd
import pytest

import made_up
from gpro_empathy.analysis import explained_gain, response_table, reward_hacking, stated_levels, templates
from gpro_empathy.report import template_table, verdicts
from gpro_empathy.report.number_format import PAGE

SAME = "You could try to call your friend today. What would help you most?"
WORDS = "rain bread river candle letter window garden engine mirror winter basket thunder pencil harbour ladder".split()


def varied(rng):
    """Make an answer of words drawn at random, which shares hardly a sequence with another one."""
    return " ".join(rng.choice(WORDS, 14)) + "."


def corpus(answer, stated, seeds=(23,), **made):
    """Make the table of rollouts in which `answer` and `stated` give what each response says.

    They are called with the policy, the training seed and the row's number.
    """
    rows = made_up.rollouts(seeds=seeds, **{"prompts": 12, "conversations": 6, **made})
    for n, row in enumerate(rows):
        row["answer"] = answer(row["model"], row["seed"], n)
        row["answer_words"] = len(row["answer"].split())
        if row["well_formed"]:
            row["stated_intensity"] = stated(row["model"], row["seed"], n)
    return response_table.responses(rows)


def varied_to_all(answers=None, levels=None, seeds=(23,)):
    """Audit policies that are varied but for those that the two dicts name, by (policy, seed)."""
    rng, answers, levels = np.random.default_rng(4), answers or {}, levels or {}
    table = corpus(
        lambda model, seed, n: answers.get((model, seed)) or varied(rng),
        lambda model, seed, n: levels.get((model, seed), n % 4),
        seeds,
    )
    return templates.audit(table, seed=1)


def test_approaches_of_responses_that_state_one_are_counted():
    rows = pd.DataFrame({"stated_approach": ["listen", "listen", "ask", "ask", None]})
    assert templates.approaches(rows) == {"bits": 1.0, "largest_share": 0.5}
    assert templates.approaches(rows[:2]) == {"bits": 0.0, "largest_share": 1.0}
    assert templates.approaches(rows[4:]) == {"bits": None, "largest_share": None}


def test_policy_that_always_says_the_same_is_told_so():
    found = varied_to_all({("tuned", 23): SAME}, {("tuned", 23): 1})
    tuned = found["policies"]["tuned"]
    assert tuned["self_bleu"] == pytest.approx(100)
    assert (tuned["opening_bits"], tuned["modal_advice"]) == (0, 1)
    assert tuned["stated"] == {"levels": 1, "bits": 0, "commonest": 1, "largest_share": 1, "spearman": None}
    assert found["signs"] == list(templates.CRITERIA)
    assert found["starting_signs"] == []
    text = verdicts.templates(found)
    assert text.startswith(
        "The tuned policy says much the same to everybody. It states one intensity level in more than 90%"
    )
    assert "starting policy, too" not in text


def test_varied_policy_is_not_called_a_template():
    found = varied_to_all()
    assert (found["signs"], found["starting_signs"]) == ([], [])
    assert verdicts.templates(found) == "No sign of a template is found in the tuned policy."


def test_policy_is_told_of_its_one_level_though_its_answers_are_varied():
    found = varied_to_all(levels={("tuned", 23): 1})
    assert found["signs"] == ["largest_level_share"]
    assert found["verdict"] == "answers by a template"


def test_what_the_starting_policy_says_to_everybody_is_told_of_it_too():
    found = varied_to_all({("warm_start", None): SAME, ("tuned", 23): SAME})
    assert found["signs"] == found["starting_signs"] == ["self_bleu"]
    assert verdicts.templates(found).endswith(
        "The starting policy, too, repeats itself from answer to answer (self-BLEU above 50)."
    )


@pytest.mark.parametrize(
    ("signs", "said"),
    [(["self_bleu"], "policy, too, repeats"), ([], "policy repeats"), (["modal_advice_rise"], "policy repeats")],
)
def test_starting_policy_shows_a_sign_too_only_if_the_tuned_one_shows_it(signs, said):
    found = varied_to_all() | {"signs": signs, "starting_signs": ["self_bleu"]}
    assert said in verdicts.templates(found)


def test_headline_is_the_mean_over_trainings_and_each_is_judged_by_itself():
    found = varied_to_all({("tuned", 23): SAME}, {("tuned", 23): 1, ("tuned", 24): 3, ("tuned", 25): 3}, (23, 24, 25))
    alone = found["by_seed"]
    assert found["policies"]["tuned"]["self_bleu"] == pytest.approx(
        np.mean([one["self_bleu"] for one in alone.values()])
    )
    assert found["policies"]["tuned"]["stated"]["largest_share"] == 1
    assert found["policies"]["tuned"]["stated"]["commonest"] is None
    assert found["signs_by_seed"] == {
        "23": list(templates.CRITERIA),
        "24": ["largest_level_share"],
        "25": ["largest_level_share"],
    }
    text = verdicts.templates(found)
    assert "It states mostly one level in each training (mean share above 90% of its well-formed responses)" in text
    assert "states one intensity level" not in text
    assert "Of 3 trainings, 3 show a sign by themselves." in text


def test_policies_are_measured_on_as_many_answers_as_the_smallest_has():
    table = corpus(lambda model, seed, n: varied(np.random.default_rng(n)), lambda model, seed, n: n % 4)
    fewer = table[(table["model"] != "base") | (table["sample"] == 0)]
    found = templates.audit(fewer, seed=1)
    assert found["answers"] == 12
    assert found["most_bits"] == pytest.approx(math.log2(12))


def test_order_of_the_rows_changes_nothing():
    table = corpus(lambda model, seed, n: varied(np.random.default_rng(n)), lambda model, seed, n: n % 4)
    shuffled = table.sample(frac=1, random_state=3)
    # Sums over rows in another order differ in the last bits.
    one, other = (templates.audit(rows, seed=1) for rows in (table, shuffled))
    assert one["policies"] == other["policies"]
    assert one["explained"]["empathy_raw"]["adjusted"] == pytest.approx(other["explained"]["empathy_raw"]["adjusted"])


@pytest.mark.parametrize(
    ("n", "share"),
    [(1, 3 / 5), (2, 2 / 3)],
)
def test_distinct_n_is_taken_over_all_answers_and_not_across_them(n, share):
    # Bigrams: a-b, b-c, a-b; none of c and a, which stand in two answers.
    assert templates.distinct_n([["a", "b", "c"], ["a", "b"]], n) == pytest.approx(share)


def test_distinct_n_of_no_words_is_not_defined():
    assert templates.distinct_n([[], ["a"]], 2) is None


def test_openings_that_are_equally_common_have_the_most_bits():
    assert templates.opening_bits([["a", str(n), "z"] for n in range(8)]) == pytest.approx(3)
    assert templates.opening_bits([["a", "b", str(n)] for n in range(8)]) == 0


def test_self_bleu_of_answers_without_a_common_word_is_near_0_and_of_one_not_defined():
    answers = [" ".join(f"w{n}x{k}" for k in range(10)) for n in range(5)]
    assert templates.self_bleu(answers) < 5
    assert templates.self_bleu(answers[:1]) is None


@pytest.mark.parametrize(
    ("answer", "is_advice"),
    [
        ("You could ask her.", True),
        ("YOU\N{RIGHT SINGLE QUOTATION MARK}D BETTER rest.", True),
        ("Try to rest.", True),
        ("That was considerate of you.", False),
        ("She could see you.", False),
        ("", False),
    ],
)
def test_modal_advice_is_found_by_whole_words(answer, is_advice):
    assert templates.modal_advice([answer]) == is_advice


# Stated levels


def stated(levels, emotion=None, formed=True):
    emotion = range(len(levels)) if emotion is None else emotion
    return pd.DataFrame({"stated_intensity": levels, "emotion": emotion, "well_formed": formed}).astype(
        {"stated_intensity": float, "emotion": float}
    )


def test_spread_of_equally_common_levels_that_follow_the_label():
    found = stated_levels.spread(stated([0, 1, 2, 3]))
    assert found == {
        "levels": 4,
        "bits": pytest.approx(2),
        "commonest": 0,
        "largest_share": 0.25,
        "spearman": pytest.approx(1),
    }


@pytest.mark.parametrize(("slips", "levels"), [(1, 1), (2, 2)])
def test_level_counts_as_used_from_two_in_a_hundred_on(slips, levels):
    assert stated_levels.spread(stated([1] * (100 - slips) + [3] * slips))["levels"] == levels


def test_spread_of_no_well_formed_response_is_not_defined():
    found = stated_levels.spread(stated([1, 2], formed=False))
    assert set(found.values()) == {None}


def test_turns_without_a_label_are_left_out_of_the_correlation():
    rows = stated([0, 1, 2, 5], emotion=[0, 1, 2, None])
    assert stated_levels.spread(rows)["spearman"] == pytest.approx(1)
    assert stated_levels.spread(rows.iloc[2:])["spearman"] is None


def test_commonest_level_is_that_of_each_training():
    table = pd.DataFrame(
        {"model": ["tuned"] * 6, "seed": [23] * 3 + [24] * 3, "stated_intensity": [1.0, 1.0, 2.0, 3.0, 3.0, np.nan]}
    )
    assert list(stated_levels.states_commonest(table)) == [1, 1, 0, 1, 1, 0]


def test_responses_that_state_nothing_have_no_commonest_level():
    table = pd.DataFrame({"model": ["base"] * 2, "seed": [-1] * 2, "stated_intensity": [np.nan, np.nan]})
    assert list(stated_levels.states_commonest(table)) == [0, 0]


def test_commonest_level_is_among_what_counts_as_drift():
    assert "commonest_level" in reward_hacking.DRIFTING


# The explained part


def scored(lengths, score):
    answers = [" ".join(["word"] * length) for length in lengths]
    return pd.DataFrame({"answer": answers, "answer_words": lengths, "empathy_raw": score})


def test_gain_that_is_all_length_is_explained_by_it():
    start, tuned = (np.arange(first, first + 20) for first in (5, 15))
    found = explained_gain.explained(scored(start, 0.1 * start), scored(tuned, 0.1 * tuned), "empathy_raw")
    assert found == {"difference": pytest.approx(1), "adjusted": pytest.approx(0, abs=1e-9), "share": pytest.approx(1)}


def test_gain_at_equal_length_is_not_explained():
    lengths = np.arange(5, 25)
    found = explained_gain.explained(
        scored(lengths, 0.01 * lengths), scored(lengths, 0.01 * lengths + 1), "empathy_raw"
    )
    assert found["share"] == pytest.approx(0, abs=1e-9)


def test_part_of_a_simulated_gain_is_found():
    rng = np.random.default_rng(2)
    start, tuned = rng.integers(5, 30, 4000), rng.integers(15, 40, 4000)
    noise = rng.normal(0, 0.3, (2, 4000))
    found = explained_gain.explained(
        scored(start, 0.05 * start + noise[0]), scored(tuned, 0.05 * tuned + 0.5 + noise[1]), "empathy_raw"
    )
    # Ten words more are worth 0.5, and so is the policy.
    assert found["share"] == pytest.approx(0.5, abs=0.03)


def test_coefficient_agrees_with_the_normal_equations():
    rng = np.random.default_rng(3)
    policy, covariates = np.repeat([0.0, 1.0], 30), rng.normal(size=(60, 4))
    covariates[30:, 0] += 1
    score = rng.normal(size=60) + policy + covariates[:, 0]
    design = np.column_stack([np.ones(60), policy, covariates])
    expected = np.linalg.solve(design.T @ design, design.T @ score)[1]
    assert explained_gain._coefficient(policy, covariates, score) == pytest.approx(expected)


def test_difference_within_its_standard_error_has_no_explained_part():
    lengths = np.arange(5, 25)
    score = np.tile([0.0, 1.0], 10)
    found = explained_gain.explained(scored(lengths, score), scored(lengths, score + 0.1), "empathy_raw")
    assert found["difference"] == pytest.approx(0.1)
    assert found["share"] is None


def test_policies_that_the_covariates_tell_apart_have_no_explained_part():
    short, long = np.full(20, 5), np.full(20, 9)
    found = explained_gain.explained(scored(short, short), scored(long, long), "empathy_raw")
    assert (found["adjusted"], found["share"]) == (None, None)


# The table


@pytest.mark.parametrize("seeds", [(23,), (23, 24)])
def test_table_has_a_cell_for_each_policy_and_the_range_of_several_trainings(seeds):
    found = varied_to_all(levels={("tuned", 23): 1}, seeds=seeds)
    analysis = {
        "audit": {"templates": found},
        "policies": ["base", "warm_start", "tuned"],
        "training_seeds": list(seeds),
    }
    rows = template_table.measures(analysis, PAGE) + template_table.explained(analysis, PAGE)
    assert {len(row) for row in rows} == {len(template_table.header(analysis))} == {4 + (len(seeds) > 1)}
    shares = next(row for row in rows if row[0].startswith("share of the commonest"))
    assert shares[3] == PAGE.number(found["policies"]["tuned"]["stated"]["largest_share"], 2)
    if len(seeds) > 1:
        assert shares[4] == PAGE.interval(found["by_seed"]["24"]["stated"]["largest_share"], 1.0, 2)


def test_criteria_are_named_with_their_numbers():
    text = verdicts.template_criteria(templates.CRITERIA)
    for number in ("more than 90%", "more than 1 bit,", "more than 20 percentage points", "above 50"):
        assert number in text
    stricter = templates.CRITERIA | {"self_bleu": 60.0}
    assert "above 60" in verdicts.template_criteria(stricter)
