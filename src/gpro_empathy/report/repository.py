"""What git knows of a run's folder: its commit, what differs from it, files as committed.

A copy inside another repository's ignored folder, as `make tiny` makes one, is not in git: the
commit found there would be that of something else.
"""

import os
import re
import subprocess
from pathlib import Path

from gpro_empathy.files import UserError


def head(root: Path = Path()) -> str:
    """Return the hash of the commit that is checked out.

    Raises:
        UserError: If git is missing, or `root` is not the top of a repository with a commit.
    """
    if _git(root, "rev-parse", "--show-prefix").strip():
        raise UserError("this folder is a copy inside another repository, and not in git itself")
    try:
        return _git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").decode().strip()
    except UserError:
        raise UserError("this repository has no commit yet; `git commit` makes one") from None


def changed(root: Path = Path()) -> list[str]:
    """Return, sorted, the paths that differ from the commit.

    New files that git does not ignore are included.

    Raises:
        UserError: As `head`.
    """
    # Without renames, every entry is a status of two letters, a space and one path.
    entries = _git(root, "status", "--porcelain", "--no-renames", "--untracked-files=all", "-z").decode(
        "utf-8", "replace"
    )
    return sorted(entry[3:] for entry in entries.split("\0") if entry)


def committed(path: str, revision: str = "HEAD", root: Path = Path()) -> bytes | None:
    """Return a file's bytes at a revision, or None if the revision has no such file.

    Raises:
        UserError: If git is missing, or knows no such revision.
    """
    _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if not _git(root, "ls-tree", "--name-only", revision, "--", path):
        return None
    return _git(root, "show", f"{revision}:{path}")


def _git(root: Path, *arguments: str) -> bytes:
    try:
        # In English, of which the reasons below are told.
        done = subprocess.run(
            ["git", *arguments], cwd=root, env=os.environ | {"LC_ALL": "C"}, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise UserError("git is not installed") from None
    if done.returncode:
        if done.stderr.startswith(b"fatal: not a git repository"):
            raise UserError("this folder is not in git, and has no commits; take a `git clone` in its place")
        trust = re.search(rb"git config --global --add safe\.directory .*", done.stderr)
        if trust:
            command = trust[0].decode("utf-8", "replace")
            raise UserError(f"this folder belongs to another user, and git does not trust it; run `{command}`")
        reason = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
        raise UserError(reason.removeprefix("fatal: ") or f"git {' '.join(arguments)}: no such commit")
    return done.stdout
