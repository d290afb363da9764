import pytest

from gpro_empathy.analysis import rated_items
from gpro_empathy.data import ratings


def row(model="tuned", prompt="1.1", answer="That is hard.", seed=None, sample=0, message=None):
    seed = 23 if model == "tuned" and seed is None else seed
    return {
        "model": model, "seed": seed, "sample": sample, "prompt_id": prompt, "story": f"story {prompt[0]}",
        "prompt": message or f"message {prompt}", "answer": answer,
    }  # fmt: skip


def test_first_answers_of_the_starting_policy_and_of_the_first_training_are_rated():
    rows = [row("base", answer="not"), row("warm_start", answer="start"), row("warm_start", answer="no", sample=1)]
    rows += [row(seed=23, answer="first"), row(seed=23, answer="no", sample=1), row(seed=5, answer="no")]
    found = rated_items.items(rows)
    assert [(item.policy, item.answer) for item in found] == [("warm_start", "start"), ("tuned", "first")]
    assert found[0].hash == ratings.text_hash("message 1.1", "start")
    assert (found[0].prompt_id, found[0].story, found[0].message) == ("1.1", "story 1", "message 1.1")


def test_without_a_warm_start_the_base_is_rated():
    assert [item.policy for item in rated_items.items([row("base"), row()])] == ["base", "tuned"]


@pytest.mark.parametrize(("rows", "found"), [([], "no policy"), ([row()], "tuned"), ([row("base")], "base")])
def test_refuses_rollouts_that_compare_nothing(rows, found):
    with pytest.raises(ValueError, match=rf"{found}\b.*\btuned"):
        rated_items.items(rows)


def test_pairs_stand_by_prompt_and_equal_answers_make_none():
    rows = [row("base", "1.1", "a"), row("base", "2.1", "same"), row("base", "3.1", "c"), row("base", "4.1", "alone")]
    rows += [row("tuned", "3.1", "C"), row("tuned", "1.1", "A"), row("tuned", "2.1", " same\r\n")]
    found = rated_items.pairs(rated_items.items(rows))
    assert [(pair.start.answer, pair.tuned.answer) for pair in found] == [("a", "A"), ("c", "C")]
    assert all(pair.start.prompt_id == pair.tuned.prompt_id for pair in found)


def test_what_occurs_twice_is_rated_once():
    rows = [row("base", prompt, "a", message="Hm.") for prompt in ("1.1", "2.1")]
    rows += [row("tuned", prompt, "b", message="Hm.") for prompt in ("1.1", "2.1")]
    found = rated_items.items(rows)
    assert [(item.answer, item.prompt_id) for item in rated_items.distinct(found)] == [("a", "1.1"), ("b", "1.1")]
    assert len(rated_items.pairs(found)) == 1
