"""Freeze the finished run in the workspace as the baseline, `make baseline`: seconds.

Reads what the run left, and writes reports/baseline/: its settings, the mean scores of each prompt,
policy and training seed, numbers and tables of its report as they are typeset, marks of its
examples, and what it was made by. No text of a prompt or an answer is in it. With --none it is
emptied.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gpro_empathy import entry_point, files, params
from gpro_empathy.analysis import baseline
from gpro_empathy.files import UserError
from gpro_empathy.report import baseline_run, changes

ROLLOUTS = Path("data/rollouts/rollouts.jsonl")
RECORD = Path("reports/provenance.json")
DEFINITIONS = Path("paper/generated/numbers.tex")
EXAMPLES = Path("paper/generated/examples.tex")
NUMBERS, TABLES, MARKS, ABOUT = "numbers.json", "tables.json", "examples.json", "README.md"
ABOUT_TEXT = """\
# The baseline

What `make baseline` keeps of a finished run, for `dvc exp run` and every other run to be compared with: `settings.yaml`,
`scores.csv` (means over the samples of a prompt, by policy and training seed; no texts), `numbers.json` (every number of
the report as it is typeset), `tables.json` (its tables), `examples.json` (marks by which examples are known again) and `provenance.json`. The
comparison is in `reports/baseline_comparison.json` and in the report. `make baseline ARGS=--none` leaves this page alone,
and reports then compare with nothing. [More](../../docs/experiments.md#the-baseline).
"""


def freeze(root: Path = Path()) -> baseline.Run:
    """Make the run below `root` the baseline; the folder is replaced as a whole.

    Raises:
        UserError: If the run is not finished.
    """
    settings = params.load_all(root / "params.yaml")
    sections = [getattr(settings, name) for name in baseline_run.SECTIONS]
    rows = files.read_jsonl(root / ROLLOUTS)
    try:
        run = baseline_run.of_workspace(rows, sections, root, files.read_json(root / RECORD).get("commit"))
    except ValueError as error:
        raise UserError(f"{ROLLOUTS}: {error}") from error
    numbers = changes.kept_numbers(files.read_text(root / DEFINITIONS))
    generated = {path.stem: files.read_text(path) for path in sorted((root / DEFINITIONS.parent).glob("*.tex"))}
    marks = changes.example_marks(files.read_text(root / EXAMPLES))
    with files.atomic_path(root / baseline.FOLDER) as folder:
        folder.mkdir()
        baseline.write(folder, run)
        files.write_json(folder / NUMBERS, numbers)
        files.write_json(folder / TABLES, changes.kept_tables(generated))
        files.write_json(folder / MARKS, marks)
        files.write_text(folder / ABOUT, ABOUT_TEXT)
    return run


def empty(root: Path = Path()) -> None:
    """Go without a baseline: only the page about it stays, as the folder is an input of stages."""
    with files.atomic_path(root / baseline.FOLDER) as folder:
        folder.mkdir()
        files.write_text(folder / ABOUT, ABOUT_TEXT)


def check(status: Mapping[str, list], root: Path = Path()) -> None:
    """Refuse a workspace whose outputs are not those of its settings, code and data.

    Args:
        status: What `dvc status --json` says: by stage, what changed.

    Raises:
        UserError: In one line, naming a stage and what changed.
    """
    if not (root / ROLLOUTS).is_file():
        raise UserError(f"{ROLLOUTS}: no finished run is here to freeze; run `make reproduce` first")
    stale = {stage: found for stage, changed in status.items() if (found := [one for one in changed if not _own(one)])}
    if stale:
        stage, found = next(iter(stale.items()))
        rest = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
        raise UserError(
            f"the results here are not of these settings, code and data: stage {stage} ({_words(found[0])}){rest}; run "
            "`dvc repro` first, or `git checkout . && dvc checkout` to drop the change"
        )


def _own(change: object) -> bool:
    """Say whether a change is that of the baseline alone, which a freeze before made."""
    if not isinstance(change, dict):
        return False
    paths = [path for kind, entries in change.items() for path in entries]
    return set(change) == {"changed deps"} and all(path.startswith(str(baseline.FOLDER)) for path in paths)


def _words(change: object) -> str:
    if not isinstance(change, dict):
        return str(change)
    kind, entries = next(iter(change.items()))
    return f"{kind}: {', '.join(list(entries)[:3])}"


def status() -> dict[str, list]:
    """Return what `dvc status` says of the workspace.

    Raises:
        UserError: If DVC fails, with its last line.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise UserError(f"dvc status failed: {said[-1]}")
    return json.loads(done.stdout)


def main() -> None:
    """Freeze the run of this folder, or go without."""
    parser = argparse.ArgumentParser(description="Freeze the finished run here as the baseline.")
    parser.add_argument("--none", action="store_true", help="go without a baseline")
    if parser.parse_args().none:
        empty()
        print("No baseline is kept; `dvc repro` renews the report, which then compares with nothing")
        return
    check(status() if ROLLOUTS.is_file() else {})
    run = freeze()
    seeds = int(run.scores["seed"].nunique()) - 1
    print(
        f"The baseline in {baseline.FOLDER}: {run.scores['prompt_id'].nunique()} prompts, {seeds} training"
        f"{'s' * (seeds != 1)}. `dvc repro` renews the report; commit both"
    )


if __name__ == "__main__":
    entry_point.run_stage(main)
