"""Are the installed packages those of the lock file, and of versions.yaml?

`make setup` installs what the lock file pins. versions.yaml repeats its versions of those packages
that decide numbers, as parameters of the stages that use them, so that results of other versions
are stale to DVC. Installed versions are read from metadata; nothing is imported.
"""

import os
import re
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from gpro_empathy import files

WHOLE, SUBSET = Path("requirements.lock"), Path("requirements-cpu.lock")
VERSIONS = Path("versions.yaml")
# What to do where packages have other versions than in versions.yaml.
REMEDY = (
    "run `rm -rf .venv && make setup` for the pinned packages, or `make versions` and `dvc repro` to make stale results anew "
    "with the installed ones"
)
_LISTED = 4
# CUDA's driver ABI: the oldest driver of each major release (NVIDIA, CUDA Compatibility, minor
# version compatibility).
DRIVERS = {12: "525", 13: "580"}


def lock_in_use() -> Path:
    """Return the lock file that make installs here.

    It is that of the whole stack beside an NVIDIA driver, else that of the subset.
    """
    chosen = WHOLE if shutil.which("nvidia-smi") else SUBSET
    return Path(os.environ.get("LOCK", chosen))


def pinned(lock: str) -> dict[str, str]:
    """Return the versions that the text of a lock file pins for this machine, by canonical name."""
    versions = {}
    for line in lock.splitlines():
        if not re.match(r"[A-Za-z0-9]", line):  # a comment, or a hash of the line before
            continue
        requirement = Requirement(line.rstrip("\\ "))
        if requirement.marker is None or requirement.marker.evaluate():
            (specifier,) = requirement.specifier
            versions[canonicalize_name(requirement.name)] = specifier.version
    return versions


def present() -> dict[str, str]:
    """Return the versions of all installed packages, by canonical name."""
    return {canonicalize_name(package.name): package.version for package in metadata.distributions()}


def differences(wanted: Mapping[str, str], versions: Mapping[str, str], source: str = "the lock") -> list[str]:
    """Return what is installed in another version than the lock's, or not at all, one phrase each.

    Builds of one version are the same.

    Args:
        source: Where the wanted versions stand, as the phrases name it.
    """
    lines = []
    for name, version in sorted(wanted.items()):
        if name not in versions:
            lines.append(f"{name} is not installed ({source} has {version})")
        elif Version(versions[name]).public != Version(version).public:
            lines.append(f"{name} is {versions[name]} ({source} has {version})")
    return lines


def recorded(path: Path = VERSIONS) -> dict[str, str]:
    """Return the versions in versions.yaml, by canonical name.

    Raises:
        UserError: If the file is missing or no mapping of names to versions.
    """
    restore = f"restore it with `git checkout -- {VERSIONS}`"
    try:
        versions = yaml.safe_load(files.read_text(path, restore))
    except yaml.YAMLError as error:
        raise files.UserError(f"{path}: not YAML ({' '.join(str(error).split())}); {restore}") from None
    if not isinstance(versions, dict) or not versions:
        raise files.UserError(f"{path}: no packages with their versions; {restore}")
    # YAML reads 2.13 as a number, in which 2.10 and 2.1 are the same.
    if wrong := [name for name, version in versions.items() if not isinstance(version, str)]:
        raise files.UserError(f"{path}: the version of {wrong[0]} is {versions[wrong[0]]!r}; write it in quotes")
    return versions


def unrecorded(versions: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """Return which packages of versions.yaml are installed in another version, one phrase each.

    Those that are not installed are not used: vllm and unsloth are there beside a GPU alone.
    """
    used = {name: version for name, version in versions.items() if name in present}
    return differences(used, present, VERSIONS.name)


def summary(differing: list[str]) -> str:
    """Return the first few differences, and how many more there are."""
    rest = f" and {len(differing) - _LISTED} more" if len(differing) > _LISTED else ""
    return ", ".join(differing[:_LISTED]) + rest


def driver_needed(lock: Path = WHOLE) -> str:
    """Return the oldest NVIDIA driver that runs the CUDA of the pinned torch.

    Raises:
        UserError: If the lock file pins no CUDA of a known release.
    """
    version = pinned(files.read_text(lock)).get("nvidia-cuda-runtime", "none")
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) not in DRIVERS:
        known = ", ".join(map(str, DRIVERS))
        raise files.UserError(f"{lock}: nvidia-cuda-runtime is {version}, and only drivers of CUDA {known} are known")
    return DRIVERS[int(major)]
