"""The sweeps of reports/sweeps in the report: verdict, table and section.

Each sweep's folder holds the table and the figure that the paper takes in, and summary.json, which
`tools/sweep_estimates.py` describes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from gpro_empathy import files
from gpro_empathy.analysis import metric_names
from gpro_empathy.report import latex
from gpro_empathy.report.number_format import LATEX, PAGE, NumberFormat

FOLDER = Path("reports/sweeps")
SUMMARY = "summary.json"
# What table and figure show, where the runs have it; summary.json and results.csv have the rest.
SHOWN = ("empathy_raw", "audit_empathy_raw", "semantic_similarity_raw", "answer_words")
# What verdict and table compare with the reference.
COMPARED = {"empathy_raw": "reward", "audit_empathy_raw": "held-out"}
_NEEDED = frozenset(
    {"name", "keys", "seeds", "arms", "reference", "confidence_together", "metric_order", "other_measures"}
)
_LONGEST_REASON = 100
# The settings, or mappings of them, whose sweeps answer a question of the report's results, in
# `answer` and only there.
TEMPERATURE, WEIGHTS = "rewards.calibration_temperature", "rewards.weights"
ABOUT = (
    "Change by tuning under each setting, with its interval over stories and trainings (empathy in label units, length in "
    "words); the differences are that change on the reward's and on the held-out scorer, less the reference's, with intervals "
    "that hold together for all settings."
)
METHOD = (
    "A setting is compared with the reference by the change that tuning makes under it, over the same prompts and training seeds. "
    "How far trainings lie apart is estimated from all runs of a sweep together, as what effects of setting and seed leave of "
    "their mean changes, and taken to be the same under every setting. The intervals of differences resample stories, are widened "
    "by that spread, and hold for all settings of a sweep at once, by Bonferroni's inequality; the interval of a setting's own "
    "change takes the spread of its own trainings."
)


def read(root: Path) -> list[dict]:
    """Read the summary of every sweep, by name; there may be none, and no folder.

    Raises:
        UserError: If one is of another version.
    """
    found = []
    for path in sorted((root / FOLDER).glob(f"*/{SUMMARY}")):
        summary = files.read_json(path)
        if not isinstance(summary, dict) or not summary.keys() >= _NEEDED:
            name = path.parent.name
            raise files.UserError(f"{FOLDER / name / SUMMARY}: is of another version; run `make sweep NAME={name}`")
        found.append(summary)
    return found


def shown(summary: Mapping) -> list[str]:
    """Return the metrics that table and figure show."""
    return [metric for metric in SHOWN if metric in summary["metric_order"]]


def title(summary: Mapping) -> str:
    """Return the sweep's name as a heading."""
    words = summary["name"].replace("_", " ").replace("-", " ")
    return words[0].upper() + words[1:]


def runs(summary: Mapping) -> str:
    """Say how many runs there are, and how many of them failed or are missing."""
    done, failed, missing = (sum(len(arm[key]) for arm in summary["arms"]) for key in ("done", "failed", "missing"))
    parts = [f"{done} of {done + failed + missing} trainings are done"]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{missing} are missing" if missing > 1 else "one is missing"] if missing else []
    seeds = ", ".join(map(str, summary["seeds"]))
    return f"{'; '.join(parts)} (training seeds {seeds})."


def verdict(summary: Mapping, form: NumberFormat) -> str:
    """Say which settings differ from the reference in the change of empathy, on both scorers."""
    return " ".join(_verdict(summary, metric, form) for metric in COMPARED if metric in summary["metric_order"])


def _verdict(summary: Mapping, metric: str, form: NumberFormat) -> str:
    found = [(arm["label"], arm["against"][metric]) for arm in summary["arms"] if metric in arm["against"]]
    label, reference = metric_names.label(metric), summary["arms"][summary["reference"]]["label"]
    told = [(name, one) for name, one in found if one["verdict"] != "not told"]
    if keys := summary["other_measures"].get(metric):
        return f"On {label}: settings are not compared, as {_words(form)(' and '.join(keys))} makes it another measure."
    if not found:
        return f"On {label}: there are no two settings yet whose finished runs can be compared."
    if not told:
        return f"On {label}: so few trainings, or stories, cannot tell what a setting changes from what another seed would."
    quoted, digits = _quoted(form), metric_names.digits(metric)
    differing = [(name, one) for name, one in told if one["verdict"] != "no evidence"]
    listed = "; ".join(
        f"the change is {one['verdict']} under {quoted(name)} than under {quoted(reference)}, by {form.estimate(one, digits)}"
        for name, one in differing
    )
    if differing:
        rest = "" if len(differing) == len(told) else "; no other setting is shown to differ"
        return f"On {label}: {listed}{rest}."
    low, high = min(one["low"] for _, one in told), max(one["high"] for _, one in told)
    return (
        f"On {label}: no setting is shown to differ from {quoted(reference)}; the intervals of the differences reach from "
        f"{form.number(low, digits, signed=True)} to {form.number(high, digits, signed=True)}."
    )


def _words(form: NumberFormat) -> Callable[[str], str]:
    return latex.escape if form is LATEX else str


def _quoted(form: NumberFormat) -> Callable[[str], str]:
    opening, closing = (
        ("``", "''") if form is LATEX else ("\N{LEFT DOUBLE QUOTATION MARK}", "\N{RIGHT DOUBLE QUOTATION MARK}")
    )
    return lambda text: f"{opening}{_words(form)(text)}{closing}"


def header(summary: Mapping) -> list[str]:
    """Return the head of the table, in plain text."""
    changes = [metric_names.short_label(metric) for metric in shown(summary)]
    less = [f"difference, {COMPARED[metric]}" for metric in COMPARED if metric in shown(summary)]
    return [" / ".join(key.partition(".")[2] for key in summary["keys"]), "trainings", *changes, *less]


def rows(summary: Mapping, form: NumberFormat) -> list[list[str]]:
    """Return a row for each setting: changes with intervals, and differences from the reference."""
    text, body = _words(form), []
    for k, arm in enumerate(summary["arms"]):
        counts = [f"{len(arm[key])} {key}" for key in ("failed", "missing") if arm[key]]
        trainings = f"{len(arm['done'])} ({', '.join(counts)})" if counts else str(len(arm["done"]))
        cells = [text(arm["label"]), trainings]
        cells += [_cell(arm["change"].get(metric), metric, form) for metric in shown(summary)]
        for metric in COMPARED:
            if metric in shown(summary):
                own = "reference" if k == summary["reference"] else None
                cells.append(own or _cell(arm["against"].get(metric), metric, form))
        body.append(cells)
    return body


def _cell(estimate: Mapping | None, metric: str, form: NumberFormat) -> str:
    return form.missing if estimate is None else form.estimate(estimate, metric_names.digits(metric))


def failures(summary: Mapping) -> list[str]:
    """Return, in plain text, which run failed and why."""
    return [
        f"{arm['label']}, seed {seed}, failed: {latex.shorten(reason, _LONGEST_REASON)}"
        for arm in summary["arms"]
        for seed, reason in arm["failed"].items()
    ]


def latex_table(summary: Mapping) -> str:
    """Lay out the table, with failed runs and their reasons below it."""
    head = [latex.escape(cell) for cell in header(summary)]
    failed = [[rf"\multicolumn{{{len(head)}}}{{@{{}}l@{{}}}}{{{latex.escape(line)}}}"] for line in failures(summary)]
    generated = "% Generated by `make sweep`: do not edit.\n"
    return generated + latex.tabular("@{}lr" + "r" * (len(head) - 2) + "@{}", head, rows(summary, LATEX), failed)


def question(summary: Mapping) -> str | None:
    """Return TEMPERATURE or WEIGHTS, the first of the two that a sweep varies; or None."""
    varied = [key for key in (TEMPERATURE, WEIGHTS) for one in summary["keys"] if f"{one}.".startswith(f"{key}.")]
    return next(iter(varied), None)


def answer(summaries: list[dict], key: str, otherwise: str) -> str:
    """Say in LaTeX what the sweeps of TEMPERATURE or WEIGHTS found, or `otherwise` without any."""
    found = [
        f"Policies were trained anew under {latex.integer(len(one['arms']))} settings of "
        rf"{_keys(one)} (\autoref{{tab:sweep-{one['name']}}}): {runs(one)} {verdict(one, LATEX)}"
        for one in summaries
        if question(one) == key
    ]
    return " ".join(found) or otherwise


def _keys(summary: Mapping) -> str:
    return " and ".join(rf"\stage{{{key}}}" for key in summary["keys"])


def latex_section(summaries: list[dict]) -> str:
    """Return the section on sweeps, which is empty where there is none."""
    if not summaries:
        return latex.GENERATED
    return f"{latex.GENERATED}\\section{{Sweeps}}\n\\label{{sec:sweeps}}\n{METHOD}\n\n" + "\n".join(
        map(_subsection, summaries)
    )


def _subsection(summary: Mapping) -> str:
    name = summary["name"]
    folder, more = f"{FOLDER}/{name}", latex.percent(summary["confidence_together"], 1)
    reference = latex.escape(summary["arms"][summary["reference"]]["label"])
    told = "" if question(summary) else verdict(summary, LATEX)
    source = rf"\source{{make sweep}}{{{folder}/{SUMMARY}}}"
    return rf"""\subsection{{{latex.escape(title(summary))}}}
\label{{sec:sweep-{name}}}
Trained anew under each of {latex.integer(len(summary["arms"]))} settings of {_keys(summary)}: {runs(summary)} {told}

\begin{{table}}[tb]
\centering\footnotesize
\setlength{{\tabcolsep}}{{4pt}}
\adjustbox{{max width=\linewidth,valign=t}}{{\input{{../{folder}/table}}}}
\caption{{{ABOUT} Reference: {reference}; intervals of {latex.percent(summary["confidence"])}, and of {more} for the differences.
{source}}}
\label{{tab:sweep-{name}}}
\end{{table}}

\begin{{figure}}[tb]
\centering
\includegraphics[width=\linewidth]{{../{folder}/figure.pdf}}
\caption{{Change by tuning under each setting, with its interval (thin: for a new training; small bars: training seeds). Square: the
reference; filled: differs from it. {source}}}
\label{{fig:sweep-{name}}}
\end{{figure}}
"""


def page_sections(summaries: list[dict]) -> list[dict]:
    """Return what the results page shows of each sweep, in plain text."""
    return [
        {
            "name": summary["name"],
            "title": title(summary),
            "note": [
                f"Varied: {', '.join(summary['keys'])}. {runs(summary)}",
                verdict(summary, PAGE),
                ABOUT,
                *(f"{line}." for line in failures(summary)),
            ],
            "header": header(summary),
            "rows": rows(summary, PAGE),
        }
        for summary in summaries
    ]
