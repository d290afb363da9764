"""The results as one web page, in a single HTML text.

It shows verdict, tables, figures, and every response with its scores.

Utterances and responses are untrusted text. Jinja escapes what stands in the markup,
`embedded_json` what stands in the script, and the page's own script sets texts as text nodes; a
content policy allows no script but that one.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from gpro_empathy.analysis import metric_names
from gpro_empathy.analysis.results import Analysis, RunRatings
from gpro_empathy.report import page_tables, sweeps, verdicts
from gpro_empathy.report.number_format import PAGE

# Scores that stand below each response; the others are folded.
SHOWN = ("empathy_raw", "semantic_similarity_raw", "audit_empathy_raw")
# Digits after the point beyond those that are printed, so that a mean of rounded scores is still
# right.
_MORE_DIGITS = 3


@dataclass(frozen=True)
class Template:
    """The written part of the page: markup for Jinja, style sheet, script."""

    markup: str
    style: str
    script: str


def render(
    template: Template,
    analysis: Analysis,
    ratings: RunRatings,
    rows: Sequence[Mapping],
    captions: Mapping[str, str],
    study: Analysis | None = None,
    baseline: Mapping[str, Any] = page_tables.NO_BASELINE,
    swept: Sequence[Mapping] = (),
) -> str:
    """Return the page as HTML.

    Args:
        analysis: The content of reward_analysis.json.
        ratings: The content of ratings.json.
        rows: Rollout rows, one per response.
        captions: What each figure shows, by its name; the page looks for them in the folder
            figures/ beside it.
        study: The analysis of several trainings, with which the page leads.
        baseline: The content of baseline_comparison.json.
        swept: The summary of each sweep of settings.

    Raises:
        KeyError: If the analysis lacks a number that the page shows.
        ValueError: If a prompt lacks the responses of a policy, naming both.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    empathy, start = analysis["metrics"]["empathy_raw"], analysis["starting_policy"]
    headline = verdicts.headline(study, analysis)
    return environment.from_string(template.markup).render(
        style=template.style,
        script=template.script,
        style_hash=source_hash(template.style),
        script_hash=source_hash(template.script),
        data=embedded_json(browser_data(rows, analysis["metric_order"], start)),
        analysis=analysis,
        headline=headline[0].upper() + headline[1:],
        start_label=metric_names.POLICY_LABELS[start],
        confidence=page_tables.percent(analysis["confidence"]),
        empathy={
            "start": PAGE.number(empathy["means"][start], 2),
            "tuned": PAGE.number(empathy["means"]["tuned"], 2),
            "difference": PAGE.number(empathy["difference"], 2, signed=True),
            "interval": PAGE.interval(empathy["low"], empathy["high"], 2),
            "new": None if empathy["new_low"] is None else PAGE.interval(empathy["new_low"], empathy["new_high"], 2),
            "p": PAGE.p_value(empathy["p_holm"]),
        },
        findings=page_tables.findings(analysis, ratings, study, baseline),
        tables=page_tables.tables(analysis, ratings, study, baseline),
        captions=captions,
        sweeps=sweeps.page_sections(swept),
    )


def embedded_json(value: object) -> str:
    """Return JSON that may stand inside a script element.

    No character in it can end the element or a line.

    Raises:
        ValueError: If a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # A lone surrogate is JSON and cannot be written as UTF-8.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def browser_data(rows: Sequence[Mapping], metrics: Sequence[str], start: str) -> dict:
    """Return what the page's script shows.

    These are the prompts in the order of the rows, each with the responses of each policy. A metric
    that no row holds, because it is made from several, is left out.

    Raises:
        ValueError: If a prompt lacks the responses of a policy, or no row holds empathy_raw.
    """
    kept = [name for name in metrics if any(name in row for row in rows)]
    if "empathy_raw" not in kept:
        raise ValueError("no response has empathy_raw")
    present = {row["model"] for row in rows}
    policies = [name for name in metric_names.POLICIES if name in present]
    several = len({row["seed"] for row in rows if row["model"] == "tuned"}) > 1
    prompts: dict[str, dict] = {}
    for row in rows:
        prompt = prompts.setdefault(row["prompt_id"], _prompt(row, policies))
        prompt["responses"][row["model"]].append(_response(row, kept, several))
    for name, prompt in prompts.items():
        for policy, responses in prompt["responses"].items():
            if not responses:
                raise ValueError(f"prompt {name} has no response of model {policy!r}")
    return {
        "prompts": list(prompts.values()),
        "responses": len(rows),
        "labels": {name: metric_names.POLICY_LABELS[name] for name in policies},
        "against": [start, *(name for name in policies if name not in (start, "tuned"))],
        "metrics": [
            {"label": metric_names.label(name), "unit": _unit(name), "digits": metric_names.digits(name)}
            for name in kept
        ],
        "shown": [kept.index(name) for name in SHOWN if name in kept],
    }


def rows_of(page: str) -> list[dict]:
    """Return the responses that a page of `render` holds, with what tells them apart, as rows.

    These are prompt, prompt_id, story (not in the page, empty), model, seed, sample and answer; so
    that what was said can be read where only the committed page is there.

    Raises:
        ValueError: If the text is no such page.
    """
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    if found is None:
        raise ValueError("no results page with its responses")
    return [
        {
            "prompt_id": prompt["id"],
            "prompt": prompt["text"],
            "story": "",
            "model": model,
            "seed": response["seed"],
            # Responses of one training stand together.
            "sample": k - [other["seed"] for other in responses].index(response["seed"]),
            "answer": response["answer"],
        }
        for prompt in json.loads(found[1])["prompts"]
        for model, responses in prompt["responses"].items()
        for k, response in enumerate(responses)
    ]


def _prompt(row: Mapping, policies: Sequence[str]) -> dict:
    label = row["emotion"]
    return {
        "id": str(row["prompt_id"]),
        "text": row["prompt"],
        # Half rounds up, as in the analysis.
        "level": None if label is None else math.floor(label + 0.5),
        "responses": {policy: [] for policy in policies},
    }


def _response(row: Mapping, metrics: Sequence[str], several_seeds: bool) -> dict:
    answer = row["answer"]
    return {
        "answer": answer,
        "reasoning": row["reasoning"],
        # The whole reply says more only where it could not be taken apart.
        "whole": None if row["well_formed"] or row["text"].strip() == answer else row["text"],
        "formed": bool(row["well_formed"]),
        "seed": row["seed"] if several_seeds and row["model"] == "tuned" else None,
        "stated": row["stated_intensity"],
        "scores": [_score(row.get(name), metric_names.digits(name)) for name in metrics],
    }


def _score(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits + _MORE_DIGITS)


def _unit(metric: str) -> str:
    name, with_unit = metric_names.label(metric), metric_names.label_with_unit(metric)
    return with_unit.removeprefix(name).strip(" ()")


def source_hash(source: str) -> str:
    """Return the hash by which a content policy allows an inline script or style."""
    digest = hashlib.sha256(source.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")
