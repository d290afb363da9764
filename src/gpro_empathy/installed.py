"""Are the installed packages those of the lock file? Read from their metadata; nothing is imported."""

import os
import re
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from gpro_empathy import files

WHOLE, SUBSET = Path("requirements.lock"), Path("requirements-cpu.lock")
_LISTED = 4
# CUDA's driver ABI: the oldest driver of each major release (NVIDIA, CUDA Compatibility, minor version compatibility).
DRIVERS = {12: "525", 13: "580"}


def lock_in_use() -> Path:
    """Return the lock file that make installs here: the whole stack beside an NVIDIA driver, else the subset."""
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


def differences(wanted: Mapping[str, str], versions: Mapping[str, str]) -> list[str]:
    """Return what is installed in another version than the lock's, or not at all, one phrase each.

    Builds of one version, such as 2.13.0+cpu, are the same.
    """
    lines = []
    for name, version in sorted(wanted.items()):
        if name not in versions:
            lines.append(f"{name} is not installed (the lock has {version})")
        elif Version(versions[name]).public != Version(version).public:
            lines.append(f"{name} is {versions[name]} (the lock has {version})")
    return lines


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
