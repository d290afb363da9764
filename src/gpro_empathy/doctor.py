"""Say what this machine has and what each profile needs; stop a run that cannot succeed before its long work."""

import argparse
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from gpro_empathy import files, packaged, params, profiles
from gpro_empathy.files import UserError

GIB = 2**30


@dataclass(frozen=True)
class Need:
    """What a run takes: free disk and memory in GiB, GPU memory in GiB (0: no GPU), and whether it reads from a hub."""

    disk: float
    memory: float
    gpu: float
    hub: bool


# Measured for the embedded default; for 8 billion parameters: 6 GiB of 4-bit weights, the share that vLLM takes for its
# cache, and the activations of one group.
EMBEDDED = Need(disk=5, memory=6, gpu=0, hub=False)
LARGE = Need(disk=80, memory=24, gpu=24, hub=True)


@dataclass(frozen=True)
class Machine:
    """What is there: versions and names as text, sizes in GiB, None for what is missing."""

    python: str
    disk: float
    memory: float
    cores: int
    latexmk: str | None
    gpu: str | None
    gpu_memory: float
    hub_token: bool


def inspect() -> Machine:
    """Look at this machine."""
    gpu, gpu_memory = _gpu()
    return Machine(
        python=platform.python_version(),
        disk=shutil.disk_usage(Path.cwd()).free / GIB,
        memory=psutil.virtual_memory().available / GIB,
        cores=os.cpu_count() or 1,
        latexmk=shutil.which("latexmk"),
        gpu=gpu,
        gpu_memory=gpu_memory,
        hub_token=_has_token(),
    )


def need(config: params.Params) -> Need:
    """Return what a run with these parameters takes."""
    local = config.policy.model in (packaged.SMOLLM2, "random")
    return EMBEDDED if local and config.prepare.source != "hub" else LARGE


def problems(machine: Machine, config: params.Params) -> list[str]:
    """Return what keeps a run from succeeding on this machine, one line each, with the way out."""
    wanted = need(config)
    found = []
    if machine.disk < wanted.disk:
        found.append(f"{machine.disk:.1f} GiB of disk are free, the run needs {wanted.disk:g}; free some")
    if machine.memory < wanted.memory:
        found.append(f"{machine.memory:.1f} GiB of memory are free, the run needs {wanted.memory:g}; close programs")
    if machine.latexmk is None:
        found.append("latexmk is missing, the report needs TeX; run `make tex`")
    if config.policy.backend == "unsloth" and machine.gpu is None:
        found.append(
            "policy.backend is unsloth, which needs an NVIDIA GPU, and none is found; undo with `git checkout params.yaml`"
        )
    if machine.gpu is not None and machine.gpu_memory < wanted.gpu:
        found.append(f"the GPU {machine.gpu} has {machine.gpu_memory:.0f} GiB, the run needs {wanted.gpu:g}")
    if wanted.hub and not machine.hub_token:
        found.append(
            f"no Hugging Face token is found, and {config.policy.model} may be gated; set HF_TOKEN or run `hf auth login`"
        )
    return found


def table(machine: Machine) -> str:
    """Return what this machine has, as a table."""
    rows = [
        ("Python", machine.python),
        ("Processor cores", str(machine.cores)),
        ("Free memory", f"{machine.memory:.1f} GiB"),
        ("Free disk", f"{machine.disk:.1f} GiB"),
        ("TeX", machine.latexmk or "missing (make reproduce installs it where apt-get can be run)"),
        ("GPU", f"{machine.gpu}, {machine.gpu_memory:.0f} GiB" if machine.gpu else "none"),
        ("Hub token", "found" if machine.hub_token else "none"),
    ]
    return "\n".join(f"  {name:<16} {value}" for name, value in rows)


def profile_lines() -> list[str]:
    """Return one line per profile with what it needs."""
    lines = [_line("(default)", need(params.load_all()))]
    for path in sorted(profiles.PROFILES.glob("*.yaml")):
        lines.append(_line(path.stem, EMBEDDED if path.stem == "tiny" else LARGE))
    return lines


def main() -> None:
    """Print the table, or with --quiet only what is wrong; exit with 1 if the run cannot succeed."""
    parser = argparse.ArgumentParser(description="Say what this machine has, and what each profile needs.")
    parser.add_argument(
        "--quiet", action="store_true", help="print nothing unless the run of params.yaml cannot succeed"
    )
    quiet = parser.parse_args().quiet
    machine, config = inspect(), params.load_all()
    found = problems(machine, config)
    if not quiet:
        print(f"This machine:\n{table(machine)}\n\nA run needs:\n" + "\n".join(profile_lines()))
        print("\nThe run of params.yaml as it is now: " + ("can start" if not found else "cannot succeed:"))
        print("".join(f"  {problem}\n" for problem in found), end="")
    elif found:
        raise UserError("; ".join(found))


def _line(name: str, wanted: Need) -> str:
    gpu = f"a GPU of {wanted.gpu:g} GiB, " if wanted.gpu else "no GPU, "
    hub = "a hub token and the network" if wanted.hub else "no network after set-up"
    return f"  {name:<16} {wanted.disk:g} GiB of disk, {wanted.memory:g} GiB of memory, {gpu}{hub}"


def _gpu() -> tuple[str | None, float]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None, 0.0
    name, _, mebibytes = output.strip().split("\n")[0].rpartition(",")
    return name.strip(), float(mebibytes) / 1024


def _has_token() -> bool:
    if os.environ.get("HF_TOKEN"):
        return True
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return (home / "token").is_file()


if __name__ == "__main__":
    files.run_stage(main)
