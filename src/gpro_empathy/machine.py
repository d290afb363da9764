"""What this machine has: processor, memory, disk, TeX, and NVIDIA GPUs with their driver."""

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

GIB = 2**30
_ASK_TORCH = """
import json, torch
found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
print(json.dumps([(one.name, one.total_memory) for one in found]))
"""


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU: its name, memory in GiB, and the version of its driver, such as 580.65.06."""

    name: str
    memory: float
    driver: str


@dataclass(frozen=True)
class Machine:
    """What is there: versions and names as text, sizes in GiB, None for what is missing.

    `listed` is the number of GPUs by nvidia-smi; torch may compute on some of them alone, which
    `gpus` then are.
    """

    python: str
    disk: float
    memory: float
    cores: int
    latexmk: str | None
    gpus: tuple[Gpu, ...]
    listed: int = 0


def inspect() -> Machine:
    """Look at this machine."""
    gpus = _gpus()
    return Machine(
        python=platform.python_version(),
        disk=shutil.disk_usage(Path.cwd()).free / GIB,
        memory=psutil.virtual_memory().available / GIB,
        cores=os.cpu_count() or 1,
        latexmk=shutil.which("latexmk"),
        gpus=gpus,
        listed=len(gpus),
    )


def _gpus() -> tuple[Gpu, ...]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    return parse_gpus(output)


def seen_by_torch(gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """Return those GPUs that torch computes on.

    There are none if it was built without CUDA, and some with CUDA_VISIBLE_DEVICES. Asked in a
    process of its own, which takes seconds.
    """
    done = subprocess.run([sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout) if done.returncode == 0 else []
    return tuple(Gpu(name, memory / GIB, gpus[0].driver) for name, memory in found)


def parse_gpus(output: str) -> tuple[Gpu, ...]:
    """Return the GPUs that nvidia-smi lists, one a line: name, memory in MiB, driver."""
    rows = [[cell.strip() for cell in line.rsplit(",", 2)] for line in output.splitlines()]
    # A card that is in trouble has a line of another kind, or no number where its memory should be.
    return tuple(Gpu(row[0], float(row[1]) / 1024, row[2]) for row in rows if len(row) == 3 and row[1].isdigit())
