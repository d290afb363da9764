"""What the report says of the reader model, and of what its part in the reward means."""

from collections.abc import Mapping

from gpro_empathy.calibration import RELATIVE
from gpro_empathy.report import latex
from gpro_empathy.report.number_format import listed

APPROACH = "approach_match"
# Whether a score asks for sense, by what the reward sees of it: `sees`.
SCORED = {
    "sense": r"One score, $r_{\mathrm{sense}}$, asks whether an answer makes sense. It was optimised, and is a prediction, so that it is no "
    "evidence of sense. Readings of this run's own answers are a better one; where language models read them, reward and judgement have one kind of "
    "source, and that this score goes with the readings is in part agreement with itself.",
    "kind": r"No score in this report asks whether an answer makes sense; one, $r_{\mathrm{app}}$, asks whether it is of the kind that its message gets.",
    "nothing": "No score in this report asks whether an answer makes sense.",
}
# What the reward sees of sense, in the discussion.
SEEN = {
    "sense": "what the reward sees of sense is what a small model learned from readings of answers; a policy that moves away from such answers leaves "
    "what it knows",
    "kind": "what the reward sees of sense is whether an answer is of the kind that its message gets, which an answer may be that makes none",
    "nothing": "no term of the reward sees sense itself, and training that is paid by a score has no reason to keep what the score does not see",
}
_NAMES = {
    "reader_sense": r"$r_{\mathrm{sense}}$, the predicted mark of sense as a share of the highest",
    "reader_empathy": r"$r_{\mathrm{read}}$, the predicted mark (0 to 1) of whether a reader finds the answer empathetic",
}

# Scores that may enter against what is usual for the answer's approach.
_SYMBOLS = {
    "empathy": r"$r_{\mathrm{emp}}$",
    "reader_sense": r"$r_{\mathrm{sense}}$",
    "reader_empathy": r"$r_{\mathrm{read}}$",
}


def sees(weights: Mapping[str, float]) -> str:
    """Return the key of SCORED and SEEN: what the reward sees of the sense of an answer."""
    if "reader_sense" in weights or f"{RELATIVE}reader_sense" in weights:
        return "sense"
    return "kind" if APPROACH in weights else "nothing"


def reader(weights: Mapping[str, float], report: Mapping, encoder: str) -> str:
    """Say what reader model and approach model are, and how well they tell answers apart.

    Of a model that no term of the reward needs nothing is said.

    Args:
        report: reports/reader.json.
        encoder: How the encoder is called.
    """
    used = [name for term, name in _NAMES.items() if term in weights or RELATIVE + term in weights]
    relative = [symbol for term, symbol in _SYMBOLS.items() if RELATIVE + term in weights]
    sentences = [_reader(used, report, encoder)] if used else []
    if APPROACH in weights or relative:
        sentences.append(_approach_model(report["approach"]))
    if APPROACH in weights:
        sentences.append(_match(report["validation"]))
    if relative:
        sentences.append(_relative(relative, report["approach"]["averaged"]))
    return " ".join(sentences)


def _reader(used: list[str], report: Mapping, encoder: str) -> str:
    return (
        f"The \\emph{{reader model}} gives {' and '.join(used)}: a model on the encoder {encoder} that reads the message and then the answer, "
        f"trained on {latex.integer(report['trained_on'])} answers of warm-started and tuned policies to messages of the training stories, which a language model "
        r"had read and marked by the rules of \autoref{sec:sense}."
        f"{_accuracy(report['validation'])}"
    )


def _approach_model(report: Mapping) -> str:
    text = (
        r"The \emph{approach model} says of an utterance $u$ and of an answer $a$, each by itself, how likely it is of the approach $k$: $p(k\mid u)$ and $p(k\mid a)$, by "
        f"two multinomial logistic regressions on words and their pieces. They learned from {latex.integer(report['trained_on'])} demonstrations, each of which "
        f"names one of {latex.integer(report['approaches'])} approaches, most often ``{latex.escape(report['commonest'])}''."
    )
    if found := report["validation"]:
        text += (
            f" Of {latex.integer(found['demonstrations'])} demonstrations of the validation split it finds the approach from the message alone in "
            f"{latex.percent(found['message'])}, and from the answer alone in {latex.percent(found['answer'])}."
        )
    return text


def _match(read: Mapping | None) -> str:
    text = r"The score $r_{\mathrm{app}}(u,a)=\log\sum_k p(k\mid u)\,p(k\mid a)/p(k)$ is how much more often than by chance such a message gets an answer of this approach, in nats."
    if read is None or read["sensible"]["approach_auc"] is None:
        return text
    return f"{text} It tells a sensible answer from another with an AUC of {latex.number(read['sensible']['approach_auc'], 2)}."


def _relative(symbols: list[str], averaged: int) -> str:
    return (
        f"The reward takes {listed(symbols)} against what is usual for the approach of the answer, as $r(a)-\\sum_k p(k\\mid a)\\,\\mu_k$, where "
        f"$\\mu_k$ is the mean score of at most {latex.integer(averaged)} demonstrations of approach $k$: how an answer is worded then counts, and not what kind of answer it is."
    )


def _accuracy(found: Mapping | None) -> str:
    if found is None or None in (found["sensible"]["auc"], found["empathetic"]["auc"]):
        return ""
    aucs = [latex.number(found[name]["auc"], 2) for name in ("sensible", "empathetic")]
    return (
        f" Of {latex.integer(found['readings'])} answers to messages of the validation split it puts a sensible one above another "
        f"with probability {aucs[0]} (AUC), and an empathetic one with {aucs[1]}."
    )
