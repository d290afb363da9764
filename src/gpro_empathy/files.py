"""Read and write the project's files: atomically, and in a fixed order.

Errors name file and line.
"""

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class UserError(Exception):
    """A mistake that the user can mend: shown as one line, without a traceback."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` if the block succeeds.

    It is removed if the block fails. The block may create a file or a folder there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_left_behind(path)
    workspace, held = _workspace(path)
    try:
        yield workspace / path.name
        _replace(workspace, path)
    except OSError as error:
        name_place(error, str(path))
        raise
    finally:
        shutil.rmtree(workspace)
        os.close(held)


def _replace(workspace: Path, path: Path) -> None:
    """Put what was made in the workspace in the place of `path`."""
    made, old = workspace / path.name, workspace / ".old"
    # A folder cannot be replaced by another: it is moved aside first, and back if that fails.
    aside = path.is_dir() and not path.is_symlink() and made.exists()
    if aside:
        os.replace(path, old)
    try:
        os.replace(made, path)
    except OSError:
        if aside:
            os.replace(old, path)
        raise


def _workspace(path: Path) -> tuple[Path, int]:
    """Make a temporary folder beside `path`.

    Returns it with a descriptor that holds its lock until it is closed.
    """
    while True:
        workspace = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        try:
            descriptor = os.open(workspace, os.O_RDONLY)
        except FileNotFoundError:
            continue  # deleted as below, before it was locked
        with suppress(OSError):  # some network file systems lock no folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if workspace.is_dir():
            return workspace, descriptor
        os.close(descriptor)


def _delete_left_behind(path: Path) -> None:
    """Delete the temporary folders that killed processes left beside `path`.

    No living process holds the lock of one of these.
    """
    for folder in path.parent.glob(f".{glob.escape(path.name)}-*"):
        # Nothing else than what `_workspace` makes: tempfile's random names have eight characters.
        if not re.fullmatch(r"[a-z0-9_]{8}", folder.name.removeprefix(f".{path.name}-")) or folder.is_symlink():
            continue
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if set(os.listdir(folder)) <= {path.name}:
                shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def name_place(error: OSError, place: str) -> None:
    """Give a failed write its place, which a full disk does not know."""
    if error.filename is None and error.errno in _FULL:
        error.filename = place


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as sorted, indented JSON, atomically.

    Raises:
        ValueError: If a number is not finite.
    """
    write_text(path, json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """Write one JSON object a line, keys sorted, atomically.

    Raises:
        ValueError: If a number is not finite.
    """
    lines = [json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False) for row in rows]
    write_text(path, "".join(line + "\n" for line in lines))


def read_text(
    path: Path, if_missing: str = "run `make reproduce`, which makes what is missing", newline: str | None = None
) -> str:
    """Read a UTF-8 text file.

    Args:
        if_missing: What to do where there is no such file, as the message says it.
        newline: As that of `open`; "" leaves line ends as they are.

    Raises:
        UserError: If the file is missing or not UTF-8, naming it and the offending byte.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {if_missing}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: byte {error.object[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from None


def read_json(path: Path) -> Any:
    """Read one JSON value.

    Raises:
        UserError: If the file is missing or not JSON, naming the line.
    """
    return _parse(read_text(path), path, 1)


def read_jsonl(path: Path) -> list[dict]:
    """Read one JSON object a line.

    Raises:
        UserError: If the file is missing, or a line is not a JSON object, naming the line.
    """
    # Not str.splitlines: JSON strings may hold U+2028 and other separators unescaped.
    lines = read_text(path).split("\n")
    rows = [_parse(line, path, number) for number, line in enumerate(lines, start=1) if line.strip()]
    numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
    for number, row in zip(numbers, rows, strict=True):
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object, got {row!r}")
    return rows


def _parse(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise UserError(f"{path}, line {line}, column {error.colno}: not JSON ({error.msg.lower()})") from None
