"""The table of what readers found, for the report and the results page: either number format."""

from gpro_empathy.analysis import metric_names
from gpro_empathy.analysis.results import PolicyReadings, Readings
from gpro_empathy.report.number_format import NumberFormat

# By the name among the counts.
_MARKS = {"sensible": "sensible", "off": "coherent but off", "nonsense": "nonsense", "empathetic": "empathetic"}
HEADER = ("policy", "answers", "stories", *_MARKS.values())


def rows(readings: Readings, form: NumberFormat) -> list[list[str]]:
    """Return a row for each policy that was read: counts, each with its share and interval."""
    found = readings["policies"]
    return [
        [metric_names.POLICY_LABELS[policy], str(one["answers"]), str(one["stories"]), *_cells(one, form)]
        for policy, one in ((name, found[name]) for name in metric_names.POLICIES if name in found)
    ]


def _cells(found: PolicyReadings, form: NumberFormat) -> list[str]:
    return [f"{found[name]}: {form.estimate(found['shares'][name], signed=False)}" for name in _MARKS]
