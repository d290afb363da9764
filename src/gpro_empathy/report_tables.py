"""The tables and examples of the report as LaTeX text."""

from collections.abc import Mapping, Sequence

import pandas as pd

from gpro_empathy import comparison, latex, metric_names, params

LABELS = ("emotion", "polarity", "empathy")
EXAMPLE_CHARACTERS = 420
WORST = 2


def setup_table(sections: Sequence[params.Section]) -> str:
    """Lay out all settings in two columns of key and value, section by section."""
    lines = []
    for section in sections:
        name = section.section_name()
        lines.append((rf"\textbf{{{latex.escape(name)}}}", ""))
        for key, value in section.model_dump().items():
            if isinstance(value, dict):
                lines.extend((latex.escape(f"{key}.{inner}"), _setting(item)) for inner, item in value.items())
            elif isinstance(value, list):
                lines.extend((latex.escape(key) if n == 0 else "", _setting(item)) for n, item in enumerate(value))
            else:
                lines.append((latex.escape(key), _setting(value)))
    half = (len(lines) + 1) // 2
    # The name of a section stands above its settings, not at the foot of a column.
    half += lines[half - 1][0].startswith(r"\textbf")
    left, right = lines[:half], [*lines[half:], *[("", "")] * (2 * half - len(lines))]
    body = [(*one, *other) for one, other in zip(left, right, strict=True)]
    cell = r">{\raggedright\arraybackslash}p{%s\linewidth}"
    columns = f"@{{}}l{cell % 0.22}@{{\\hspace{{2em}}}}l{cell % 0.22}@{{}}"
    return latex.GENERATED + latex.tabular(columns, ["setting", "value", "setting", "value"], body)


def _setting(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return rf"\num{{{value:g}}}"
    return latex.integer(value) if isinstance(value, int) else latex.escape(str(value))


def data_table(data: Mapping) -> str:
    """Lay out sizes and label statistics of the three splits."""
    body = []
    for split in ("train", "validation", "test"):
        row = data["splits"][split]
        body.append(
            [
                split,
                *(latex.integer(row[key]) for key in ("conversations", "turns", "prompts")),
                latex.number(row["mean_words"], 1),
                *(_mean_and_sd(row["labels"][label]) for label in LABELS),
            ]
        )
    header = ["split", "conversations", "turns", "prompts", "words per turn", *LABELS]
    return latex.GENERATED + latex.tabular("@{}lrrrrrrr@{}", header, body)


def _mean_and_sd(label: Mapping) -> str:
    if not label["n"]:
        return "--"
    return f"{latex.number(label['mean'], 2)} ({latex.number(label['sd'], 2)})"


def scorer_table(scorer: Mapping) -> str:
    """Lay out correlation and error of both scorers on the held-out splits."""
    body = []
    for name, title in (("reward", "reward's scorer"), ("audit", "second scorer")):
        for split in ("validation", "test"):
            row = scorer[name][split]
            quality = [f"{latex.number(row[key]['pearson'], 2)} ({latex.number(row[key]['mae'], 2)})" for key in LABELS]
            trained, turns = latex.integer(scorer[name]["train_turns"]), latex.integer(row["turns"])
            body.append([title, trained, split, turns, *quality, latex.number(row["mean_pearson"], 2)])
    header = ["", "trained on", "tested on", "turns", *LABELS, "mean $r$"]
    return latex.GENERATED + latex.tabular("@{}lrlrrrrr@{}", header, body)


def results_table(analysis: Mapping) -> str:
    """Lay out every declared metric: means of all policies, difference, tests and verdict."""
    policies = analysis["policies"]
    body = []
    for metric in analysis["metric_order"]:
        row, digits = analysis["metrics"][metric], metric_names.digits(metric)
        body.append(
            [
                latex.escape(metric_names.label(metric)),
                *(latex.number(row["means"][policy], digits) for policy in policies),
                latex.number(row["difference"], digits, signed=True),
                latex.interval(row["low"], row["high"], digits),
                latex.p_value(row["p_sign_flip"]),
                latex.p_value(row["p_holm"]),
                latex.p_value(row["p_wilcoxon"]),
                latex.number(row["d_z"], 2),
                latex.number(row["probability_of_improvement"], 2),
                _short_verdict(row["verdict"]),
            ]
        )
    names = [latex.escape(metric_names.POLICY_LABELS[policy]) for policy in policies]
    header = ["metric", *names, "diff.", "interval", "$p$", "$p$ adj.", "$p_W$", "$d_z$", "$P(+)$", "verdict"]
    columns = r"@{}>{\raggedright\arraybackslash}p{0.17\linewidth}" + "r" * (len(policies) + 7) + "l@{}"
    return latex.GENERATED + latex.tabular(columns, header, body)


def _short_verdict(verdict: str) -> str:
    return "--" if verdict == "no evidence of a change" else verdict


def audit_table(analysis: Mapping) -> str:
    """Lay out the audited metrics of starting and tuned policy."""
    start, body = analysis["starting_policy"], []
    for metric in comparison.AUDITED:
        row, digits = analysis["audit"]["metrics"][metric], metric_names.digits(metric)
        body.append(
            [
                latex.escape(metric_names.label_with_unit(metric)),
                *(latex.number(row["means"][policy], digits) for policy in (start, "tuned")),
                latex.number(row["difference"], digits, signed=True),
                latex.interval(row["low"], row["high"], digits),
                latex.p_value(row["p_holm"]),
                _short_verdict(row["verdict"]),
            ]
        )
    header = [
        "metric",
        latex.escape(metric_names.POLICY_LABELS[start]),
        "tuned",
        "diff.",
        "interval",
        "$p$ adj.",
        "verdict",
    ]
    return latex.GENERATED + latex.tabular("@{}lrrrrrl@{}", header, body)


def examples(table: pd.DataFrame) -> str:
    """Typeset the typical prompt of each intensity level, and the prompts whose empathy fell most."""
    start = comparison.starting_policy(table)
    wide = comparison.per_prompt(table, "empathy_raw")
    change = (wide["tuned"] - wide[start]).sort_index().sort_values(kind="stable")
    level = table.groupby("prompt_id")["level"].first()
    parts, shown = [], set()
    for value in sorted(level.dropna().unique()):
        ordered = change[level.loc[change.index] == value]
        prompt = ordered.index[(len(ordered) - 1) // 2]
        shown.add(prompt)
        title = f"Intensity {int(value)}: median of {len(ordered)} prompt{'s' * (len(ordered) > 1)}"
        parts.append(_example(table, prompt, start, title, change[prompt]))
    for prompt in [prompt for prompt in change.index if prompt not in shown][:WORST]:
        direction = "Largest loss" if change[prompt] < 0 else "Smallest gain"
        parts.append(_example(table, prompt, start, direction, change[prompt]))
    return latex.GENERATED + "\n".join(parts)


def _example(table: pd.DataFrame, prompt: str, start: str, title: str, change: float) -> str:
    rows = table[table["prompt_id"] == prompt].sort_values(["seed", "sample"], kind="stable")
    lines = [
        r"\par\medskip\noindent\begin{minipage}{\linewidth}\footnotesize\raggedright",
        rf"\textbf{{{latex.escape(title)}}} (mean change {latex.number(change, 2, signed=True)})\par",
        rf"\speaker{{user, {latex.escape(prompt)}}}{_excerpt(rows.iloc[0]['prompt'])}\par",
    ]
    for policy in (start, "tuned"):
        row, name = rows[rows["model"] == policy].iloc[0], metric_names.POLICY_LABELS[policy]
        if row["reasoning"]:
            lines.append(rf"\speaker{{{name}, reasoning}}\textit{{{_excerpt(row['reasoning'])}}}\par")
        scores = f"empathy {row['empathy_raw']:.2f}, similarity {row['semantic_similarity_raw']:.2f}"
        form = "answer" if row["well_formed"] else "malformed reply"
        lines.append(rf"\speaker{{{name}, {form} ({scores})}}{_excerpt(row['answer'])}\par")
    return "\n".join([*lines, r"\end{minipage}"]) + "\n"


def _excerpt(text: str) -> str:
    # The four lines of the reasoning are kept apart.
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return latex.escape(latex.shorten(" / ".join(lines), EXAMPLE_CHARACTERS)) or r"\emph{(empty)}"
