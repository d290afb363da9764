"""What a sweep leaves in reports/sweeps/<name>: its settings, and one row for each run.

settings.yaml holds the grid, the training seeds, and what the runs share: settings, and the content
of what the stages up to the rollouts depend on. runs.jsonl has a row for each run that has ended,
written as a whole each time, so that a row is there or is not.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpro_empathy import files
from gpro_empathy.files import UserError
from gpro_empathy.report import repository, sweeps
from gpro_empathy.tools import sweep_grid, tree_copy

SETTINGS, RUNS = "settings.yaml", "runs.jsonl"
# The stages of a run, whose dependencies decide its result.
STAGES = ("prepare_policy", "prepare", "train_scorer", "train_reader", "warm_start", "train_grpo", "rollout")
_NEEDED = ("grid", "seeds", "base")


@dataclass(frozen=True)
class Sweep:
    """A sweep by name: what is varied, from which seeds, and what its runs share.

    `base` are the deciding sections of params.yaml, `code` is {dependency: digest}, `commit` and
    `changed` say from which working tree the sweep was begun.
    """

    name: str
    grid: dict[str, list[Any]]
    seeds: list[int]
    base: dict
    code: dict[str, str]
    commit: str | None
    changed: list[str]

    def runs(self) -> list[tuple[dict[str, Any], int]]:
        """Return setting and seed of each run, setting by setting."""
        return [(setting, seed) for setting in sweep_grid.settings(self.grid) for seed in self.seeds]


def checked_name(name: str) -> str:
    """Return a name that can be that of a folder and of a LaTeX label.

    Raises:
        UserError: If it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"NAME: {name!r} is no name for a sweep; use letters, digits, - and _ alone")
    return name


def begin(
    name: str, grid: dict[str, list[Any]], seeds: list[int], base: Mapping, code: dict[str, str], root: Path
) -> Sweep:
    """Return a new sweep of the working tree as it is."""
    try:
        commit = repository.head(root)
        # Results of sweeps decide no run.
        changed = [path for path in repository.changed(root) if not Path(path).is_relative_to(sweeps.FOLDER)]
    except UserError:  # a folder without git has no commit to name
        commit, changed = None, []
    return Sweep(name, grid, seeds, sweep_grid.decisive(base), code, commit, changed)


def extended(stored: Sweep, grid: Mapping[str, Sequence[Any]], seeds: Sequence[int]) -> Sweep:
    """Return a stored sweep with further values and seeds.

    Raises:
        UserError: If other keys are varied.
    """
    if grid and list(grid) != list(stored.grid):
        raise UserError(
            f"{place(stored.name)}: varies {', '.join(stored.grid)}; give another NAME to vary {', '.join(grid)}"
        )
    values = {key: _united(old, grid.get(key, ())) for key, old in stored.grid.items()}
    kept = {name: getattr(stored, name) for name in ("name", "base", "code", "commit", "changed")}
    return Sweep(grid=values, seeds=_united(stored.seeds, seeds), **kept)


def _united(old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    return [*old, *(value for value in new if value not in old)]


def refuse_mixture(stored: Sweep, base: Mapping, code: Mapping[str, str]) -> None:
    """Refuse to add runs of other settings or other code to those that are there.

    Raises:
        UserError: Naming what differs.
    """
    settings = sweep_grid.differences(stored.base, base, stored.grid)
    if settings:
        raise UserError(
            f"{place(stored.name)}: its runs were made with another {settings[0]} than params.yaml has now; give another "
            "NAME, or set it back"
        )
    other = sorted(path for path in stored.code.keys() | code.keys() if stored.code.get(path) != code.get(path))
    if stored.code and other:
        raise UserError(
            f"{place(stored.name)}: its runs were made with another {other[0]}; give another NAME, go back to commit "
            f"{(stored.commit or '?')[:8]}, or, if the change decides nothing, delete `code` from its {SETTINGS}"
        )


def place(name: str) -> Path:
    """Return the folder of a sweep, below the root of the repository."""
    return sweeps.FOLDER / name


def read(name: str, root: Path) -> Sweep | None:
    """Read the settings of a sweep; None if there is no such sweep.

    Raises:
        UserError: If its file is no settings of a sweep.
    """
    path = place(name) / SETTINGS
    if not (root / path).is_file():
        return None
    try:
        found = yaml.safe_load(files.read_text(root / path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict) or any(not found.get(key) for key in _NEEDED):
        raise UserError(f"{path}: is no sweep, as it has no {', '.join(_NEEDED)}; restore it, or delete the folder")
    return Sweep(
        name, found["grid"], found["seeds"], found["base"], found.get("code") or {}, found.get("commit"), found.get("changed") or []
    )  # fmt: skip


def write(sweep: Sweep, root: Path) -> None:
    """Write the settings of a sweep, atomically."""
    values = {key: getattr(sweep, key) for key in ("grid", "seeds", "commit", "changed", "base", "code")}
    text = "# Written by `make sweep`: what is varied, and what all runs share.\n"
    files.write_text(root / place(sweep.name) / SETTINGS, text + yaml.safe_dump(values, sort_keys=False, width=120))


def names(root: Path) -> list[str]:
    """Return the names of the sweeps that are there."""
    return sorted(path.parent.name for path in (root / sweeps.FOLDER).glob(f"*/{SETTINGS}"))


def rows(name: str, root: Path) -> list[dict]:
    """Read the rows of the runs that have ended, in the order in which they did."""
    path = root / place(name) / RUNS
    return files.read_jsonl(path) if path.is_file() else []


def keep(row: dict, name: str, root: Path) -> None:
    """Add the row of a run, in place of an earlier one of the same run."""
    others = [
        other for other in rows(name, root) if key(other["setting"], other["seed"]) != key(row["setting"], row["seed"])
    ]
    files.write_jsonl(root / place(name) / RUNS, [*others, row])


def key(setting: Mapping[str, Any], seed: int) -> str:
    """Return what tells runs of a sweep apart."""
    return json.dumps([setting, seed], sort_keys=True)


def ended(sweep: Sweep, root: Path) -> dict[str, dict]:
    """Return the row of each run of the grid that has ended, by its key."""
    wanted = {key(*run) for run in sweep.runs()}
    found = {key(row["setting"], row["seed"]): row for row in rows(sweep.name, root)}
    return {one: row for one, row in found.items() if one in wanted}


def code(root: Path, base: Mapping) -> dict[str, str]:
    """Return a digest of each dependency in git of the stages of a run, by its path.

    Raises:
        UserError: If git is missing or fails.
    """
    graph = yaml.safe_load(files.read_text(root / tree_copy.GRAPH))["stages"]
    paths = {dep for stage in STAGES for dep in graph[stage]["deps"]} | {"versions.yaml"}
    folder = base["prepare"]["embedded_folder"]
    paths = {path.replace("${prepare.embedded_folder}", folder) for path in paths}
    listed = sorted(path for path in set(tree_copy.listed(root)) if (root / path).is_file())
    contents: dict[str, hashlib._Hash] = {}
    for path in listed:
        for dependency in (part.as_posix() for part in (path, *path.parents) if part.as_posix() in paths):
            digest = contents.setdefault(dependency, hashlib.sha256())
            digest.update(f"{path.as_posix()} {files.sha256(root / path)}\n".encode())
    # Outputs of stages are dependencies too, and some are in git.
    outputs = {
        out if isinstance(out, str) else next(iter(out)) for stage in graph.values() for out in stage.get("outs", [])
    }
    made = {path for path in contents if any(path == out or path.startswith(f"{out}/") for out in outputs)}
    return {path: digest.hexdigest()[:16] for path, digest in sorted(contents.items()) if path not in made}
