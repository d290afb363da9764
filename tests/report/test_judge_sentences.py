"""What the report says of the judge of replies."""

from gpro_empathy.report import judge_sentences, latex

REPORT = {
    "trained_on": 3600,
    "validation": {
        "readings": 558,
        "sensible": {"share": 0.4, "auc": 0.714},
        "empathetic": {"share": 0.5, "auc": 0.766},
    },
}


def test_judge_is_told_where_the_reward_has_its_terms():
    text = judge_sentences.judge({"judged_sense": 1.0, "judged_empathy": 1.0}, REPORT, "MiniLM")
    assert r"\num{3600} answers" in text
    assert f"{latex.number(0.714, 2)} (AUC)" in text
    assert latex.number(0.766, 2) in text
    assert judge_sentences.judge({"empathy": 1.0}, REPORT, "MiniLM") == ""


def test_judge_that_was_measured_on_nothing_says_no_accuracy():
    unknown = REPORT["validation"] | {"sensible": {"share": 1.0, "auc": None}}
    for validation in (None, unknown):
        text = judge_sentences.judge({"judged_sense": 1.0}, REPORT | {"validation": validation}, "MiniLM")
        assert "AUC" not in text
        assert "empathetic" not in text


def test_sense_is_seen_by_the_reward_only_with_the_term():
    assert judge_sentences.sees_sense({"judged_sense": 1.0})
    assert not judge_sentences.sees_sense({"judged_empathy": 1.0})
