"""Copy the folder that this runs in: what git has or would take, with or without a repository.

`python -m gpro_empathy.tools.tree_copy TARGET`, for `make tiny` and `make seeds`. Checkpoints of an
earlier run, in TARGET/work, are kept, so that it goes on.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from gpro_empathy import entry_point, files
from gpro_empathy.files import UserError

GRAPH = Path("dvc.yaml")
# What a copy makes anew or goes on with, beside the outputs of the stages.
OF_EACH_COPY = (".venv", "tmp", "work")


def copy(source: Path, target: Path) -> None:
    """Make `target` a copy of the folder `source`.

    Nested repositories come without their history. A link to a folder stays a link to the same
    folder, unless a run would write through it; a link to a file becomes that file; a link to
    nothing is left out.

    Raises:
        UserError: If `target` is no earlier copy and not empty, or holds `source`; if git is
            missing or fails.
    """
    written = [*OF_EACH_COPY, *_outputs(source / GRAPH)]
    if source.resolve().is_relative_to(target.resolve()):
        raise UserError(f"{target}: holds the folder that is copied; name another one")
    if target.is_dir() and not (target / GRAPH).is_file() and {old.name for old in target.iterdir()} - {"work"}:
        raise UserError(f"{target}: is no earlier copy, and what is in it would be deleted; name a new folder")
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        if old.name != "work":
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for path in sorted(set(listed(source))):
        original, place = source / path, target / path
        linked_folder = original.is_symlink() and original.is_dir()
        # A file that git has and the user deleted, or a link to nothing.
        if not original.exists() or (linked_folder and _is_written(path, written)):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if linked_folder:
            inside = original.resolve().is_relative_to(source.resolve()) and not os.readlink(original).startswith("/")
            place.symlink_to(os.readlink(original) if inside else original.resolve())
        else:
            shutil.copy2(original, place)


def listed(folder: Path) -> Iterator[Path]:
    """Yield the paths below a folder that git has or would take, relative to it.

    Those of nested repositories too.

    Raises:
        UserError: As `copy`.
    """
    # An empty repository elsewhere knows what is ignored also where there is none, or one that git
    # does not trust.
    with tempfile.TemporaryDirectory() as elsewhere:
        _git(folder, "init", "--quiet", "--bare", elsewhere)
        repository = (f"--git-dir={elsewhere}", f"--work-tree={folder.resolve()}")
        names = _git(folder, *repository, "ls-files", "--others", "--exclude-standard", "-z")
    if (folder / ".git").exists():
        # Ignored files that were committed all the same.
        names += _git(folder, "-c", "safe.directory=*", "ls-files", "--cached", "-z", fails=False)
    for name in filter(None, names.split("\0")):
        path = Path(name)
        if (folder / path).is_dir() and not (folder / path).is_symlink():
            yield from (path / inner for inner in listed(folder / path))
        else:
            yield path


def _outputs(graph: Path) -> list[str]:
    stages = yaml.safe_load(files.read_text(graph))["stages"].values()
    outputs = [out for stage in stages for out in stage.get("outs", [])]
    return [out if isinstance(out, str) else next(iter(out)) for out in outputs]


def _is_written(path: Path, written: list[str]) -> bool:
    return any(path == Path(out) or path in Path(out).parents or Path(out) in path.parents for out in written)


def _git(folder: Path, *arguments: str, fails: bool = True) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("git is not installed; install it to copy the tree") from None
    if done.returncode and fails:
        raise UserError(f"git {arguments[0]}: {os.fsdecode(done.stderr).strip()}")
    return os.fsdecode(done.stdout)


def main() -> None:
    """Copy the current folder to the one named on the command line."""
    parser = argparse.ArgumentParser(description="Copy this folder as git would, but without git.")
    parser.add_argument("target", type=Path)
    copy(Path(), parser.parse_args().target)


if __name__ == "__main__":
    entry_point.run_stage(main)
