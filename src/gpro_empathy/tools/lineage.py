"""Tell from dvc.lock whether results on disk are of one run, and of the settings in params.yaml."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from gpro_empathy import files
from gpro_empathy.files import UserError

LOCK = Path("dvc.lock")


def check(stages: Sequence[str], results: Sequence[Path], settings: Mapping[str, object]) -> None:
    """Refuse results that are not those of the last complete run of `stages`.

    Args:
        results: Files and folders that the stages write, which must be on disk as dvc.lock records them.
        settings: params.yaml as a dictionary; sections that a stage read must be as they were then.

    Raises:
        UserError: If a stage has not run, a stage saw other data than the one before it wrote, a result is another one
            than dvc.lock records, or a setting has changed since.
    """
    entries = (yaml.safe_load(files.read_text(LOCK)) or {}).get("stages", {})
    if missing := [name for name in stages if name not in entries]:
        raise UserError(f"{LOCK}: no run of {', '.join(missing)} is recorded; run `make reproduce`")
    recorded: dict[str, str] = {}
    for name in stages:
        for entry in [*entries[name].get("deps", []), *entries[name].get("outs", [])]:
            path, md5 = entry["path"], entry["md5"]
            if recorded.setdefault(path, md5) != md5 and not path.startswith("src/"):
                raise UserError(f"{path}: {name} ran on another one than is there now; run `make reproduce`")
        for section, values in entries[name].get("params", {}).get("params.yaml", {}).items():
            if settings[section] != values:
                raise UserError(
                    f"params.yaml: {section} has changed since {name} ran; run `make reproduce`, or undo the change with "
                    "`git checkout params.yaml`"
                )
    for path in results:
        if not path.exists():
            raise UserError(f"{path}: no such file; run `make reproduce`, which makes what is missing")
        if _md5(path) != recorded.get(path.as_posix()):
            raise UserError(f"{path}: not the one of the run that {LOCK} records; run `make reproduce`")


def _md5(path: Path) -> str:
    """Return DVC's hash: MD5 of a file, or of the JSON list of a folder's files with theirs."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    found = ((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    rows = [{"md5": _md5(file), "relpath": name} for name, file in sorted(found)]
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode()).hexdigest() + ".dir"
