"""What the report says of the reader model."""

from gpro_empathy.report import latex, reader_sentences

REPORT = {
    "trained_on": 3600,
    "validation": {
        "readings": 558,
        "sensible": {"share": 0.4, "auc": 0.714},
        "empathetic": {"share": 0.5, "auc": 0.766},
    },
}


def test_reader_model_is_told_where_the_reward_has_its_terms():
    text = reader_sentences.reader({"reader_sense": 1.0, "reader_empathy": 1.0}, REPORT, "MiniLM")
    assert r"\num{3600} answers" in text
    assert f"{latex.number(0.714, 2)} (AUC)" in text
    assert latex.number(0.766, 2) in text
    assert reader_sentences.reader({"empathy": 1.0}, REPORT, "MiniLM") == ""


def test_reader_model_that_was_measured_on_nothing_says_no_accuracy():
    unknown = REPORT["validation"] | {"sensible": {"share": 1.0, "auc": None}}
    for validation in (None, unknown):
        text = reader_sentences.reader({"reader_sense": 1.0}, REPORT | {"validation": validation}, "MiniLM")
        assert "AUC" not in text
        assert "empathetic" not in text


def test_sense_is_seen_by_the_reward_only_with_the_term():
    assert reader_sentences.sees_sense({"reader_sense": 1.0})
    assert not reader_sentences.sees_sense({"reader_empathy": 1.0})
