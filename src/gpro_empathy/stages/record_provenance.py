"""Record where the run's numbers come from.

The files written here hold times and name the hardware, as no others do. This is the first half of
the stage paper, which depends on reports/index.html too, so that all other stages have run.

Reads   params.yaml, dvc.lock, dvc.yaml    for hashes, and for the stages above that one
        git, work/stages/                  commit and changes, wall time of each stage
Writes  reports/provenance.json            commit, hashes, versions, machine, seconds per stage
        paper/provenance/provenance.tex    the same as a section of the report
Keeps   work/provenance.json               which wall time belongs to which outputs
"""

import hashlib
import platform
import sys
from pathlib import Path

import yaml

from gpro_empathy import entry_point, files
from gpro_empathy.report import provenance, repository

GRAPH = Path("dvc.yaml")
LOCK = Path("dvc.lock")
PARAMS = Path("params.yaml")
KNOWN = Path("work/provenance.json")
RECORD = Path("reports/provenance.json")
SECTION = Path("paper/provenance")
STAGE = "paper"
# From the folder of the report, so that the links work wherever that folder is put.
LINKS = {
    "metrics.json": "the comparison at a glance",
    "reward_analysis.json": "every number of it",
    "ratings.json": "what raters found",
    "baseline_comparison.json": "what changed against the baseline",
    "paper-diff.pdf": "its words beside those of this report",
    "index.html": "all responses, as a web page",
    "scorer.json": "accuracy of the scorers",
    "data.json": "sizes and labels",
    "training/settings.json": "effective settings of the training",
    "provenance.json": "this record",
}


def run(root: Path = Path()) -> None:
    """Write both forms of the record below `root`.

    Raises:
        UserError: If params.yaml or dvc.yaml is missing or malformed.
    """
    graph, lock = _yaml(root / GRAPH), _yaml(root / LOCK) if (root / LOCK).is_file() else {}
    stages = above(graph, STAGE)
    records = {
        name: files.read_json(path)
        for name in stages
        if (path := root / entry_point.WALL_TIMES / f"{name}.json").is_file()
    }
    known = files.read_json(root / KNOWN) if (root / KNOWN).is_file() else {}
    seconds, known = provenance.wall_times(stages, records, lock, known)
    commit, changes = state(graph, root)
    record = {
        "commit": commit,
        "changed": changes,
        "params_sha256": hashlib.sha256((root / PARAMS).read_bytes()).hexdigest(),
        "lock_sha256": provenance.lock_hash(lock, stages),
        "python": platform.python_version(),
        "packages": provenance.packages(),
        "machine": provenance.machine(),
        "stages": seconds,
    }
    files.write_json(root / KNOWN, known)
    files.write_json(root / RECORD, record)
    with files.atomic_path(root / SECTION) as folder:
        folder.mkdir()
        (folder / "provenance.tex").write_text(provenance.report(record, LINKS), encoding="utf-8", newline="\n")


def above(graph: dict, name: str) -> list[str]:
    """Return the stages that stand above one in dvc.yaml, in their order.

    The stage of the user's inputs makes no results, and is there once for each.
    """
    names = [name for name, stage in graph["stages"].items() if "foreach" not in stage]
    return names[: names.index(name)]


def state(graph: dict, root: Path) -> tuple[str | None, list[str]]:
    """Return the commit, or None outside of git, and the changed files.

    Outputs of a stage and dvc.lock are not among the changed files.
    """
    try:
        commit, changes = repository.head(root), repository.changed(root)
    except files.UserError as error:
        print(f"{STAGE}: no commit is recorded: {error}", file=sys.stderr)
        return None, []
    outputs = [str(LOCK)]
    for stage in graph["stages"].values():
        for entry in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
            outputs.append(next(iter(entry)) if isinstance(entry, dict) else entry)
    made = tuple(f"{path}/" for path in outputs)
    return commit, [path for path in changes if path not in outputs and not path.startswith(made)]


def _yaml(path: Path) -> dict:
    try:
        return yaml.safe_load(files.read_text(path)) or {}
    except yaml.YAMLError as error:
        raise files.UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def main() -> None:
    """Run the stage in the repository."""
    run()


if __name__ == "__main__":
    entry_point.run_stage(main)
