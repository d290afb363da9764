"""What was fixed before the test stories were looked at, and every look since.

The record is reports/protocol.yaml. It is written by hand, once settings are chosen on the
validation stories. A run whose settings are others is told apart from those that it dates.
"""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gpro_empathy import files, params
from gpro_empathy.report import latex

PATH = Path("reports/protocol.yaml")
# Other seeds repeat an experiment, the metrics are recorded by themselves, and the rest does not
# change what is measured.
NOT_COMPARED = {"train_grpo.seeds", "train_grpo.save_steps", "rollout.batch_size", "analyse_rewards.metrics"}


class Look(BaseModel):
    """A run whose responses to the test prompts were scored, or a change after such a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: datetime.date
    what: str = Field(min_length=1)


class Protocol(BaseModel):
    """The record: when metrics and settings were frozen, which, and what came since.

    `changes` are those of how results are told, after some were known; `runs` those on test.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    frozen: datetime.date
    selection: str = Field(min_length=1)
    metrics: list[str]
    settings: dict[str, dict[str, Any]]
    changes: list[Look]
    runs: list[Look]


def read(path: Path = PATH) -> Protocol:
    """Read the record.

    Raises:
        UserError: If it is missing, not YAML, or lacks a key; names the key.
    """
    try:
        return Protocol.model_validate(yaml.safe_load(files.read_text(path, f"`git checkout {path}` brings it back")))
    except yaml.YAMLError as error:
        raise files.UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise files.UserError(
            f"{path}: {place}: {first['msg'].lower()}; `git checkout {path}` brings it back"
        ) from None


def differing(protocol: Protocol, sections: Mapping[str, params.Section]) -> list[str]:
    """Return the settings, `section.key`, that are not the frozen ones; the metrics left aside."""
    keys = []
    for name, frozen in protocol.settings.items():
        current = sections[name].model_dump(mode="json")
        keys += [
            f"{name}.{key}"
            for key in sorted(frozen.keys() | current.keys())
            if f"{name}.{key}" not in NOT_COMPARED and frozen.get(key) != current.get(key)
        ]
    return keys


def sentence(protocol: Protocol, sections: Mapping[str, params.Section]) -> str:
    """Say when metrics and settings were frozen, and whether this run has others."""
    looks, changes = (
        "; ".join(f"{latex.escape(one.what)} ({one.date.isoformat()})" for one in listed)
        for listed in (protocol.runs, protocol.changes)
    )
    since = f" Runs on test since then: {looks}." if looks else " No run on test is recorded since then."
    since += f" Changed since results were known: {changes}." if changes else ""
    text = (
        f"{latex.escape(protocol.selection)} Metrics and settings were frozen on {protocol.frozen.isoformat()}, before any "
        f"response to a test story was read or scored.{since}"
    )
    keys = differing(protocol, sections)
    if protocol.metrics != sections["analyse_rewards"].metrics:
        keys.append("analyse_rewards.metrics")
    if keys:
        listed = ", ".join(rf"\file{{{key}}}" for key in keys)
        text += f" \\textbf{{The settings of this run are not the frozen ones}}: {listed}."
    return text
