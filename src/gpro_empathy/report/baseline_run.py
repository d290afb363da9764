"""The run in the workspace, in the form of the baseline: to be compared with it, or be it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import yaml

from gpro_empathy import files, params
from gpro_empathy.analysis import baseline, response_table, trainings
from gpro_empathy.report import provenance

LOCK = Path("dvc.lock")
# The sections that scores depend on, in the order of params.yaml.
SECTIONS = (
    "policy", "rewards", "prepare", "train_scorer", "train_reader", "warm_start", "train_grpo", "rollout", "analyse_rewards",
)  # fmt: skip


def of_workspace(
    rows: Sequence[Mapping], sections: Sequence[params.Section], root: Path = Path(), commit: str | None = None
) -> baseline.Run:
    """Return the run below `root` whose rollouts these are.

    Machine and packages are those of this process; code and data are as dvc.lock has them, which
    DVC writes after each stage.

    Raises:
        UserError: If dvc.lock is malformed.
        ValueError: As `response_table.responses`.
    """
    table: pd.DataFrame = response_table.responses(list(rows))
    by_name = {section.section_name(): section for section in sections}
    prompts = {row["prompt_id"]: row["prompt"] for row in rows}
    record = {
        "commit": commit,
        "files": baseline.deciding_files(_lock(root / LOCK)),
        "machine": _machine(provenance.machine()),
        "packages": provenance.packages(),
        "prompts_sha256": trainings.conditions([], prompts)["prompts_sha256"],
    }
    declared = by_name["analyse_rewards"].metrics
    return baseline.Run(
        baseline.settings([by_name[name] for name in SECTIONS]), baseline.scores(table, declared), record
    )


def _machine(facts: Mapping) -> str:
    # Cores decide the order in which numbers are added, and so their last digits.
    return f"{facts['processor']}, {facts['cores']} cores, {facts['gpu'] or 'no GPU'}"


def _lock(path: Path) -> Mapping:
    if not path.is_file():
        return {}
    try:
        return yaml.safe_load(files.read_text(path)) or {}
    except yaml.YAMLError as error:
        raise files.UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
