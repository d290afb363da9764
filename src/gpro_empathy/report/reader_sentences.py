"""What the report says of the reader model, and of what its part in the reward means."""

from collections.abc import Mapping

from gpro_empathy.report import latex

APPROACH = "approach_match"
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

# Scores that may enter against what is usual for the answer's approach.
_SYMBOLS = {
    "empathy": r"$r_{\mathrm{emp}}$",
    "reader_sense": r"$r_{\mathrm{sense}}$",
    "reader_empathy": r"$r_{\mathrm{read}}$",
}


def sees_sense(weights: Mapping[str, float]) -> bool:
    """Say whether the reward has the reader model's term of sense."""
    return not {"reader_sense", "relative_reader_sense"}.isdisjoint(weights)


def reader(weights: Mapping[str, float], report: Mapping, encoder: str) -> str:
    """Say what reader model and approach model are, and how well they tell answers apart.

    Of a model that no term of the reward needs nothing is said.

    Args:
        report: reports/reader.json.
        encoder: How the encoder is called.
    """
    used = [_NAMES[term] for term in _NAMES if term in weights or f"relative_{term}" in weights]
    relative = [_SYMBOLS[term] for term in _SYMBOLS if f"relative_{term}" in weights]
    sentences = [_reader(used, report, encoder)] if used else []
    if APPROACH in weights or relative:
        sentences.append(_approach(report))
    if relative:
        sentences.append(_relative(relative))
    return " ".join(sentences)


def _reader(used: list[str], report: Mapping, encoder: str) -> str:
    return (
        f"The \\emph{{reader model}} gives {' and '.join(used)}: a model on the encoder {encoder} that reads the message and then the answer, "
        f"trained on {latex.integer(report['trained_on'])} answers of warm-started and tuned policies to messages of the training stories, which a language model "
        r"had read and marked by the rules of \autoref{sec:sense}."
        f"{_accuracy(report['validation'])}"
    )


def _approach(report: Mapping) -> str:
    model, found, read = report["approach"], report["approach"]["validation"], report["validation"]
    text = (
        r"The \emph{approach model} gives $r_{\mathrm{app}}(u,a)=\log\sum_k p(k\mid u)\,p(k\mid a)/p(k)$, how much more often than by chance utterance and answer are "
        f"of one approach $k$: two multinomial logistic regressions on words and their pieces, trained on {latex.integer(model['trained_on'])} "
        f"demonstrations, each of which names one of {latex.integer(model['approaches'])} approaches, such as ``share the sadness''."
    )
    if found is not None:
        text += (
            f" Of {latex.integer(found['demonstrations'])} demonstrations of the validation split it finds the approach from the message alone in "
            f"{latex.percent(found['message'])}, and from the answer alone in {latex.percent(found['answer'])}."
        )
    if read is not None and read["sensible"]["approach_auc"] is not None:
        text += f" It tells a sensible answer from another with an AUC of {latex.number(read['sensible']['approach_auc'], 2)}."
    return text


def _relative(symbols: list[str]) -> str:
    return (
        f"The reward takes {latex.listed(symbols)} against what is usual for the approach of the answer, as $r(a)-\\sum_k p(k\\mid a)\\,\\mu_k$, where $\\mu_k$ is the mean score of "
        "demonstrations of approach $k$. Answers to grief have higher scores than answers to a joke, and a policy that is paid by the score "
        "itself learns to answer jokes as if they were grief."
    )


def _accuracy(found: Mapping | None) -> str:
    if found is None or None in (found["sensible"]["auc"], found["empathetic"]["auc"]):
        return ""
    aucs = [latex.number(found[name]["auc"], 2) for name in ("sensible", "empathetic")]
    return (
        f" Of {latex.integer(found['readings'])} answers to messages of the validation split it puts a sensible one above another "
        f"with probability {aucs[0]} (AUC), and an empathetic one with {aucs[1]}."
    )
