"""The table of templates, for the report and the results page: cells in either number format."""

from collections.abc import Callable, Sequence

from gpro_empathy.analysis import metric_names
from gpro_empathy.analysis.results import Analysis, TemplateMeasures
from gpro_empathy.report.number_format import NumberFormat

# Name, digits after the point, and the value among the measures of a policy or training.
_MEASURES: tuple[tuple[str, int, Callable[[TemplateMeasures], float | None]], ...] = (
    ("distinct words of all answers", 3, lambda one: one["distinct_1"]),
    ("distinct bigrams of all answers", 3, lambda one: one["distinct_2"]),
    ("entropy of openings (bits, at most {most_bits:.2f})", 2, lambda one: one["opening_bits"]),
    ("self-BLEU (0 to 100)", 1, lambda one: one["self_bleu"]),
    ("answers with modal advice", 2, lambda one: one["modal_advice"]),
    ("stated levels used", 1, lambda one: one["stated"]["levels"]),
    ("entropy of stated levels (bits)", 2, lambda one: one["stated"]["bits"]),
    ("share of the commonest stated level", 2, lambda one: one["stated"]["largest_share"]),
    ("entropy of stated approaches (bits)", 2, lambda one: one["approaches"]["bits"]),
    ("share of the commonest stated approach", 2, lambda one: one["approaches"]["largest_share"]),
    ("stated level and label, Spearman", 2, lambda one: one["stated"]["spearman"]),
)
_EXPLAINED = {
    "empathy_raw": "explained part of the change, reward's scorer",
    "audit_empathy_raw": "explained part of the change, held-out scorer",
}


def header(analysis: Analysis) -> list[str]:
    """Return the header: the policies, and the trainings' range where there are several."""
    names = [metric_names.POLICY_LABELS[policy] for policy in analysis["policies"]]
    return ["measure", *names, *(["trainings"] if _several(analysis) else [])]


def measures(analysis: Analysis, form: NumberFormat) -> list[list[str]]:
    """Return a row for each measure of a policy's answers."""
    found, rows = analysis["audit"]["templates"], []
    for name, digits, value in _MEASURES:
        cells = [form.number(value(found["policies"][policy]), digits) for policy in analysis["policies"]]
        row = [name.format(most_bits=found["most_bits"]), *cells]
        rows.append(row + _range(analysis, [value(one) for one in found["by_seed"].values()], digits, form))
    return rows


def explained(analysis: Analysis, form: NumberFormat) -> list[list[str]]:
    """Return a row for each scorer: the part of the tuned policy's change that is explained."""
    rows = []
    for metric, name in _EXPLAINED.items():
        found = analysis["audit"]["templates"]["explained"][metric]
        before = [form.missing] * (len(analysis["policies"]) - 1)
        row = [name, *before, form.number(found["share"], 2)]
        rows.append(row + _range(analysis, list(found["share_by_seed"].values()), 2, form))
    return rows


def _several(analysis: Analysis) -> bool:
    return len(analysis["training_seeds"]) > 1


def _range(analysis: Analysis, values: Sequence[float | None], digits: int, form: NumberFormat) -> list[str]:
    """Return one cell, the least and the largest value of several trainings; of one, none."""
    if not _several(analysis):
        return []
    return [form.missing if None in values else form.interval(min(values), max(values), digits)]
