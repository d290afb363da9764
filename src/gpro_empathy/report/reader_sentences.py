"""What the report says of the reader model, and of what its part in the reward means."""

from collections.abc import Mapping

from gpro_empathy.report import latex

TERMS = ("reader_sense", "reader_empathy")
# Whether a score asks for sense, by whether the reward has the reader model's term of sense.
SCORED = {
    True: r"One score, $r_{\mathrm{sense}}$, asks whether an answer makes sense. It was optimised, and is a prediction, so that it is no "
    "evidence of sense. Readings of this run's own answers are a better one; where language models read them, reward and judgement have one kind of "
    "source, and that this score goes with the readings is in part agreement with itself.",
    False: "No score in this report asks whether an answer makes sense.",
}
# What the reward sees of sense, in the discussion.
SEEN = {
    True: "what the reward sees of sense is what a small model learned from readings of answers; a policy that moves away from such answers leaves "
    "what it knows",
    False: "no term of the reward sees sense itself, and training that is paid by a score has no reason to keep what the score does not see",
}
_NAMES = {
    "reader_sense": r"$r_{\mathrm{sense}}$, the predicted mark of sense as a share of the highest",
    "reader_empathy": r"$r_{\mathrm{read}}$, the predicted mark (0 to 1) of whether a reader finds the answer empathetic",
}


def sees_sense(weights: Mapping[str, float]) -> bool:
    """Say whether the reward has the reader model's term of sense."""
    return "reader_sense" in weights


def reader(weights: Mapping[str, float], report: Mapping, encoder: str) -> str:
    """Say what the reader model is, and how well it tells answers apart; "" without its terms.

    Args:
        report: reports/reader.json.
        encoder: How the encoder is called.
    """
    used = [_NAMES[term] for term in TERMS if term in weights]
    if not used:
        return ""
    return (
        f"The \\emph{{reader model}} gives {' and '.join(used)}: a model on the encoder {encoder} that reads the message and then the answer, "
        f"trained on {latex.integer(report['trained_on'])} answers of warm-started and tuned policies to messages of the training stories, which a language model "
        r"had read and marked by the rules of \autoref{sec:sense}."
        f"{_accuracy(report['validation'])}"
    )


def _accuracy(found: Mapping | None) -> str:
    if found is None or None in (found["sensible"]["auc"], found["empathetic"]["auc"]):
        return ""
    aucs = [latex.number(found[name]["auc"], 2) for name in ("sensible", "empathetic")]
    return (
        f" Of {latex.integer(found['readings'])} answers to messages of the validation split it puts a sensible one above another "
        f"with probability {aucs[0]} (AUC), and an empathetic one with {aucs[1]}."
    )
