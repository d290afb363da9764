import pytest

import best_of


def row(prompt, story, empathy, reward):
    return {
        "prompt_id": prompt,
        "story": story,
        "sample": 0,
        "text": f"{prompt} {empathy}",
        "combined_reference": reward,
        "empathy_raw": empathy,
        **{name: 1.0 for name in best_of.MEASURED if name != "empathy_raw"},
    }


def test_the_answer_with_the_highest_reward_is_kept_for_each_prompt_and_the_first_of_equals():
    rows = [row("1.0", "a", 1.0, 0.2), row("1.0", "a", 2.0, 0.9), row("1.0", "a", 3.0, 0.9), row("2.0", "b", 4.0, 0.1)]
    assert [one["empathy_raw"] for one in best_of.best(rows)] == [2.0, 4.0]


def test_kept_answers_are_compared_with_the_mean_of_all_of_the_same_prompt():
    rows = [row(f"{p}.0", f"story {p}", value, value) for p in range(14) for value in (1.0, 2.0, 6.0)]
    found = best_of.compared(rows, best_of.best(rows))["empathy_raw"]
    assert (found["one_draw"], found["best"], found["difference"]) == (3.0, 6.0, 3.0)
    # Every story gains the same, so that nothing is uncertain.
    assert (found["low"], found["high"]) == pytest.approx((3.0, 3.0))


def test_few_stories_give_no_interval_and_a_run_without_a_term_no_row_of_it():
    rows = [row(f"{p}.0", f"story {p}", value, value) for p in range(6) for value in (1.0, 3.0)]
    for one in rows:
        del one["likelihood_raw"]
    found = best_of.compared(rows, best_of.best(rows))
    assert (found["empathy_raw"]["low"], found["empathy_raw"]["difference"]) == (None, 1.0)
    assert "likelihood_raw" not in found
    text = best_of.report({"validation": {"prompts": 6, "stories": 6, "measures": found}})
    assert "| empathy, reward's scorer | 2.00 | 3.00 | +1.00 |  |" in text


def test_the_table_has_each_split_and_measure():
    rows = [row(f"{p}.0", f"story {p}", value, value) for p in range(14) for value in (1.0, 3.0)]
    kept = best_of.best(rows)
    text = best_of.report({"test": {"prompts": 14, "stories": 14, "measures": best_of.compared(rows, kept)}})
    assert "## Test" in text
    assert "| empathy, reward's scorer | 2.00 | 3.00 | +1.00 | +1.00 to +1.00 |" in text
