"""The baseline: what is kept of one run, so that the runs after it can say what changed.

`make baseline` writes it to reports/baseline. It holds no text of a prompt or an answer.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from gpro_empathy import csv_table, files, params
from gpro_empathy.analysis import response_table, reward_hacking
from gpro_empathy.files import UserError

FOLDER = Path("reports/baseline")
SETTINGS, SCORES, PROVENANCE = "settings.yaml", "scores.csv", "provenance.json"
REMEDY = (
    f"restore it with `git checkout -- {FOLDER}`, freeze a finished run anew with `make baseline`, or go without by "
    "`make baseline ARGS=--none`"
)
# What a row of scores is of; its other columns are metrics.
KEY = ("prompt_id", "story", "model", "seed")
# Stages whose code and data decide the responses and their scores.
_DECIDING = ("prepare_policy", "prepare", "train_scorer", "train_reader", "warm_start", "train_grpo", "rollout")
_DECIDING_FILES = ("data/embedded/warm_start", "data/inputs", "data/prepared/", "rewards", "src/")
_RECORDED = frozenset({"commit", "files", "machine", "packages", "prompts_sha256"})


@dataclass(frozen=True)
class Run:
    """A run, the baseline or the one at hand.

    `settings` are those of params.yaml by section and key. `scores` has a row a prompt, policy and
    training seed (NO_SEED for the policies before GRPO), and in the columns beside KEY the mean of
    each metric over the samples. `provenance` has the commit, `files` (hashes of the code and data
    that decide results, by path), `machine`, `packages` and the hash of the prompts' texts.
    """

    settings: dict[str, dict[str, Any]]
    scores: pd.DataFrame
    provenance: dict[str, Any]


def settings(sections: Sequence[params.Section]) -> dict[str, dict[str, Any]]:
    """Return the settings as the baseline keeps them, by section and key."""
    return {section.section_name(): section.model_dump(mode="json") for section in sections}


def scores(table: pd.DataFrame, declared: Sequence[str]) -> pd.DataFrame:
    """Average every metric over the samples of each prompt, by policy and training seed.

    Metrics are the declared ones, those that are audited, and all raw scores. A prompt without the
    label that a metric needs has NaN there.
    """
    raw = sorted(column for column in table.columns if column.endswith("_raw"))
    metrics = list(dict.fromkeys([*declared, *reward_hacking.AUDITED, *raw]))
    present = [metric for metric in metrics if metric in table.columns]
    values = table[list(KEY)].join(table[present].astype(float))
    return values.groupby(list(KEY), sort=True).mean().reset_index()


def deciding_files(lock: Mapping) -> dict[str, str]:
    """Return what dvc.lock says of the code and data that decide results: a hash by path.

    It is empty where a stage has no entry, as its code is then not known.
    """
    stages = lock.get("stages", {})
    if any(name not in stages for name in _DECIDING):
        return {}
    return {
        dep["path"]: dep["md5"]
        for name in _DECIDING
        for dep in stages[name].get("deps", [])
        if dep["path"].startswith(_DECIDING_FILES)
    }


def write(folder: Path, run: Run) -> None:
    """Write settings, scores and provenance into an existing folder."""
    files.write_text(folder / SETTINGS, yaml.safe_dump(run.settings, sort_keys=False, allow_unicode=True))
    rows = run.scores.astype(object).where(run.scores.notna(), None).to_dict("records")
    without_seed = [row | {"seed": None if row["seed"] == response_table.NO_SEED else row["seed"]} for row in rows]
    files.write_text(folder / SCORES, csv_table.text(list(run.scores.columns), without_seed))
    files.write_json(folder / PROVENANCE, run.provenance)


def read(folder: Path) -> Run | None:
    """Read the baseline; None if there is none.

    Raises:
        UserError: If a file is missing or malformed, naming it and the way out.
    """
    if not (folder / PROVENANCE).is_file():
        if (folder / SCORES).is_file():
            raise UserError(f"{folder / PROVENANCE}: no such file; {REMEDY}")
        return None
    provenance = files.read_json(folder / PROVENANCE)
    if not isinstance(provenance, dict) or (lacking := sorted(_RECORDED - provenance.keys())):
        what = f"no {lacking[0]!r}" if isinstance(provenance, dict) else "no record of a run"
        raise UserError(f"{folder / PROVENANCE}: {what}; {REMEDY}")
    return Run(_read_settings(folder / SETTINGS), _read_scores(folder / SCORES), provenance)


def _read_settings(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = yaml.safe_load(files.read_text(path, REMEDY))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())}); {REMEDY}") from None
    if not isinstance(found, dict) or not all(isinstance(section, dict) for section in found.values()):
        raise UserError(f"{path}: no settings by section and key; {REMEDY}")
    return found


def _read_scores(path: Path) -> pd.DataFrame:
    # Not by csv_table.read, which takes a name such as 1.10 for a number and rounds the last digit.
    reader = csv.DictReader(io.StringIO(files.read_text(path, REMEDY, newline="")))
    columns = reader.fieldnames or []
    if lacking := [name for name in KEY if name not in columns]:
        raise UserError(f"{path}: column {lacking[0]!r} is missing; {REMEDY}")
    rows = []
    for row in reader:
        try:
            seed = int(row["seed"]) if row["seed"] else response_table.NO_SEED
            values = {name: float(text) if text else float("nan") for name, text in row.items() if name not in KEY}
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}; {REMEDY}") from None
        rows.append({name: row[name] for name in KEY[:-1]} | {"seed": seed} | values)
    table = pd.DataFrame(rows, columns=columns)
    if not (table["model"] == "tuned").any():
        raise UserError(f"{path}: no scores of the tuned policy; {REMEDY}")
    if table.duplicated(["prompt_id", "model", "seed"]).any():
        raise UserError(f"{path}: a prompt, policy and training seed stand twice; {REMEDY}")
    return table.sort_values(list(KEY), kind="stable", ignore_index=True)
