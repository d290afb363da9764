import numpy as np
import pytest
from scipy import stats

from gpro_empathy.analysis import ratings_of_run
from gpro_empathy.data.ratings import Rating, text_hash

METRICS = ("empathy_raw", "answer_words", "intensity_agreement")


def response(model, prompt="1.1", sample=0, **changes):
    """Return a rollout row; the story is that of the prompt's conversation."""
    story = prompt.split(".")[0]
    row = {
        "model": model, "prompt_id": prompt, "sample": sample, "seed": 23 if model == "tuned" else None,
        "story": story, "conversation": story, "prompt": f"message {prompt}", "answer": f"{model} {prompt} {sample}",
        "emotion": 2.0, "stated_intensity": 2, "stated_approach": "listen", "empathy_raw": 1.0, "answer_words": 3,
    }  # fmt: skip
    return row | changes


def named(model, prompt="1.1", sample=0):
    return text_hash(f"message {prompt}", f"{model} {prompt} {sample}")


def single(name, sense=2, empathy=4, rater="A", kind="model"):
    return Rating(rater, kind, "single", name, None, None, sense, empathy)


def pair(choice, prompt="1.1", left="tuned", right="warm_start", rater="A", kind="model"):
    return Rating(rater, kind, "pair", named(left, prompt), named(right, prompt), choice, None, None)


def summary(ratings, rows):
    return ratings_of_run.summary({"a.csv": ratings}, rows, METRICS, 0.95, 200, np.random.default_rng(1))


def rows(prompts=3, samples=2):
    return [
        response(model, f"{n}.1", sample)
        for n in range(1, prompts + 1)
        for model in ("base", "warm_start", "tuned")
        for sample in range(samples)
    ]


def test_ratings_of_any_sample_and_policy_fit_and_others_are_counted():
    fitting = [single(named("tuned")), single(named("warm_start", "2.1", 1)), single(named("base")), pair("both")]
    other = [
        single(text_hash("message 1.1", "of another run")),
        single(text_hash("message 2.1", "tuned 1.1 0")),
        pair("left", right="base"),
        pair("left", prompt="9.1"),
        Rating("A", "model", "pair", named("tuned"), named("warm_start", "2.1"), "left", None, None),
    ]
    found = summary(fitting + other, rows())
    assert found["files"] == [{"file": "a.csv", "ratings": 9, "fitting": 4}]
    assert (found["ratings"], found["of_another_run"]) == (4, 5)
    assert found["raters"] == [{"rater": "A", "kind": "model", "singles": 3, "pairs": 1}]
    assert list(found["by_kind"]["model"]["policies"]) == ["base", "warm_start", "tuned"]


def test_of_several_marks_the_mean_counts_and_beside_it_the_lower_one():
    ratings = [single(named("tuned", "1.1"), 2, 5, "A"), single(named("tuned", "1.1"), 1, 2, "B")]
    ratings += [single(named("tuned", "2.1"), 2, 3, "B"), single(named("tuned", "3.1"), 0, 1, "B")]
    tuned = summary(ratings, rows())["by_kind"]["model"]["policies"]["tuned"]
    assert {name: share["estimate"] for name, share in tuned["shares"].items()} == {
        "sensible": pytest.approx(1.5 / 3),
        "off": pytest.approx(0.5 / 3),
        "nonsense": pytest.approx(1 / 3),
        "sensible_by_every_rater": pytest.approx(1 / 3),
        "empathetic": pytest.approx(1.5 / 3),
    }
    assert tuned["empathy"]["estimate"] == pytest.approx((3.5 + 3 + 1) / 3)
    assert (tuned["answers"], tuned["stories"], tuned["ratings"], tuned["raters"]) == (3, 3, 4, 2)
    assert tuned["shares"]["sensible"]["low"] is None


def test_choices_count_for_the_policy_whichever_side_it_stood_on():
    ratings = [
        pair("left", "1.1"),
        pair("right", "2.1", left="warm_start", right="tuned"),
        pair("left", "3.1", left="warm_start", right="tuned"),
        pair("neither", "1.1", rater="B"),
        pair("both", "2.1", rater="B"),
    ]
    found = summary(ratings, rows())["by_kind"]["model"]
    pairs = found["pairs"]
    assert {name: pairs[name] for name in ("wins", "losses", "both", "neither", "choices", "decided", "pairs")} == {
        "wins": 2, "losses": 1, "both": 1, "neither": 1, "choices": 5, "decided": 3, "pairs": 3,
    }  # fmt: skip
    # By pair: (1 + 1/2) / 2, (1 + 1/2) / 2, 0.
    assert pairs["win_rate"]["estimate"] == pytest.approx(0.5)
    assert pairs["left"]["estimate"] == pytest.approx(2 / 3)
    assert pairs["verdict"] == "no interval"
    assert (found["policies"], found["difference"]) == ({}, None)


def test_raters_who_chose_one_answer_agree_also_where_it_stood_on_other_sides():
    ratings = [
        pair("left", "1.1"), pair("right", "1.1", left="warm_start", right="tuned", rater="B"),
        pair("right", "2.1"), pair("left", "2.1", left="warm_start", right="tuned", rater="B"),
    ]  # fmt: skip
    assert summary(ratings, rows())["agreement"]["choice"]["models"] == {"items": 2, "alpha": 1.0, "reason": None}


def test_prompts_with_one_first_answer_by_both_policies_are_counted():
    given = rows() + [
        response(model, "4.1", sample, answer="Same.") for model in ("warm_start", "tuned") for sample in (0, 1)
    ]
    given += [response("warm_start", "5.1", 0), response("base", "6.1", answer="Same.")]
    pairs = summary([pair("left")], given)["by_kind"]["model"]["pairs"]
    assert (pairs["prompts"], pairs["alike"]) == (4, 1)


def test_ties_of_both_kinds_agree_as_a_judge_without_an_opinion_calls_neither_good():
    ratings = [
        pair("both", "1.1"), pair("neither", "1.1", rater="P", kind="person"),
        pair("left", "2.1"), pair("left", "2.1", rater="P", kind="person"),
    ]  # fmt: skip
    found = summary(ratings, rows())["agreement"]["choice"]["models_with_persons"]
    assert found == {"items": 2, "alpha": 1.0, "reason": None}


def test_difference_is_taken_within_prompt_and_rater():
    ratings = [
        single(named("tuned", "1.1"), 2, 5, "A"), single(named("warm_start", "1.1"), 1, 3, "A"),
        single(named("tuned", "1.1"), 1, 2, "B"), single(named("warm_start", "1.1"), 1, 1, "B"),
        single(named("tuned", "2.1"), 0, 1, "A"), single(named("warm_start", "2.1"), 2, 5, "A"),
        # No rater rated both.
        single(named("tuned", "3.1"), 2, 5, "A"), single(named("warm_start", "3.1"), 0, 1, "B"),
    ]  # fmt: skip
    change = summary(ratings, rows())["by_kind"]["model"]["difference"]
    assert (change["prompts"], change["raters"]) == (2, 2)
    assert change["sensible"]["estimate"] == pytest.approx(((1 + 0) / 2 - 1) / 2)
    assert change["empathy"]["estimate"] == pytest.approx(((2 + 1) / 2 - 4) / 2)


def test_two_raters_who_differ_could_have_shown_nothing():
    found = []
    for n in range(1, 13):
        for rater, better in (("A", "tuned"), ("B", "warm_start")):
            found += [single(named(of, f"{n}.1"), 2 if of == better else 0, 3, rater) for of in ("tuned", "warm_start")]
            found.append(pair("left" if better == "tuned" else "right", f"{n}.1", rater=rater))
    of_models = summary(found, rows(12))["by_kind"]["model"]
    assert of_models["difference"]["smallest_detectable"] is None
    assert (of_models["pairs"]["smallest_win_rate"], of_models["pairs"]["pairs_needed"]) == (None, None)


def test_smallest_change_has_students_quantiles():
    changes, found = [1] * 3 + [0] * 9, []
    for n, change in enumerate(changes, 1):
        found += [single(named("tuned", f"{n}.1"), 1 + change), single(named("warm_start", f"{n}.1"), 1)]
    smallest = summary(found, rows(12))["by_kind"]["model"]["difference"]["smallest_detectable"]
    error = np.std(changes, ddof=1) / np.sqrt(12)
    assert smallest == pytest.approx((stats.t.ppf(0.975, 11) + stats.t.ppf(0.8, 11)) * error)


def test_no_change_of_more_than_the_whole_is_named():
    # Between three such raters: degrees 2, a standard error of 0.58 and thus a change of 3.
    senses = {"A": (2, 0), "B": (0, 0), "C": (0, 2)}
    found = [
        single(named(policy, f"{n}.1"), sense, 3, rater)
        for n in range(1, 13)
        for rater, by_policy in senses.items()
        for policy, sense in zip(("tuned", "warm_start"), by_policy, strict=True)
    ]
    assert summary(found, rows(12))["by_kind"]["model"]["difference"]["smallest_detectable"] is None


def test_persons_and_models_are_not_pooled_and_persons_lead_where_they_rated_enough():
    many = rows(12)
    persons = [single(named("tuned", f"{n}.1"), 0, 1, "P", "person") for n in range(1, 13)]
    models = [single(named("tuned", f"{n}.1"), 2, 5, "M") for n in range(1, 13)]
    found = summary(persons + models, many)
    shares = {kind: of["policies"]["tuned"]["shares"]["sensible"]["estimate"] for kind, of in found["by_kind"].items()}
    assert shares == {"person": 0.0, "model": 1.0}
    assert found["leading"] == {"single": "person", "pair": None}
    assert summary(persons[:11] + models, many)["leading"]["single"] == "model"
    assert summary(persons[:3], many)["leading"]["single"] == "person"
    choices = [pair("both", f"{n}.1", rater="P", kind="person") for n in range(1, 13)]
    assert summary(choices + models, many)["leading"] == {"single": "model", "pair": "person"}
    assert found["agreement"]["sense"]["models_with_persons"]["alpha"] < 0


def test_an_answer_that_several_responses_gave_has_their_mean_score():
    same = [response(model, sample=k, answer="yes", empathy_raw=score) for model, k, score in
            [("warm_start", 0, 1.0), ("tuned", 0, 2.0), ("tuned", 1, 4.5)]]  # fmt: skip
    more = [response(model, "2.1", empathy_raw=7.0) for model in ("warm_start", "tuned")]
    base = [response("base"), response("base", "2.1")]
    answers = [text_hash("message 1.1", "yes"), named("tuned", "2.1"), named("warm_start", "2.1")]
    ratings = [single(name, sense, 1 + sense) for name, sense in zip(answers, (0, 1, 2), strict=True)]
    found = summary(ratings, [*base, *same, *more])["by_kind"]["model"]
    assert found["policies"]["warm_start"]["answers"] == found["policies"]["tuned"]["answers"] == 2
    # Scores 2.5, 7, 7 against marks 0, 1, 2.
    assert found["validity"]["empathy_raw"]["sense"]["estimate"] == pytest.approx(np.sqrt(3) / 2)
    assert found["validity"]["answer_words"]["sense"]["reason"] == "the score has one value alone"


def test_a_missing_metric_is_named():
    with pytest.raises(ValueError, match="'likes'"):
        ratings_of_run.summary({}, rows(), ["likes"], 0.95, 200, np.random.default_rng(1))
