"""Train over a grid of settings and seeds, and keep what each setting changed: `make sweep`.

`python -m gpro_empathy.tools.sweep --set KEY=VALUE,VALUE --seeds 23,24,25 --name NAME` trains one
policy for each setting and seed, in a copy of the tree below tmp/sweeps, and writes
reports/sweeps/NAME. The name alone runs what is missing there, and tries again what failed. Without
arguments the sweeps that are there are listed.
"""

import argparse
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from gpro_empathy import entry_point, files, params
from gpro_empathy.files import UserError
from gpro_empathy.report import sweeps
from gpro_empathy.tools import sweep_folder, sweep_grid, sweep_results, sweep_run

WORK = Path("tmp/sweeps")
LOCK = WORK / "lock"
_NAMED_CHANGES = 3
# Runs one setting from one seed, and returns its row: the content of params.yaml with the setting,
# the setting, the seed.
Runner = Callable[[Mapping, Mapping[str, Any], int], dict]


def main() -> None:
    """Run a sweep, or list those that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="", help="key=value,value key=value,...: what is varied")
    parser.add_argument("--seeds", default="", help="training seeds of every setting, such as 23,24,25")
    parser.add_argument("--name", default="", help="folder below reports/sweeps")
    arguments = parser.parse_args()
    if arguments.name:
        run(arguments.name, arguments.set, arguments.seeds)
    elif arguments.set or arguments.seeds:
        raise UserError("NAME: the sweep has none; give NAME=<name>, its folder below reports/sweeps")
    else:
        print(listing())


def run(name: str, set_text: str, seeds_text: str, root: Path = Path(), runner: Runner | None = None) -> None:
    """Run what is missing of a sweep, and collect what it found after every run.

    Args:
        set_text, seeds_text: Grid and seeds as text; empty for those of the sweep that is there.
        runner: In place of a run in a copy of the tree, for tests.

    Raises:
        UserError: If the sweep cannot be run as asked, or a run failed.
    """
    sweep_folder.checked_name(name)
    with locked(root) as lock:
        config = params.load_all(root / params.PARAMS)
        base = yaml.safe_load(files.read_text(root / params.PARAMS))
        sweep, missing = planned(name, set_text, seeds_text, base, root)
        sweep_folder.write(sweep, root)
        if missing and runner is None:
            tell_changes(sweep)
            tree = root / WORK / name / "tree"
            print(f"sweep {name}: copying the tree to {tree}", flush=True)
            sweep_run.copy_tree(root, tree)
            runner = in_copy(sweep, tree, sweep_results.metrics(config), lock)
        for number, (setting, seed) in enumerate(missing):
            print(f"sweep {name}: {sweep_grid.written(setting)}, seed {seed}", flush=True)
            row = runner(sweep_grid.applied(base, setting), setting, seed)
            sweep_folder.keep(row, name, root)
            sweep_results.write(sweep, config, root)
            tell_progress(sweep, row, len(missing) - number - 1, root)
        # Without a run too, so that what is written follows the code and the settings of today.
        sweep_results.write(sweep, config, root)
        finish(sweep, root)


def planned(
    name: str, set_text: str, seeds_text: str, base: Mapping, root: Path
) -> tuple[sweep_folder.Sweep, list[tuple[dict[str, Any], int]]]:
    """Return the sweep that is asked for, and the setting and seed of each run that it lacks.

    It is a new one, or the one of that name, extended.

    Raises:
        UserError: If it cannot be run.
    """
    stored = sweep_folder.read(name, root)
    grid = sweep_grid.parse(set_text) if set_text.strip() or stored is None else {}
    seeds = sweep_grid.parse_seeds(seeds_text) if seeds_text.strip() else []
    code = sweep_folder.code(root, base)
    if stored is None:
        sweep = sweep_folder.begin(name, grid, seeds or list(base["train_grpo"]["seeds"]), base, code, root)
    else:
        sweep = sweep_folder.extended(stored, grid, seeds)
    sweep_grid.check(base, sweep.grid, sweep.seeds)
    done = {
        sweep_folder.key(row["setting"], row["seed"]) for row in sweep_folder.rows(name, root) if row["failed"] is None
    }
    missing = [one for one in sweep.runs() if sweep_folder.key(*one) not in done]
    if not done:
        return sweep_folder.begin(name, sweep.grid, sweep.seeds, base, code, root), missing
    if missing:
        sweep_folder.refuse_mixture(sweep, base, code)
    return sweep, missing


def in_copy(sweep: sweep_folder.Sweep, tree: Path, metrics: Sequence[str], lock: int) -> Runner:
    """Return what runs a setting from a seed in the copy, with a log of each run beside it."""
    order = [sweep_folder.key(*one) for one in sweep.runs()]

    def runner(values: Mapping, setting: Mapping[str, Any], seed: int) -> dict:
        number = order.index(sweep_folder.key(setting, seed)) + 1
        log = tree.parent / f"run-{number:02d}.log"
        print(f"sweep {sweep.name}: what it prints goes to {log}", flush=True)
        row = sweep_run.run(tree, values, setting, seed, metrics, log, lock)
        if row["failed"] is not None:
            print(f"sweep {sweep.name}: failed: {row['failed']}", flush=True)
        return row

    return runner


@contextmanager
def locked(root: Path) -> Iterator[int]:
    """Hold the lock of this folder's sweeps; yield its descriptor.

    It goes with this process, and with the run that it started, however they end.

    Raises:
        UserError: If another sweep runs here.
    """
    (root / WORK).mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"another sweep, or a run of one, works in this folder, started by process {file.read().strip() or '?'}; "
                "wait until it ends, or stop it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def tell_changes(sweep: sweep_folder.Sweep) -> None:
    """Say that runs are of a working tree with changes."""
    if sweep.changed:
        named = ", ".join(sweep.changed[:_NAMED_CHANGES])
        more = len(sweep.changed) - _NAMED_CHANGES
        others = f" and {more} more" if more > 0 else ""
        print(f"sweep {sweep.name}: {named}{others} differ from the last commit; the runs take them as they are here")


def tell_progress(sweep: sweep_folder.Sweep, row: dict, left: int, root: Path) -> None:
    """Print what the run found and, by the mean time of the finished runs, the time left."""
    done = [other["seconds"] for other in sweep_folder.ended(sweep, root).values() if other["failed"] is None]
    change = row["metrics"].get("empathy_raw")
    found = f"raw empathy changed by {change['tuned'] - change['start']:+.2f}" if change else "no result"
    time_left = f", about {left * sum(done) / len(done) / 60:.0f} min left" if left and done else ""
    print(f"sweep {sweep.name}: {found}; {len(sweep.runs()) - left}/{len(sweep.runs())} runs{time_left}", flush=True)


def finish(sweep: sweep_folder.Sweep, root: Path) -> None:
    """Delete the copy of a sweep that is complete, and say where the results are.

    Raises:
        UserError: If a run failed.
    """
    failed = [row for row in sweep_folder.ended(sweep, root).values() if row["failed"] is not None]
    print(f"The sweep: {sweep_folder.place(sweep.name)}; `make reproduce` puts it into the report")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(sweep.runs())} runs failed, the first ({sweep_grid.written(failed[0]['setting'])}, seed "
            f"{failed[0]['seed']}) by: {failed[0]['failed']}; `make sweep NAME={sweep.name}` tries them again"
        )
    shutil.rmtree(root / WORK / sweep.name / "tree", ignore_errors=True)


def listing(root: Path = Path()) -> str:
    """Return the sweeps that are there, one a line: name, what is varied, how many runs ended how.

    Raises:
        UserError: If the settings of one cannot be read.
    """
    lines = []
    for name in sweep_folder.names(root):
        sweep = sweep_folder.read(name, root)
        ended, runs = sweep_folder.ended(sweep, root).values(), len(sweep.runs())
        failed = sum(row["failed"] is not None for row in ended)
        grid = " ".join(f"{key}={','.join(map(sweep_grid.text, values))}" for key, values in sweep.grid.items())
        lines.append(
            f"{name}: {grid}, seeds {','.join(map(str, sweep.seeds))}: {len(ended) - failed} done, {failed} failed, "
            f"{runs - len(ended)} missing"
        )
    new = 'a new one: make sweep SET="key=value,value key=value,value" SEEDS="23,24,25" NAME=<name>'
    return "\n".join([*(lines or [f"{sweeps.FOLDER} holds no sweep"]), new])


if __name__ == "__main__":
    entry_point.run_stage(main)
