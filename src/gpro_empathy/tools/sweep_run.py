"""One run of a sweep: `dvc repro rollout` in a copy of the tree, and what is kept of it.

The copy shares DVC's cache with the repository, so that a stage which neither the setting nor the
seed reaches is taken from there. Checkpoints stay in the copy, so that an interrupted training goes
on from one.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from gpro_empathy import files
from gpro_empathy.analysis import response_table
from gpro_empathy.files import UserError
from gpro_empathy.tools import tree_copy

TARGET = "rollout"
ROLLOUTS = Path("data/rollouts/rollouts.jsonl")
_LONGEST = 200
# Seconds that a run is given to end, before it is killed.
PATIENCE = 20


def copy_tree(root: Path, tree: Path) -> None:
    """Make a fresh copy of the working tree, in which DVC works without git, on the same cache.

    Raises:
        UserError: If git or DVC fails.
    """
    cache = _dvc(root, "cache", "dir").strip()
    tree_copy.copy(root, tree)
    _dvc(tree, "config", "--local", "core.no_scm", "true")
    _dvc(tree, "config", "--local", "cache.dir", str((root / cache).resolve()))
    # What is there already is taken over: a stage that also writes a report into git is not in the
    # cache of runs.
    _dvc(tree, "checkout", "--quiet", "--allow-missing")


def _dvc(folder: Path, *arguments: str) -> str:
    line = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(line, cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"dvc {arguments[0]}: {reason(done.stdout + done.stderr, done.returncode)}")
    return done.stdout


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment in which stages find this Python, and the code of their folder."""
    path = (str(Path(sys.executable).parent), os.environ.get("PATH"))
    source = (str((folder / "src").resolve()), os.environ.get("PYTHONPATH"))
    return os.environ | {
        "PATH": os.pathsep.join(filter(None, path)),
        "PYTHONPATH": os.pathsep.join(filter(None, source)),
        "DVC_NO_ANALYTICS": "1",
    }


def run(
    tree: Path, values: Mapping, setting: Mapping[str, Any], seed: int, metrics: Sequence[str], log: Path, lock: int
) -> dict:
    """Run the stages up to the rollouts, and return the row of the run, failed or not.

    Args:
        values: The content of params.yaml with the setting put in.
        metrics: Those to keep, where the responses have them.
        log: File for what the stages print.
        lock: Descriptor that DVC keeps open too: were this process killed, its run would still
            write to the copy.
    """
    started = time.perf_counter()
    values = dict(values) | {"train_grpo": {**values["train_grpo"], "seeds": [seed]}}
    files.write_text(tree / "params.yaml", yaml.safe_dump(values, sort_keys=False))
    status = _repro(tree, log, lock)
    row = {"setting": dict(setting), "seed": seed, "failed": None, "stories": {}, "metrics": {}}
    if status:
        row["failed"] = reason(log.read_text(encoding="utf-8", errors="replace"), status)
    else:
        try:
            row |= measured(files.read_jsonl(tree / ROLLOUTS), seed, metrics)
        except (UserError, ValueError) as error:
            row["failed"] = " ".join(str(error).split())[:_LONGEST]
    return row | {"seconds": round(time.perf_counter() - started, 1)}


def _repro(tree: Path, log: Path, lock: int) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", TARGET],
            cwd=tree,
            env=_environment(tree),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
        )
        try:
            return process.wait()
        except BaseException:
            _end(process.pid)
            raise


def _end(pid: int) -> None:
    """End a process and what it started, and wait for them."""
    try:
        parent = psutil.Process(pid)
        running = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for sign in ("terminate", "kill"):
        for process in running:
            with suppress(psutil.NoSuchProcess):
                getattr(process, sign)()
        deadline = time.monotonic() + PATIENCE
        while (running := [process for process in running if _is_alive(process)]) and time.monotonic() < deadline:
            time.sleep(0.1)


def _is_alive(process: psutil.Process) -> bool:
    try:
        # An orphan that nobody waits for stays as a zombie.
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def reason(log: str, status: int) -> str:
    """Return in one line why a run failed, from what it printed.

    That is what a stage says to the user; else Python's last exception; else what DVC says.
    """
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in log.replace("\r", "\n").split("\n")]
    for pattern in (r"error: (.+)", r"((?:\w+\.)*\w*(?:Error|Exception|Interrupt)(?:: .*)?)", r"ERROR: (.+)"):
        found = [match[1] for line in lines if (match := re.fullmatch(pattern, line))]
        if found:
            return found[-1][:_LONGEST]
    return f"dvc ended with status {status}"


def measured(rows: Sequence[dict], seed: int, metrics: Sequence[str]) -> dict:
    """Return what is kept of the rollouts of a policy that was trained from one seed.

    That is, of each metric, the means of the starting and of the tuned policy, and the difference
    on each prompt, rounded to six digits; and the story of each prompt. A metric without a value is
    left out, as that of a term which was not rewarded.

    Raises:
        ValueError: If the rollouts do not allow the comparison.
    """
    table = response_table.responses(list(rows))
    start, trained = response_table.starting_policy(table), response_table.training_seeds(table)
    if trained != [seed]:
        raise ValueError(f"the rollouts are of the training seeds {trained}, expected {seed}")
    kept = {}
    for metric in metrics:
        # One of them compares with labels, which the test prompts of some sources lack.
        if metric not in table.columns or table[metric].isna().all():
            continue
        wide = response_table.per_prompt(table, metric)
        difference = wide["tuned"] - wide[start]
        kept[metric] = {
            "start": float(wide[start].mean()),
            "tuned": float(wide["tuned"].mean()),
            "difference": {str(prompt): round(float(value), 6) for prompt, value in difference.items()},
        }
    stories = table.groupby("prompt_id")["story"].first()
    return {"metrics": kept, "stories": {str(prompt): str(story) for prompt, story in stories.items()}}
