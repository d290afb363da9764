"""The stages of dvc.yaml: what each declares, and what it reaches by its imports."""

import re
from pathlib import Path

import yaml

from gpro_empathy import installed
from package_imports import IMPORTS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PACKAGE = "src/gpro_empathy"
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# The stages of every run: the one of the user's inputs is there once for each of them.
STAGES = {name: stage for name, stage in GRAPH.items() if "foreach" not in stage}
EMBEDDED = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["prepare"]["embedded_folder"]
VERSIONS = installed.VERSIONS.name
# They write nothing and stand before the module of a stage: what they read is no dependency.
VERSIONS_CHECK = "python -m gpro_empathy.tools.versions"
CHECKS = (VERSIONS_CHECK, "python -m gpro_empathy.tools.doctor --gpus")
# Packages whose module has another name.
MODULES = {"scikit-learn": "sklearn", "vadersentiment": "vaderSentiment"}


def stage_file(name):
    return SOURCE / "gpro_empathy" / "stages" / f"{name}.py"


def commands(name):
    """Return the commands of a stage, in order."""
    command = STAGES[name]["cmd"]
    return [command] if isinstance(command, str) else command


def modules(name):
    """Return the modules of a stage, in order."""
    runs = [command for command in commands(name) if command not in CHECKS]
    matches = [re.fullmatch(r"python -m gpro_empathy\.stages\.(\w+)", command) for command in runs]
    assert all(matches), runs
    return [match[1] for match in matches]


def declared(name, kind):
    """Return the paths of a stage's deps, or of what it writes (outs, metrics, plots)."""
    kinds = ("deps",) if kind == "deps" else ("outs", "metrics", "plots")
    entries = [entry for k in kinds for entry in STAGES[name].get(k, [])]
    paths = {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}
    return {path.replace("${prepare.embedded_folder}", EMBEDDED) for path in paths}


def declared_code(name):
    """Return the modules and folders of the package that a stage declares."""
    return {path for path in declared(name, "deps") if path.startswith("src/")}


def declared_sections(name):
    """Return the sections of params.yaml that a stage declares."""
    return {entry for entry in STAGES[name].get("params", []) if isinstance(entry, str)}


def declared_versions(name):
    """Return the packages whose versions a stage declares."""
    entries = [entry for entry in STAGES[name].get("params", []) if isinstance(entry, dict)]
    assert all(entry.keys() == {VERSIONS} for entry in entries)
    return {package for entry in entries for package in entry[VERSIONS]}


def covers(entry, path):
    """Is a path the declared one, or in the declared folder?"""
    return path == entry or path.startswith(entry + "/")


def imported(name):
    """Return the modules of a stage, and what they import, directly or not; other packages too."""
    starts = {f"gpro_empathy.stages.{module}" for module in modules(name)}
    return starts.union(*(IMPORTS.find_upstream_modules(start) for start in starts))


def reached(name):
    """Return the files of the package that a stage reaches, below the root of the repository.

    Beside a module may lie the source of a GPU's kernels, which it compiles.
    """
    files = set()
    for module in imported(name):
        path = SOURCE / module.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module.partition(".")[0] == "gpro_empathy":
            sources = [file, *(other for other in [file.with_suffix(".cu")] if other.is_file())]
            files |= {source.relative_to(ROOT).as_posix() for source in sources}
    return files


def versions_used(name):
    """Return the packages of versions.yaml that a stage uses."""
    recorded = installed.recorded(ROOT / VERSIONS)
    used = {package for package in recorded if MODULES.get(package, package.replace("-", "_")) in imported(name)}
    # Where no module imports bitsandbytes, transformers does, for those that load 4-bit weights.
    if any("BitsAndBytesConfig" in (ROOT / path).read_text(encoding="utf-8") for path in reached(name)):
        used.add("bitsandbytes")
    return used
