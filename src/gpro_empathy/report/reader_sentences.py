"""What the report says of reader model and approach model, and of their part in the reward."""

from collections.abc import Mapping

from gpro_empathy.calibration import RELATIVE
from gpro_empathy.report import latex
from gpro_empathy.report.number_format import listed

APPROACH = "approach_match"
# Whether a score asks for sense, by what the reward sees of it: `sees`.
SCORED = {
    "sense": r"One score, $r_{\mathrm{sense}}$, asks whether an answer makes sense. It was optimised, and is a prediction, so that it is no "
    "evidence of sense. Readings of this run's own answers are a better one; where language models read them, reward and judgement come from one kind of "
    "source, so that agreement of this score with the readings is partly that source's with itself.",
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
# What the reader model predicts, for the definitions and for the appendix.
_PREDICTS = {
    "reader_sense": r"how much sense a reader finds in it, as a share of the highest mark ($r_{\mathrm{sense}}$)",
    "reader_empathy": r"with what probability the reader finds it empathetic ($r_{\mathrm{read}}$)",
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


def definitions(weights: Mapping[str, float]) -> str:
    """Define the scores of both models that the reward has; without any, say nothing."""
    predicted, matched, relative = _scores(weights)
    sentences = []
    if predicted:
        sentences.append(
            r"The \emph{reader model} (\autoref{sec:scorer}) predicts of an answer, from message and answer, "
            f"{' and '.join(_PREDICTS[name] for name in predicted)}."
        )
    if matched or relative:
        sentences.append(
            r"The \emph{approach model} (\autoref{sec:scorer}) gives the probability $p(k\mid u)$ that an utterance calls for the approach $k$ (what an answer does, such as sharing a "
            r"feeling or asking back), and $p(k\mid a)$ that an answer takes it; $p(k)$ is its share among demonstrations."
        )
    if matched:
        sentences.append(
            r"The score $r_{\mathrm{app}}(u,a)=\log\sum_k p(k\mid u)\,p(k\mid a)/p(k)$ is how much more often than by chance such a message gets such an answer, in nats."
        )
    if relative:
        sentences.append(
            f"The reward takes {listed(relative)} less what is usual for the approach (\\emph{{relative}}), as $r-\\sum_k p(k\\mid a)\\,\\mu_k$ with the score's mean $\\mu_k$ over "
            "demonstrations of $k$: it pays how an answer is worded, and not of what kind it is."
        )
    return " ".join(sentences)


def learned(weights: Mapping[str, float], report: Mapping, encoder: str) -> str:
    """Say what the models behind `definitions` learned from, and how well they do.

    Args:
        report: reports/reader.json.
        encoder: How the encoder is called.
    """
    predicted, matched, relative = _scores(weights)
    if not (predicted or matched or relative):
        return "No term of this run's reward comes from a reader model or an approach model."
    sentences = [_reader(report, encoder)] if predicted else []
    if matched or relative:
        sentences.append(_approach(report["approach"]))
    if matched:
        sentences.append(_match(report["validation"]))
    if relative:
        averaged = latex.integer(report["approach"]["averaged"])
        sentences.append(f"What is usual for an approach is a mean over at most {averaged} demonstrations of it.")
    return " ".join(filter(None, sentences))


def _scores(weights: Mapping[str, float]) -> tuple[list[str], bool, list[str]]:
    predicted = [name for name in _PREDICTS if name in weights or RELATIVE + name in weights]
    relative = [symbol for term, symbol in _SYMBOLS.items() if RELATIVE + term in weights]
    return predicted, APPROACH in weights, relative


def _reader(report: Mapping, encoder: str) -> str:
    return (
        f"The reader model is one on the encoder {encoder} that reads the message and then the answer. It learned from {latex.integer(report['trained_on'])} answers of "
        r"warm-started and tuned policies to messages of the training stories, which a language model had read and marked by the rules of \autoref{sec:sense}."
        f"{_accuracy(report['validation'])}"
    )


def _approach(report: Mapping) -> str:
    text = (
        r"The approach model is two multinomial logistic regressions on words and their pieces, one for utterances and one for answers. They learned from "
        f"{latex.integer(report['trained_on'])} demonstrations, each of which names one of {latex.integer(report['approaches'])} approaches, most often "
        f"``{latex.escape(report['commonest'])}''."
    )
    if found := report["validation"]:
        text += (
            f" Of {latex.integer(found['demonstrations'])} demonstrations of the validation split they find the approach from the message alone in "
            f"{latex.percent(found['message'])}, and from the answer alone in {latex.percent(found['answer'])}."
        )
    return text


def _match(read: Mapping | None) -> str:
    if read is None or read["sensible"]["approach_auc"] is None:
        return ""
    auc = latex.number(read["sensible"]["approach_auc"], 2)
    return f"On the answers to validation messages that were read, $r_{{\\mathrm{{app}}}}$ tells a sensible one from another with an AUC of {auc}."


def _accuracy(found: Mapping | None) -> str:
    if found is None or None in (found["sensible"]["auc"], found["empathetic"]["auc"]):
        return ""
    aucs = [latex.number(found[name]["auc"], 2) for name in ("sensible", "empathetic")]
    return (
        f" Of {latex.integer(found['readings'])} answers to messages of the validation split it puts a sensible one above another "
        f"with probability {aucs[0]} (AUC), and an empathetic one with {aucs[1]}."
    )
