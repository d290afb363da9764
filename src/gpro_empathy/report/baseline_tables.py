"""The run against its baseline: rows of tables for report and page, numbers for a figure."""

from gpro_empathy.analysis import metric_names
from gpro_empathy.analysis.baseline_results import NO_EVIDENCE, Comparison
from gpro_empathy.report import baseline_section, latex

# So many rows list what differs.
ROWS = 24
HEADER = (
    "metric",
    "baseline",
    "this run",
    "difference",
    "these trainings",
    "with other seeds",
    "adjusted p",
    "one shows",
    "verdict",
)
DIFFERENCES_HEADER = ("what", "baseline", "this run")


def latex_tables(found: dict) -> dict[str, str]:
    """Return the tables of the report, by name; empty where there is nothing to compare."""
    if not baseline_section.is_compared(found):
        return dict.fromkeys(("baseline_table", "baseline_differences_table"), latex.GENERATED)
    paper = baseline_section.PAPER
    changed = difference_rows(found, paper) or [[r"\multicolumn{3}{@{}l@{}}{no setting, version or machine}"]]
    return {
        "baseline_table": latex.GENERATED + latex.tabular("@{}lrrrrrrrl@{}", HEADER, rows(found, paper)),
        "baseline_differences_table": latex.GENERATED + latex.tabular("@{}lll@{}", DIFFERENCES_HEADER, changed),
    }


def rows(found: Comparison, words: baseline_section.Words) -> list[list[str]]:
    """Return a row a metric, under HEADER."""
    form, body = words.number, []
    for metric, one in baseline_section.ordered(found):
        digits = metric_names.digits(metric)
        spread = (
            form.missing if one["spread_low"] is None else form.interval(one["spread_low"], one["spread_high"], digits)
        )
        body.append(
            [
                words.text(metric_names.label_with_unit(metric)),
                form.number(one["baseline"], digits),
                form.number(one["run"], digits),
                form.number(one["difference"], digits, signed=True),
                form.interval(one["low"], one["high"], digits),
                spread,
                form.p_value(one["p_holm"]),
                form.number(one["smallest_of_one"], digits),
                words.text(one["verdict"]),
            ]
        )
    return body


def difference_rows(found: Comparison, words: baseline_section.Words) -> list[list[str]]:
    """Return a row for each setting, package and the machine that differ, the settings first."""
    differs = found["differs"]
    changed = [*differs["settings"], *differs["packages"], *differs["machine"]]
    body = [[words.text(one[key]) for key in ("what", "baseline", "run")] for one in changed[:ROWS]]
    return body + ([[f"and {len(changed) - ROWS} more", "", ""]] if len(changed) > ROWS else [])


def drawn(found: Comparison) -> dict[str, dict]:
    """Return the changes in the form that `figures.paired_differences` draws."""
    return {
        metric: {
            **{key: one[key] for key in ("difference", "low", "high", "sd_of_differences")},
            "new_low": one["spread_low"],
            "new_high": one["spread_high"],
            "by_seed": {},
            "verdict": NO_EVIDENCE if one["verdict"] in baseline_section.CLAUSES else one["verdict"],
        }
        for metric, one in baseline_section.ordered(found)
    }
