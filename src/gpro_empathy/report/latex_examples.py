"""The examples of the report as LaTeX text: what the policies were asked, thought and answered."""

import hashlib
from collections.abc import Sequence

import pandas as pd

from gpro_empathy.analysis import metric_names, response_table
from gpro_empathy.report import latex

EXAMPLE_CHARACTERS = 260
# Prompts that lost most, and tuned responses that score lowest.
WORST = 2


def examples(table: pd.DataFrame) -> str:
    """Typeset example prompts and responses, typical ones first.

    These are the typical prompt of each intensity level and the tuned response of median empathy;
    then the extreme prompts, and the tuned responses of lowest empathy.
    """
    start = response_table.starting_policy(table)
    wide = response_table.per_prompt(table, "empathy_raw")
    change = (wide["tuned"] - wide[start]).sort_index().sort_values(kind="stable")
    tuned = table[table["model"] == "tuned"].sort_values(["empathy_raw", "prompt_id", "seed", "sample"])
    middle = [(f"Median of {len(tuned)} tuned responses", tuned.iloc[len(tuned) // 2])]
    lowest = [("Lowest empathy of a tuned response", row) for _, row in tuned.head(WORST).iterrows()]
    parts = {
        "Typical answers": _typical_prompts(table, change, start) + _single(middle),
        "Extremes": _extreme_prompts(table, change, start) + _single(lowest),
    }
    # A heading must not be left alone at the foot of a page, nor stand above nothing.
    headed = [
        rf"\par\medskip\noindent\textbf{{\small {heading}}}\par\nobreak" + "\n" + "\n".join(boxes)
        for heading, boxes in parts.items()
        if boxes
    ]
    return latex.GENERATED + "\n".join(headed)


def _typical_prompts(table: pd.DataFrame, change: pd.Series, start: str) -> list[str]:
    """Show, for each level, the prompt whose change is the median of the level."""
    level = table.groupby("prompt_id")["level"].first()
    parts = []
    for value in sorted(level.dropna().unique()):
        ordered = change[level.loc[change.index] == value]
        prompt = ordered.index[(len(ordered) - 1) // 2]
        title = f"Intensity {int(value)}: median of {len(ordered)} prompt{'s' * (len(ordered) > 1)}"
        parts.append(_prompt(table, prompt, (start, "tuned"), title, change[prompt]))
    return parts


def _extreme_prompts(table: pd.DataFrame, change: pd.Series, start: str) -> list[str]:
    """Show the prompt that gained most and those that lost most."""
    gained = "Largest gain" if change.iloc[-1] > 0 else "Smallest loss" if change.iloc[-1] < 0 else "No change"
    parts = [_prompt(table, change.index[-1], (start, "tuned"), gained, change.iloc[-1])]
    for place, prompt in enumerate(change.index[:-1][:WORST], start=1):
        lost = "Loss" if change[prompt] < 0 else "Gain" if change[prompt] > 0 else "No change"
        lost = f"{lost}, number {place} from below"
        parts.append(_prompt(table, prompt, (start, "tuned"), lost, change[prompt]))
    return parts


def _single(titled: Sequence[tuple[str, pd.Series]]) -> list[str]:
    """Show single responses, each with its title."""
    return [_box(title, row, [_reply(row)]) for title, row in titled]


def _prompt(table: pd.DataFrame, prompt: str, policies: Sequence[str], title: str, change: float) -> str:
    rows = table[table["prompt_id"] == prompt].sort_values(["seed", "sample"], kind="stable")
    replies = [_reply(rows[rows["model"] == policy].iloc[0]) for policy in policies]
    return _box(f"{title} (its mean empathy changes by {latex.number(change, 2, signed=True)})", rows.iloc[0], replies)


def _box(title: str, row: pd.Series, replies: Sequence[str]) -> str:
    """Set a message and what was replied, below a title in LaTeX."""
    lines = [
        rf"\textit{{{title}}}\enspace"
        rf"\speaker{{user, {latex.escape(str(row['prompt_id']))}}}{_excerpt(row['prompt'])}\par",
        *replies,
    ]
    # By its mark, paper/diff.tex knows an example of the baseline again.
    mark = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
    start = rf"\par\smallskip\noindent\begin{{minipage}}{{\linewidth}}\footnotesize\raggedright\example{{{mark}}}"
    return "\n".join([start, *lines, r"\end{minipage}"]) + "\n"


def _reply(row: pd.Series) -> str:
    name = metric_names.POLICY_LABELS[row["model"]]
    lines = []
    # What the starting policy thought would double the length of the section.
    if row["reasoning"] and row["model"] == "tuned":
        lines.append(rf"\speaker{{{name}, reasoning}}\textit{{{_excerpt(row['reasoning'])}}}\par")
    scores = f"empathy {row['empathy_raw']:.2f}, similarity {row['semantic_similarity_raw']:.2f}"
    form = "answer" if row["well_formed"] else "malformed reply"
    lines.append(rf"\speaker{{{name}, {form} ({scores})}}{_excerpt(row['answer'])}\par")
    return "\n".join(lines)


def _excerpt(text: str) -> str:
    # The four lines of the reasoning are kept apart.
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return latex.escape(latex.shorten(" / ".join(lines), EXAMPLE_CHARACTERS)) or r"\emph{(empty)}"
