"""The run against its baseline in words, for the report and the results page.

Each sentence is true whatever was found, also where one seed can tell nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpro_empathy.analysis import effects, metric_names
from gpro_empathy.analysis.baseline_results import (
    AS_A_SEED,
    NO_EVIDENCE,
    NOT_ADJUSTED,
    SPREAD_UNKNOWN,
    Comparison,
    MetricChange,
)
from gpro_empathy.report import latex
from gpro_empathy.report.number_format import LATEX, PAGE, NumberFormat, listed

HEADLINE = "empathy_raw"
# So many settings or files are named in a sentence.
NAMED = 3
# What a verdict on the headline metric adds to its numbers; a rise or fall has words of its own.
CLAUSES = {
    AS_A_SEED: "a training with another seed moves it as much, so that no effect is established",
    NOT_ADJUSTED: "by itself that is more than stories and seeds explain, but not once adjusted for the number of metrics, so that no "
    "effect is established",
    NO_EVIDENCE: "no change is established",
    SPREAD_UNKNOWN: "how far a training with another seed would move it is not known",
}
_KINDS = {
    "code": "other code or data, equal settings",
    "unknown": "equal settings; whether code and data are the same is not known",
    "machine": "equal settings and code on another machine or with other versions",
    "rerun": "a rerun, in which nothing that decides results was changed",
}
_NO_EFFECT = {
    "machine": "As settings and code are the baseline's, these differences are what rounding makes of a training, much as "
    "another seed does, and no effect of a setting.",
    "rerun": "As nothing that decides results was changed, these differences are the spread between trainings, and no effect.",
}


# What a verdict says of the metrics that have it.
_TOLD = {
    NOT_ADJUSTED: "more than stories and seeds explain, but not once adjusted for the number of metrics",
    AS_A_SEED: "these trainings differ by more than the stories explain, but a training with another seed moves it as much",
    SPREAD_UNKNOWN: "these trainings differ, and how far another seed would move it is not known",
    NO_EVIDENCE: "no evidence of a change",
}


@dataclass(frozen=True)
class Words:
    """How one kind of text writes numbers, names of settings, and any other text."""

    number: NumberFormat
    name: Callable[[str], str]
    text: Callable[[str], str]


PAPER = Words(LATEX, lambda name: rf"\stage{{{name}}}", latex.escape)
WEB = Words(PAGE, str, str)


def is_compared(found: Mapping[str, Any]) -> bool:
    """Say whether there are differences to show."""
    return found["state"] == "compared"


def is_told(found: Mapping[str, Any]) -> bool:
    """Say whether the report has a word on the baseline: not on none, nor in its own report."""
    return found["state"] in ("compared", "refused")


def summary(found: Mapping[str, Any], words: Words) -> str:
    """Return what the change did, and how sure that is, in a sentence; or that nothing is said."""
    if not is_told(found):
        return ""
    if not is_compared(found):
        reason = found["reason"]
        return words.text(f"The baseline is not compared with this run: {reason[0].lower()}{reason[1:]}")
    compared: Comparison = found
    start = f"Against the baseline ({_what(compared, words)}), "
    one = compared["metrics"].get(HEADLINE)
    if one is None:
        return f"{start}raw empathy is another measure and not compared; {_count(compared)}."
    value = words.number.number(one["difference"], metric_names.digits(HEADLINE), signed=True)
    return (
        f"{start}raw empathy of the tuned policy differs by {value} label units ({_interval(one, HEADLINE, words)}): "
        f"{_clause(one, compared['kind'])}."
    )


def _what(found: Comparison, words: Words) -> str:
    if found["kind"] != "settings":
        return _KINDS[found["kind"]]
    changed = [one for one in found["differs"]["settings"] if one["what"] in found["differs"]["deciding"]]
    named = [f"{words.name(one['what'])} {words.text(one['run'])} for {words.text(one['baseline'])}" for one in changed]
    rest = [f"{len(named) - NAMED} more settings"] if len(named) > NAMED else []
    return ", ".join(named[:NAMED] + rest)


def _interval(one: MetricChange, metric: str, words: Words) -> str:
    digits = metric_names.digits(metric)
    if one["spread_low"] is None:
        return f"{words.number.interval(one['low'], one['high'], digits)} for these trainings"
    return f"{words.number.interval(one['spread_low'], one['spread_high'], digits)} with the spread between trainings"


def _clause(one: MetricChange, kind: str) -> str:
    if kind in _NO_EFFECT:
        return "no setting was changed, so that this is the spread between trainings"
    return CLAUSES.get(one["verdict"], f"it {one['verdict']} by more than stories and seeds would move it")


def _count(found: Comparison) -> str:
    established = sum(one["verdict"] not in CLAUSES for one in found["metrics"].values())
    return f"of the {len(found['metrics'])} metrics that are, {established or 'none'} changed"


def verdict(found: Comparison, words: Words) -> str:
    """Return what is established of the metrics, and what is not."""
    by = {name: [metric for metric, one in ordered(found) if one["verdict"] == name] for name in CLAUSES}
    established = [(metric, one) for metric, one in ordered(found) if one["verdict"] not in CLAUSES]
    sentences = []
    if established:
        changes = [
            f"{metric_names.label(metric)} {one['verdict']} ({_value(metric, one, words)})"
            for metric, one in established
        ]
        sentences.append(f"By more than stories and seeds would move it, {listed(changes)}.")
    else:
        sentences.append("No change of a declared metric is established.")
    for name, told in _TOLD.items():
        if by[name]:
            labels = _labels(by[name])
            sentences.append(f"{labels[0].upper()}{labels[1:]}: {told}.")
    if found["kind"] in _NO_EFFECT:
        sentences.append(_NO_EFFECT[found["kind"]])
    return " ".join(sentences)


def _value(metric: str, one: MetricChange, words: Words) -> str:
    value = words.number.number(one["difference"], metric_names.digits(metric), signed=True)
    return f"{value}, {_interval(one, metric, words)}"


def differences(found: Comparison, words: Words) -> str:
    """Say what differs beside the scores, and what therefore cannot be told apart."""
    differs, trainings = found["differs"], found["trainings"]
    counts = " and ".join(
        f"{trainings[name]} training{'s' * (trainings[name] > 1)} of {whose}"
        for name, whose in (("run", "this run"), ("baseline", "the baseline"))
    )
    if found["commit"]:
        counts += f" (commit {words.name(found['commit'][:10])})"
    parts = {
        "settings": differs["settings"],
        "versions of packages": differs["packages"],
        "the machine": differs["machine"],
        "code or data": differs["files"],
    }
    named = [name for name, changed in parts.items() if changed]
    sentences = [
        f"Compared are {counts}. {f'What differs: {listed(named)}.' if named else 'Nothing that is recorded differs.'}"
    ]
    if differs["files"]:
        shown = [words.name(path) for path in differs["files"][:NAMED]]
        rest = [f"{len(differs['files']) - NAMED} more"] if len(differs["files"]) > NAMED else []
        sentences.append(f"Other code or data: {', '.join(shown + rest)}.")
    if differs["files"] is None:
        sentences.append("Whether code and data differ is not known.")
    if found["kind"] not in _NO_EFFECT and len(named) > 1:
        sentences.append(
            f"The effects of these are not told apart; to see one alone, freeze a run ({words.name('make baseline')}) that differs in it alone."
        )
    if left_out := found["left_out"]:
        settings = sorted(set().union(*left_out.values()))
        sentences.append(
            f"Not compared, as other settings make another measure of it ({', '.join(map(words.name, settings))}): {_labels(list(left_out))}."
        )
    return " ".join(sentences)


def precision(found: Comparison, words: Words) -> str:
    """Say where the spread between trainings is from, and what one training could have shown."""
    spread, metric = found["spread"], HEADLINE if HEADLINE in found["metrics"] else found["metric_order"][0]
    sources = ["the runs themselves"] * spread["runs"]
    if spread["study"]:
        sources.append(f"the study of {spread['study']} trainings in {words.name('reports/seeds')}")
    one, digits = found["metrics"][metric], metric_names.digits(metric)
    if not sources:
        other = ", ".join(map(words.name, spread["other_conditions"][:NAMED]))
        why = (
            f"the study at hand was made under other conditions ({other})"
            if other
            else "no study of several trainings is at hand"
        )
        return (
            f"How far trainings lie apart is not known, as {why}: {words.name('make seeds')} shows it, and until then the "
            "comparison holds for these weights alone."
        )
    least, strict = (words.number.number(one[key], digits) for key in ("smallest_of_one", "smallest_of_one_adjusted"))
    power = latex.percent(effects.POWER) if words is PAPER else f"{100 * effects.POWER:g}\N{NO-BREAK SPACE}%"
    return (
        f"The spread between trainings is that of {listed(sources)}, taken to be the same before and after the change. A single "
        f"training would have shown a difference of {least} in {metric_names.label(metric)} with {power} power, or of {strict} where Holm's method "
        "is strictest; of smaller ones it can say nothing."
    )


def macros(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the macros of the section, empty where there is none."""
    told, compared = is_told(found), is_compared(found)
    sentences = {
        "RunBaselineDifferences": differences,
        "RunBaselineVerdict": verdict,
        "RunBaselinePrecision": precision,
    }
    return {
        # Numbers that \ifnum compares.
        "RunBaselineTold": str(int(told)),
        "RunBaselineCompared": str(int(compared)),
        "RunBaselineSummary": summary(found, PAPER),
        **{name: sentence(found, PAPER) if compared else "" for name, sentence in sentences.items()},
    }


def ordered(found: Comparison) -> list[tuple[str, MetricChange]]:
    return [(metric, found["metrics"][metric]) for metric in found["metric_order"]]


def _labels(metrics: Sequence[str]) -> str:
    # Some labels have a comma of their own.
    return "; ".join(map(metric_names.label, metrics))
