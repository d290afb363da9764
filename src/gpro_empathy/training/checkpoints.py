"""Checkpoints of GRPO runs: which one a run may go on from, and what makes one whole."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from gpro_empathy import files, params

FINGERPRINT = "fingerprint.txt"
# Beside what the trainer writes into a checkpoint. The second is written last: with it the checkpoint is whole.
LOG, RUN = "log.json", "run.json"


def fingerprint(sections: Sequence[params.Section], seed: int, inputs: Sequence[Path]) -> str:
    """Return a hash of everything that decides a run: its settings, its seed and the files in its input folders."""
    digest = hashlib.sha256()
    for section in sections:
        # How many processes share a run, where its server stands, and how much memory vLLM takes, does not change it.
        left_out = {"launcher", "vllm_server_url", "vllm_gpu_memory_utilization"}
        digest.update(section.model_dump_json(exclude=left_out).encode())
    digest.update(str(seed).encode())
    for folder in inputs:
        # Python's cache of a compiled module holds the time of its source.
        paths = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
        for path in sorted(paths):
            digest.update(f"{path.relative_to(folder)}\n".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def newest(folder: Path, fingerprint: str) -> Path | None:
    """Return the newest whole checkpoint of the run of this fingerprint, after deleting those of any other."""
    mark = folder / FINGERPRINT
    if not mark.is_file() or files.read_text(mark).strip() != fingerprint:
        forget(folder)
        files.write_text(mark, fingerprint + "\n")
        return None
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{RUN}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def forget(folder: Path) -> None:
    """Delete the checkpoints of a run that is complete."""
    # First what makes them count: a run that is killed here must not find half of a checkpoint and go on from it.
    for mark in folder.rglob(FINGERPRINT):
        mark.unlink()
    shutil.rmtree(folder, ignore_errors=True)
