"""What this machine has: processor, memory, disk, TeX, and NVIDIA GPUs with their driver."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU: its name, memory in GiB, and the version of its driver, such as 580.65.06."""

    name: str
    memory: float
    driver: str


@dataclass(frozen=True)
class Machine:
    """What is there: versions and names as text, sizes in GiB, None for what is missing."""

    python: str
    disk: float
    memory: float
    cores: int
    latexmk: str | None
    gpus: tuple[Gpu, ...]


def inspect() -> Machine:
    """Look at this machine."""
    return Machine(
        python=platform.python_version(),
        disk=shutil.disk_usage(Path.cwd()).free / GIB,
        memory=psutil.virtual_memory().available / GIB,
        cores=os.cpu_count() or 1,
        latexmk=shutil.which("latexmk"),
        gpus=_gpus(),
    )


def _gpus() -> tuple[Gpu, ...]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    return parse_gpus(output)


def parse_gpus(output: str) -> tuple[Gpu, ...]:
    """Return the GPUs that nvidia-smi lists, one a line: name, memory in MiB, driver."""
    rows = [[cell.strip() for cell in line.rsplit(",", 2)] for line in output.splitlines()]
    # A card that is in trouble has a line of another kind, or no number where its memory should be.
    return tuple(Gpu(row[0], float(row[1]) / 1024, row[2]) for row in rows if len(row) == 3 and row[1].isdigit())
