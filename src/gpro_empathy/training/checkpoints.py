"""Checkpoints of GRPO runs: which one a run may go on from, and what makes one whole."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from gpro_empathy import files, params

FINGERPRINT = "fingerprint.json"
# Beside what the trainer writes into a checkpoint. The second is written last: with it the
# checkpoint is whole.
LOG, RUN = "log.json", "run.json"
# Packages whose version decides what a step does.
PACKAGES = (
    "bitsandbytes", "numpy", "peft", "scikit-learn", "scipy", "sentence-transformers", "torch", "transformers", "trl",
    "unsloth", "vadersentiment", "vllm",
)  # fmt: skip
_NAMED = 3


def fingerprint(
    sections: Sequence[params.Section], seed: int, inputs: Sequence[Path], code: Mapping[str, Path]
) -> dict[str, str]:
    """Return what decides a run: hashes, the seed, and versions of packages.

    Each is named by what a person would call it.

    Args:
        inputs: Folders, of which every file counts.
        code: Source files by module.
    """
    # How many processes share a run, where its server stands, and how much memory vLLM takes, does
    # not change it.
    left_out = {"launcher", "vllm_server_url", "vllm_gpu_memory_utilization"}
    parts = {
        f"the settings {section.section_name()}": _hash_text(section.model_dump_json(exclude=left_out))
        for section in sections
    }
    parts["the seed"] = str(seed)
    for folder in inputs:
        paths = sorted(
            path for path in folder.rglob("*") if path.is_file() and not _is_litter(path.relative_to(folder))
        )
        lines = [f"{path.relative_to(folder)} {files.sha256(path)}" for path in paths]
        parts[f"the input {folder}"] = _hash_text("\n".join(lines))
    parts |= {f"the code of {module}": files.sha256(path) for module, path in code.items()}
    return parts | {f"the version of {package}": _version(package) for package in PACKAGES}


def _is_litter(path: Path) -> bool:
    """Return whether a file is what editors and Python leave, as .dvcignore names it."""
    hidden = any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    return hidden or path.name.endswith(("~", ".pyc", ".orig", ".rej", ".swp"))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def newest(folder: Path, fingerprint: Mapping[str, str]) -> Path | None:
    """Return the newest whole checkpoint of the run of this fingerprint.

    Those of any other run are deleted first, and a line says what has changed since they were made.
    """
    mark = folder / FINGERPRINT
    if not mark.is_file() or (made_by := files.read_json(mark)) != fingerprint:
        if mark.is_file():
            print(f"GRPO begins anew: since the checkpoints in {folder}, {_change(made_by, fingerprint)}", flush=True)
        forget(folder)
        files.write_json(mark, dict(fingerprint))
        return None
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{RUN}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _change(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say what differs between two fingerprints."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{rest} changed"


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def forget(folder: Path) -> None:
    """Delete the checkpoints of a run that is complete."""
    # First what makes them count: a run that is killed here must not find half of a checkpoint and
    # go on from it.
    for mark in folder.rglob(FINGERPRINT):
        mark.unlink()
    shutil.rmtree(folder, ignore_errors=True)
