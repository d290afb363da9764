"""The tables of the report as LaTeX text."""

import itertools
from collections.abc import Mapping, Sequence

from gpro_empathy import params
from gpro_empathy.analysis import metric_names, reward_hacking, trainings
from gpro_empathy.analysis.results import Analysis, RunRatings
from gpro_empathy.labels import LABELS
from gpro_empathy.report import latex, rating_tables, template_table
from gpro_empathy.report.number_format import LATEX

# Columns of key and value in the table of settings.
COLUMNS = 3


def setup_table(sections: Sequence[params.Section]) -> str:
    """Lay out all settings that have a value in columns of key and value, section by section."""
    lines = []
    for section in sections:
        name = section.section_name()
        lines.append((rf"\textbf{{{latex.escape(name)}}}", ""))
        for key, value in section.model_dump().items():
            if value is None:
                continue
            if isinstance(value, dict):
                lines.extend((latex.escape(f"{key}.{inner}"), _setting(item)) for inner, item in value.items())
            elif isinstance(value, list):
                lines.extend((latex.escape(key) if n == 0 else "", _setting(item)) for n, item in enumerate(value))
            else:
                lines.append((latex.escape(key), _setting(value)))
    third = -(-len(lines) // COLUMNS)
    blocks = [_from_section_name(lines, place * third) for place in range(COLUMNS)] + [len(lines)]
    parts = [lines[start:end] for start, end in itertools.pairwise(blocks)]
    height = max(len(part) for part in parts)
    parts = [part + [("", "")] * (height - len(part)) for part in parts]
    body = [[cell for pair in row for cell in pair] for row in zip(*parts, strict=True)]
    columns = r"l>{\raggedright\arraybackslash}p{0.2\linewidth}"
    return latex.GENERATED + latex.tabular(f"@{{}}{columns * COLUMNS}@{{}}", ["setting", "value"] * COLUMNS, body)


def _from_section_name(lines: Sequence[tuple[str, str]], place: int) -> int:
    # The name of a section stands above its settings, not at the foot of a column.
    return place - 1 if place and lines[place - 1][0].startswith(r"\textbf") else place


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return latex.setting(value)
    return latex.integer(value) if isinstance(value, int) else latex.escape(str(value))


def data_table(data: Mapping) -> str:
    """Lay out sizes and label statistics of the three splits."""
    body = []
    for split in ("train", "validation", "test"):
        row = data["splits"][split]
        body.append(
            [
                split,
                *(latex.integer(row[key]) for key in ("stories", "conversations", "turns", "prompts")),
                latex.number(row["mean_words"], 1),
                *(_mean_and_sd(row["labels"][label]) for label in LABELS),
            ]
        )
    header = ["split", "stories", "conversations", "turns", "prompts", "words per turn", *LABELS]
    return latex.GENERATED + latex.tabular("@{}lrrrrrrrr@{}", header, body)


def _mean_and_sd(label: Mapping) -> str:
    if not label["n"]:
        return "--"
    return f"{latex.number(label['mean'], 2)} ({latex.number(label['sd'], 2)})"


def scorer_table(scorer: Mapping) -> str:
    """Lay out correlation and error of both scorers on the held-out splits."""
    body = []
    for name, title in (("reward", "reward's scorer"), ("audit", "held-out scorer")):
        for split in ("validation", "test"):
            row = scorer[name][split]
            quality = [f"{latex.number(row[key]['pearson'], 2)} ({latex.number(row[key]['mae'], 2)})" for key in LABELS]
            trained, turns = latex.integer(scorer[name]["train_turns"]), latex.integer(row["turns"])
            body.append([title, trained, split, turns, *quality, latex.number(row["mean_pearson"], 2)])
    header = ["", "trained on", "tested on", "turns", *LABELS, "mean $r$"]
    return latex.GENERATED + latex.tabular("@{}lrlrrrrr@{}", header, body)


def study_table(study: Analysis | None) -> str:
    """Lay out the change of every metric over the trainings of a study, if there is one."""
    body = [
        [
            latex.escape(metric_names.label_with_unit(row["metric"])),
            latex.number(row["mean"], digits, signed=True),
            latex.interval(row["low"], row["high"], digits),
            latex.interval(row["new_low"], row["new_high"], digits),
            latex.number(row["lowest"], digits, signed=True),
            latex.number(row["highest"], digits, signed=True),
            latex.p_value(row["p_holm"]),
            _verdict(row["verdict"]),
        ]
        for row in ([] if study is None else trainings.rows(study))
        for digits in [metric_names.digits(row["metric"])]
    ]
    none = [[r"\multicolumn{8}{@{}l@{}}{no study of several trainings is at hand}"]]
    header = [
        "metric",
        "mean",
        "interval of the mean",
        "for a new training",
        "lowest",
        "highest",
        "$p$ adj.",
        "verdict",
    ]
    return latex.GENERATED + latex.tabular("@{}lrrrrrrl@{}", header, body or none)


def results_table(analysis: Analysis, study: Analysis | None) -> str:
    """Lay out the comparison of every declared metric.

    Below it stands that of what the audit looks at beside those metrics. Verdicts are left out
    where the study has them.
    """
    own = trainings.deciding(study, analysis) is None
    policies, audited = analysis["policies"], analysis["audit"]["metrics"]
    declared = [
        _compared(metric, analysis["metrics"][metric], policies, own=own) for metric in analysis["metric_order"]
    ]
    others = [
        _compared(metric, audited[metric], policies, own=own)
        for metric in reward_hacking.AUDITED
        if metric not in analysis["metrics"]
    ]
    names = [latex.escape(metric_names.POLICY_LABELS[policy]) for policy in policies]
    header = ["metric", *names, "diff.", "interval", "new training", "$p$ adj.", *(["verdict"] if own else [])]
    columns = "@{}l" + "r" * (len(policies) + 4) + "l" * own + "@{}"
    return latex.GENERATED + latex.tabular(columns, header, declared, others)


def _compared(metric: str, row: Mapping, policies: Sequence[str], *, own: bool) -> list[str]:
    digits = metric_names.digits(metric)
    return [
        latex.escape(metric_names.label_with_unit(metric)),
        *(latex.number(row["means"][policy], digits) for policy in policies),
        latex.number(row["difference"], digits, signed=True),
        latex.interval(row["low"], row["high"], digits),
        "--" if row["new_low"] is None else latex.interval(row["new_low"], row["new_high"], digits),
        latex.p_value(row["p_holm"]),
        *([_verdict(row["verdict"])] if own else []),
    ]


def _verdict(verdict: str) -> str:
    return "--" if verdict == "no evidence of a change" else verdict


def effects_table(analysis: Analysis) -> str:
    """Lay out tests, effect sizes and detectable differences of every declared metric.

    The tests are unadjusted, and interquartile means are laid out too.
    """
    start, body = analysis["starting_policy"], []
    for metric in analysis["metric_order"]:
        row, digits = analysis["metrics"][metric], metric_names.digits(metric)
        middle = row["interquartile_means"]
        body.append(
            [
                latex.escape(metric_names.label(metric)),
                latex.p_value(row["p_sign_flip"]),
                latex.p_value(row["p_wilcoxon"]),
                latex.number(row["d_z"], 2),
                latex.number(row["cliffs_delta"], 2),
                latex.number(row["probability_of_improvement"], 2),
                latex.number(middle[start], digits),
                latex.number(middle["tuned"], digits),
                latex.number(row["smallest_detectable"], digits),
                latex.number(row["smallest_detectable_adjusted"], digits),
            ]
        )
    header = ["metric", "$p$", "$p_W$", "$d_z$", r"$\delta$", "$P(+)$", "IQM start", "IQM tuned", "det.", r"det.\ adj."]
    return latex.GENERATED + latex.tabular("@{}lrrrrrrrrr@{}", header, body)


def intensity_table(analysis: Analysis) -> str:
    """Lay out scores by the intensity of the user's turn, with the correlations in the last row."""
    start, intensity = analysis["starting_policy"], analysis["by_intensity"]
    columns = [("empathy_raw", start), ("empathy_raw", "tuned"), ("empathy_raw", "change")]
    columns += [(metric, "tuned") for metric in ("audit_empathy_raw", "answer_words") if metric in intensity["values"]]
    body = []
    for number, level in enumerate(intensity["levels"]):
        cells = [latex.integer(level[key]) for key in ("level", "prompts", "stories")]
        for metric, what in columns:
            row, digits = intensity["values"][metric][what]["levels"][number], metric_names.digits(metric)
            cells.append(latex.number(row["mean"], digits, signed=what == "change"))
            if what == "change":
                cells.append("--" if row["low"] is None else latex.interval(row["low"], row["high"], digits))
        body.append(cells)
    trends = [r"\multicolumn{3}{@{}l}{Spearman's $\rho$ ($p$)}"]
    for metric, what in columns:
        trend = intensity["values"][metric][what]["trend"]
        shown = (
            "--" if trend["spearman"] is None else f"{latex.number(trend['spearman'], 2)} ({latex.p_value(trend['p'])})"
        )
        trends += [shown, ""] if what == "change" else [shown]
    names = [f"{'held-out scorer' if metric == 'audit_empathy_raw' else 'words'}, tuned" for metric, _ in columns[3:]]
    start_name = latex.escape(metric_names.POLICY_LABELS[start])
    header = ["level", "prompts", "stories", f"empathy, {start_name}", "tuned", "change", "interval", *names]
    return latex.GENERATED + latex.tabular("@{}" + "r" * len(header) + "@{}", header, [*body, trends])


def prompts_table(analysis: Analysis) -> str:
    """Lay out the prompts that gained and lost most, with what else changed in them."""
    shown = ("empathy_raw", "audit_empathy_raw", "answer_words", "overlap", "distinct_2", "well_formed")
    body = []
    for title, rows in (("best", analysis["audit"]["best_prompts"]), ("worst", analysis["audit"]["worst_prompts"])):
        for number, row in enumerate(rows):
            cells = [latex.number(row[metric], metric_names.digits(metric), signed=True) for metric in shown]
            body.append([title if number == 0 else "", latex.escape(str(row["prompt_id"])), *cells])
    header = ["", "prompt", "empathy", "held-out scorer", "words", "overlap", "distinct bigrams", "well-formed"]
    return latex.GENERATED + latex.tabular("@{}llrrrrrr@{}", header, body)


def templates_table(analysis: Analysis) -> str:
    """Lay out how varied each policy's answers are, and what of the change that explains."""
    header = [latex.escape(name) for name in template_table.header(analysis)]
    parts = [
        [[latex.escape(row[0]), *row[1:]] for row in rows]
        for rows in (template_table.measures(analysis, LATEX), template_table.explained(analysis, LATEX))
    ]
    return latex.GENERATED + latex.tabular("@{}l" + "r" * (len(header) - 1) + "@{}", header, *parts)


def ratings_table(ratings: RunRatings) -> str:
    """Lay out what raters found in each policy's answers, if any were rated one by one."""
    rows = rating_tables.policies(ratings, LATEX)
    return _of_ratings(rating_tables.POLICY_HEADER, rows, "llr", "no ratings of single answers of this run")


def validity_table(ratings: RunRatings) -> str:
    """Lay out how every score goes with what raters found, if answers were rated."""
    rows = rating_tables.validity(ratings, LATEX)
    return _of_ratings(rating_tables.VALIDITY_HEADER, rows, "lr", "no ratings of this run's answers are at hand")


def _of_ratings(header: Sequence[str], rows: Sequence[Sequence[str]], columns: str, if_none: str) -> str:
    none = [[rf"\multicolumn{{{len(header)}}}{{@{{}}l@{{}}}}{{{if_none}}}"]]
    # What names a row is text, the rest are numbers.
    named = columns.count("l")
    body = [[*map(latex.escape, row[:named]), *row[named:]] for row in rows]
    columns += "r" * (len(header) - len(columns))
    return latex.GENERATED + latex.tabular(f"@{{}}{columns}@{{}}", header, body or none)
