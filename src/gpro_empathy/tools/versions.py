"""Compare the installed versions of packages with versions.yaml, or write them there.

versions.yaml names the packages that decide numbers. DVC reads it as parameters of the stages that
use them, so that a stage whose results are of another version is stale. Before each such stage this
check stops a run whose results would be recorded under versions that did not make them.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import yaml
from packaging.version import Version

from gpro_empathy import entry_point, files, installed
from gpro_empathy.files import UserError

HEADER = """\
# Versions of the packages that decide numbers, as parameters of the stages in dvc.yaml that use
# them: DVC calls results of other versions stale. Written by `make lock` from requirements.lock, or
# by `make versions` from what is installed.
"""


def check(versions: Mapping[str, str], present: Mapping[str, str]) -> None:
    """Refuse an environment in which a package has another version than in versions.yaml.

    Raises:
        UserError: Naming the packages with both versions, and the ways out.
    """
    if differing := installed.unrecorded(versions, present):
        raise UserError(f"{installed.summary(differing)}; {installed.REMEDY}")


def renewed(versions: Mapping[str, str], current: Mapping[str, str]) -> dict[str, str]:
    """Return the current versions of these packages, by name; one that has none keeps the old."""
    return {name: Version(current.get(name, version)).public for name, version in sorted(versions.items())}


def main() -> None:
    """Check the installed packages, or replace the versions in versions.yaml."""
    parser = argparse.ArgumentParser(description="Compare the installed versions of packages with versions.yaml.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--installed", action="store_true", help="write the installed versions into versions.yaml")
    source.add_argument("--lock", type=Path, help="write the versions that this lock file pins into versions.yaml")
    arguments = parser.parse_args()
    versions = installed.recorded()
    if not arguments.installed and arguments.lock is None:
        check(versions, installed.present())
        return
    current = installed.pinned(files.read_text(arguments.lock)) if arguments.lock else installed.present()
    files.write_text(installed.VERSIONS, HEADER + yaml.safe_dump(renewed(versions, current)))


if __name__ == "__main__":
    entry_point.run_stage(main)
