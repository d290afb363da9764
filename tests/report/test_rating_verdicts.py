import pytest

from gpro_empathy.report import rating_verdicts
from gpro_empathy.report.latex import LATEX

MARKS = ("sense", "empathy", "choice")
GROUPS = ("persons", "models", "models_with_persons")


def estimate(value, low=None, high=None):
    return {"estimate": value, "low": low, "high": high}


def paired(kind, **changes):
    """Return ratings of pairs by one rater of a kind, and of nothing else."""
    pairs = {
        "prompts": 12, "alike": 0, "pairs": 10, "stories": 10, "raters": 1, "choices": 10, "decided": 6, "wins": 4, "losses": 2, "both": 3, "neither": 1,
        "win_rate": estimate(0.6), "left": estimate(0.9), "smallest_win_rate": None, "pairs_needed": None,
        "verdict": "no interval",
    }  # fmt: skip
    return {
        "ratings": 10,
        "starting_policy": "warm_start",
        "leading": {"single": None, "pair": kind},
        "by_kind": {kind: {"pairs": pairs | changes}},
    }


def test_ties_of_a_judge_are_told_as_ties_and_its_sides_are_not():
    text = rating_verdicts.preference(paired("model"), LATEX)
    assert "in 3 both were called good, or another one in each order, and in 1 neither" in text
    assert "both were good" not in text
    assert "left" not in text


def test_prompts_that_both_policies_answered_alike_are_told():
    said = "differ on 10 of 12 prompts and are alike on the others, which are not counted. In 10 choices over 10 of these pairs, by one person"
    assert said in rating_verdicts.preference(paired("person", alike=2), LATEX)
    assert "are alike on" not in rating_verdicts.preference(paired("person"), LATEX)


def test_ties_of_a_person_are_told_by_kind_and_so_is_the_side():
    text = rating_verdicts.preference(paired("person"), LATEX)
    assert "in 3 both were good and in 1 neither" in text
    assert r"Of the 6 decided choices, \num{0.90} are of the left answer." in text


def test_kinds_that_lead_on_nothing_end_no_sentence_in_the_middle():
    raters = [{"rater": kind, "kind": kind, "singles": 3, "pairs": 0} for kind in ("person", "model")]
    found = {
        "by_kind": {"person": {}, "model": {}},
        "raters": raters,
        "leading": {"single": None, "pair": None},
        "of_another_run": 0,
    }
    text = rating_verdicts.raters(found)
    assert text.endswith("They are not pooled.")


@pytest.mark.parametrize("mark", MARKS)
def test_any_mark_that_people_and_models_share_says_how_far_a_model_stands_for_a_person(mark):
    none = {"items": 0, "alpha": None, "reason": "nothing was rated twice"}
    agreement = {name: dict.fromkeys(GROUPS, none) for name in MARKS}
    agreement[mark] = agreement[mark] | {"models_with_persons": {"items": 5, "alpha": 0.4, "reason": None}}
    text = rating_verdicts.agreement({"ratings": 10, "agreement": agreement}, LATEX)
    assert "how far a model can stand for a person" in text


@pytest.mark.parametrize(
    ("share", "verdict"),
    [
        (estimate(0.4, 0.3, 0.49), "do not"),
        (estimate(0.4, 0.2, 0.6), "open"),
        (estimate(0.0), "open"),
        (estimate(0.9), "open"),
        (estimate(0.6, 0.51, 0.7), "do"),
    ],
)
def test_sense_is_decided_by_an_interval_that_leaves_one_half_out(share, verdict):
    found = {"policies": {"tuned": {"shares": {"sensible": share}}}}
    ratings = {"leading": {"single": "person"}, "by_kind": {"person": found}}
    assert rating_verdicts.sense_verdict(ratings) == verdict
