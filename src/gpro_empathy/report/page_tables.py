"""Verdicts and tables of the results page, every cell as plain text."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from gpro_empathy.analysis import metric_names, trainings
from gpro_empathy.analysis.baseline_results import Comparison
from gpro_empathy.analysis.results import Analysis, ByIntensity, RunRatings
from gpro_empathy.report import (
    baseline_section,
    baseline_tables,
    rating_tables,
    rating_verdicts,
    template_table,
    verdicts,
)
from gpro_empathy.report.number_format import PAGE

# What is compared where nothing is known of a baseline.
NO_BASELINE: Mapping[str, Any] = MappingProxyType({"state": "none"})


def findings(
    analysis: Analysis, ratings: RunRatings, study: Analysis | None, baseline: Mapping[str, Any] = NO_BASELINE
) -> list[dict[str, str]]:
    """Return the verdicts beside the headline: what was asked, and the answer."""
    margin = f"{analysis['similarity_noninferiority']['margin']:g}"
    decided = verdicts.carrier(study, analysis)["audit"]
    outside = verdicts.outside(study, analysis)
    conditions = verdicts.conditions(analysis["between_trainings"], str)
    over = "One training was run, and no study of several is at hand."
    against = baseline_section.summary(baseline, baseline_section.WEB)
    return [
        *([{"what": "Against the baseline", "text": against}] if against else []),
        {"what": "Several trainings", "text": over if study is None else verdicts.study(study, conditions, PAGE)},
        {"what": "Sense", "text": rating_verdicts.sense(ratings, PAGE)},
        *([{"what": "Preference", "text": rating_verdicts.preference(ratings, PAGE)}] if ratings["ratings"] else []),
        {"what": "Semantic similarity", "text": f"{verdicts.similarity(study, analysis, PAGE, margin)}."},
        {"what": "Held-out scorer", "text": verdicts.audit(study, analysis)},
        {"what": "Side effects", "text": verdicts.drift(decided)},
        {"what": "Templates", "text": verdicts.templates(decided["templates"])},
        *([{"what": "Beside the study", "text": outside}] if outside else []),
    ]


def tables(
    analysis: Analysis, ratings: RunRatings, study: Analysis | None, baseline: Mapping[str, Any] = NO_BASELINE
) -> list[dict]:
    """Return the tables of the page, cells as text.

    First are those against a baseline and that of several trainings, where there is one.
    """
    policies, start = analysis["policies"], analysis["starting_policy"]
    own = trainings.deciding(study, analysis) is None
    header = [metric_names.POLICY_LABELS[policy] for policy in policies]
    interval = f"{percent(analysis['confidence'])} interval"
    compared = [
        "Metric",
        *header,
        "change",
        interval,
        "for a new training",
        "adjusted p",
        *(["verdict"] if own else []),
    ]
    against = metric_names.POLICY_LABELS[start]
    of = "these weights" if len(analysis["training_seeds"]) == 1 else "the mean over trainings"
    return [
        *(_baseline(baseline) if baseline_section.is_compared(baseline) else []),
        *([] if study is None else [_trainings(study)]),
        *(_ratings(ratings) if ratings["ratings"] else []),
        {
            "title": "Declared metrics",
            "note": f"Change: tuned less {against}, with intervals for {of} and for a new training; p adjusted over the "
            f"table by Holm's method. {verdicts.decided(study, analysis)}.",
            "header": compared,
            "rows": _compared(analysis["metrics"], analysis["metric_order"], policies, own=own),
        },
        {
            "title": "Audit of the reward",
            "note": "What may drift beside the reward.",
            "header": compared,
            "rows": _compared(analysis["audit"]["metrics"], sorted(analysis["audit"]["metrics"]), policies, own=own),
        },
        {
            "title": "Templates",
            "note": _templates_note(analysis),
            "header": template_table.header(analysis),
            "rows": template_table.measures(analysis, PAGE) + template_table.explained(analysis, PAGE),
        },
        {
            "title": "Raw empathy by intensity of the user's turn",
            "note": "Means in label units; a dash stands where too few stories allow no interval.",
            "header": ["Intensity (rounded label)", "prompts", *header, "change", interval],
            "rows": _by_intensity(analysis["by_intensity"], policies),
        },
    ]


def _templates_note(analysis: Analysis) -> str:
    found = analysis["audit"]["templates"]
    return (
        f"Over {found['answers']} answers of each policy, not within one; self-BLEU over {found['self_bleu_answers']}. Explained "
        "part: what length, modal words, words for the user and a final question mark account for."
    )


def _baseline(found: Comparison) -> list[dict]:
    web = baseline_section.WEB
    told = (
        baseline_section.differences(found, web),
        baseline_section.verdict(found, web),
        baseline_section.precision(found, web),
    )
    changed = baseline_tables.difference_rows(found, web)
    made = [
        {
            "title": "Against the baseline",
            "note": " ".join(told),
            "header": list(baseline_tables.HEADER),
            "rows": baseline_tables.rows(found, web),
        },
        {
            "title": "What differs from the baseline",
            "note": "Settings, versions of packages and the machine.",
            "header": list(baseline_tables.DIFFERENCES_HEADER),
            "rows": changed,
        },
    ]
    return made if changed else made[:1]


def _trainings(study: Analysis) -> dict:
    rows = []
    for row in trainings.rows(study):
        digits = metric_names.digits(row["metric"])
        rows.append(
            [
                metric_names.label_with_unit(row["metric"]),
                PAGE.number(row["mean"], digits, signed=True),
                PAGE.interval(row["low"], row["high"], digits),
                PAGE.interval(row["new_low"], row["new_high"], digits),
                PAGE.number(row["lowest"], digits, signed=True),
                PAGE.number(row["highest"], digits, signed=True),
                PAGE.p_value(row["p_holm"]),
                row["verdict"],
            ]
        )
    seeds = ", ".join(map(str, study["training_seeds"]))
    return {
        "title": "Several trainings",
        "note": f"Change by tuning over trainings with the seeds {seeds}; lowest and highest of one training.",
        "header": [
            "Metric",
            "mean",
            "interval of the mean",
            "for a new training",
            "lowest",
            "highest",
            "adjusted p",
            "verdict",
        ],
        "rows": rows,
    }


def _ratings(ratings: RunRatings) -> list[dict]:
    told = (
        rating_verdicts.raters(ratings),
        rating_verdicts.difference(ratings, PAGE),
        rating_verdicts.agreement(ratings, PAGE),
        rating_verdicts.power(ratings, PAGE),
    )
    interval = f"{percent(ratings['confidence'])} interval"
    made = [
        {
            "title": "Do the answers make sense?",
            "note": [f"Shares and means with their {interval}, for other stories and other raters."],
            "header": list(rating_tables.POLICY_HEADER),
            "rows": rating_tables.policies(ratings, PAGE),
        },
        {
            "title": "Do the scores go with the ratings?",
            "note": [
                rating_verdicts.validity(ratings, PAGE),
                f"Spearman's correlation with the mean marks, the AUC for what raters called sensible and empathetic, and the share "
                f"of decided pairs that the score orders as the raters did; each with its {interval} over stories.",
            ],
            "header": list(rating_tables.VALIDITY_HEADER),
            "rows": rating_tables.validity(ratings, PAGE),
        },
    ]
    # Pairs alone give no marks of policies: what holds of all ratings then stands above the scores.
    shown = [table for table in made if table["rows"]]
    shown[0]["note"] = [*told, *shown[0]["note"]]
    return [table | {"note": " ".join(filter(None, table["note"]))} for table in shown]


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:g}\N{NO-BREAK SPACE}%"


def _compared(metrics: Mapping, order: Sequence[str], policies: Sequence[str], *, own: bool) -> list[list[str]]:
    rows = []
    for name in order:
        comparison, digits = metrics[name], metric_names.digits(name)
        rows.append(
            [
                metric_names.label_with_unit(name),
                *(PAGE.number(comparison["means"][policy], digits) for policy in policies),
                PAGE.number(comparison["difference"], digits, signed=True),
                PAGE.interval(comparison["low"], comparison["high"], digits),
                _interval(comparison["new_low"], comparison["new_high"], digits),
                PAGE.p_value(comparison["p_holm"]),
                *([comparison["verdict"]] if own else []),
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
                _interval(change["low"], change["high"], 2),
            ]
        )
    return rows


def _interval(low: float | None, high: float | None, digits: int) -> str:
    return PAGE.missing if low is None else PAGE.interval(low, high, digits)
