"""Verdicts and tables of the results page, every cell as plain text."""

from collections.abc import Mapping, Sequence

from gpro_empathy.analysis import metric_names
from gpro_empathy.analysis.results import Analysis, ByIntensity
from gpro_empathy.report import template_table, verdicts
from gpro_empathy.report.number_format import PAGE


def findings(analysis: Analysis) -> list[dict[str, str]]:
    """Return the verdicts beside the headline: what was asked, and the answer."""
    test, audit = analysis["similarity_noninferiority"], analysis["audit"]
    similarity = verdicts.SIMILARITY[analysis["metrics"]["semantic_similarity_raw"]["verdict"]]
    loss = verdicts.LOSS[test["verdict"]].format(margin=f"{test['margin']:g}")
    return [
        {"what": "Semantic similarity", "text": f"{similarity}; {loss}."},
        {"what": "Held-out scorer", "text": verdicts.AUDIT[audit["verdict"]]},
        {"what": "Side effects", "text": verdicts.drift(audit)},
        {"what": "Templates", "text": verdicts.templates(audit["templates"])},
    ]


def tables(analysis: Analysis) -> list[dict]:
    """Return the tables of the page, cells as text."""
    policies, start = analysis["policies"], analysis["starting_policy"]
    header = [metric_names.POLICY_LABELS[policy] for policy in policies]
    compared = ["Metric", *header, "change", f"{percent(analysis['confidence'])} interval", "adjusted p", "verdict"]
    against = metric_names.POLICY_LABELS[start]
    return [
        {
            "title": "Declared metrics",
            "note": f"Change: tuned less {against}; p adjusted over the table by Holm's method.",
            "header": compared,
            "rows": _compared(analysis["metrics"], analysis["metric_order"], policies),
        },
        {
            "title": "Audit of the reward",
            "note": "What may drift beside the reward.",
            "header": compared,
            "rows": _compared(analysis["audit"]["metrics"], sorted(analysis["audit"]["metrics"]), policies),
        },
        {
            "title": "Templates",
            "note": _templates_note(analysis),
            "header": template_table.header(analysis),
            "rows": template_table.measures(analysis, PAGE) + template_table.explained(analysis, PAGE),
        },
        {
            "title": "Raw empathy by intensity of the user's turn",
            "note": "Means in label units; a dash stands where too few conversations allow no interval.",
            "header": ["Intensity (rounded label)", "prompts", *header, "change", compared[-3]],
            "rows": _by_intensity(analysis["by_intensity"], policies),
        },
    ]


def _templates_note(analysis: Analysis) -> str:
    found = analysis["audit"]["templates"]
    return (
        f"Over {found['answers']} answers of each policy, not within one; self-BLEU over {found['self_bleu_answers']}. Explained "
        "part: what length, modal words, words for the user and a final question mark account for."
    )


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:g}\N{NO-BREAK SPACE}%"


def _compared(metrics: Mapping, order: Sequence[str], policies: Sequence[str]) -> list[list[str]]:
    rows = []
    for name in order:
        comparison, digits = metrics[name], metric_names.digits(name)
        rows.append(
            [
                metric_names.label_with_unit(name),
                *(PAGE.number(comparison["means"][policy], digits) for policy in policies),
                PAGE.number(comparison["difference"], digits, signed=True),
                PAGE.interval(comparison["low"], comparison["high"], digits),
                PAGE.p_value(comparison["p_holm"]),
                comparison["verdict"],
            ]
        )
    return rows


def _by_intensity(intensity: ByIntensity, policies: Sequence[str]) -> list[list[str]]:
    values, rows = intensity["values"]["empathy_raw"], []
    for k, level in enumerate(intensity["levels"]):
        change = values["change"]["levels"][k]
        rows.append(
            [
                str(level["level"]),
                str(level["prompts"]),
                *(PAGE.number(values[policy]["levels"][k]["mean"], 2) for policy in policies),
                PAGE.number(change["mean"], 2, signed=True),
                PAGE.number(None, 2) if change["low"] is None else PAGE.interval(change["low"], change["high"], 2),
            ]
        )
    return rows
