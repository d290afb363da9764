"""What the report says of the reader model."""

from gpro_empathy.report import latex, reader_sentences

REPORT = {
    "trained_on": 3600,
    "validation": {
        "readings": 558,
        "sensible": {"share": 0.4, "auc": 0.714, "approach_auc": 0.733},
        "empathetic": {"share": 0.5, "auc": 0.766, "approach_auc": 0.6},
    },
    "approach": {
        "trained_on": 6364, "approaches": 18, "averaged": 100, "commonest": "share the sadness", "validation": {"demonstrations": 187, "message": 0.476, "answer": 0.909}
    },
}  # fmt: skip


def test_reader_model_is_told_where_the_reward_has_its_terms():
    weights = {"reader_sense": 1.0, "reader_empathy": 1.0}
    assert r"$r_{\mathrm{sense}}$" in reader_sentences.definitions(weights)
    assert r"$r_{\mathrm{read}}$" in reader_sentences.definitions(weights)
    text = reader_sentences.learned(weights, REPORT, "MiniLM")
    assert r"\num{3600} answers" in text
    assert f"{latex.number(0.714, 2)} (AUC)" in text
    assert latex.number(0.766, 2) in text
    assert "approach model" not in text


def test_models_that_the_reward_does_without_are_not_defined():
    assert reader_sentences.definitions({"empathy": 1.0}) == ""
    assert "No term" in reader_sentences.learned({"empathy": 1.0}, REPORT, "MiniLM")


def test_reader_model_that_was_measured_on_nothing_says_no_accuracy():
    unknown = REPORT["validation"] | {"sensible": {"share": 1.0, "auc": None}}
    for validation in (None, unknown):
        text = reader_sentences.learned({"reader_sense": 1.0}, REPORT | {"validation": validation}, "MiniLM")
        assert "AUC" not in text
        assert "empathetic" not in text


def test_approach_model_is_told_where_the_reward_has_its_term():
    weights = {"approach_match": 1.0}
    assert r"r_{\mathrm{app}}" in reader_sentences.definitions(weights)
    assert "less what is usual" not in reader_sentences.definitions(weights)
    text = reader_sentences.learned(weights, REPORT, "MiniLM")
    assert "reader model" not in text
    assert r"\num{6364} demonstrations" in text
    assert latex.percent(0.476) in text
    assert latex.percent(0.909) in text
    assert f"AUC of {latex.number(0.733, 2)}" in text


def test_scores_against_the_approach_are_told_with_both_models():
    weights = {"relative_empathy": 1.0, "relative_reader_empathy": 1.0}
    text = reader_sentences.definitions(weights)
    assert r"$r_{\mathrm{emp}}$ and $r_{\mathrm{read}}$ less what is usual" in text
    assert "reader model" in text
    assert "approach model" in text
    assert r"at most \num{100} demonstrations" in reader_sentences.learned(weights, REPORT, "MiniLM")


def test_sense_is_seen_by_the_reward_only_with_the_term():
    assert reader_sentences.sees({"reader_sense": 1.0, "approach_match": 1.0}) == "sense"
    assert reader_sentences.sees({"relative_reader_sense": 1.0}) == "sense"
    assert reader_sentences.sees({"approach_match": 1.0}) == "kind"
    assert reader_sentences.sees({"reader_empathy": 1.0}) == "nothing"
