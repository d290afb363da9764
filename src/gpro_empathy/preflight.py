"""What keeps a run from succeeding on a machine: checks of what was found against what the parameters need.

Pure functions: `doctor` looks at the machine, the packages and the hub, and hands over what it found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpro_empathy import gpu_memory, hub_access, installed, params
from gpro_empathy.machine import GIB, Gpu, Machine

# Free disk and memory in GiB, measured for the embedded default with its environment.
DISK, MEMORY = 5.0, 6.0
# Settings that run on an NVIDIA GPU alone: section, key, values.
NEEDS_GPU = (
    ("policy", "backend", ("unsloth",)),
    ("train_grpo", "optimizer", ("paged_adamw_8bit",)),
    ("train_grpo", "vllm_mode", ("colocate", "server")),
)
UNDO = "undo the profile with `git checkout params.yaml`"


@dataclass(frozen=True)
class Need:
    """What a run takes: free disk and memory in GiB, a GPU or none, and what is read from the hub.

    `gpu_memory` is None where no GPU is needed, or the repository keeps no architecture to compute it from.
    """

    disk: float
    memory: float
    gpu: bool
    gpu_memory: gpu_memory.Sum | None
    hub: tuple[hub_access.Repository, ...]


@dataclass(frozen=True)
class Found:
    """What was found beside the machine: differences from the lock, the driver that CUDA needs, and access to the hub."""

    differences: Sequence[str] = ()
    driver_needed: str = "0"
    hub: Sequence[hub_access.Access] = field(default_factory=tuple)


@dataclass(frozen=True)
class Check:
    """One check: its name, what was found, and if that is not enough, what to do."""

    name: str
    found: str
    way_out: str | None = None


def need(config: params.Params) -> Need:
    """Return what a run with these parameters takes."""
    hub = tuple(hub_access.needed(config))
    policy = gpu_memory.architecture(config.policy.model)
    names = (config.rewards.similarity_model, config.train_scorer.encoder)
    rewards = [encoder for name in names if (encoder := gpu_memory.architecture(name))]
    gpu = bool(asks_for_gpu(config))
    if policy is None:
        return Need(DISK, MEMORY, gpu, None, hub)
    # What the hub sends: the policy in bfloat16, loaded through memory, and the encoders in float32.
    weights = gpu_memory.weights(policy, load_in_4bit=False)
    encoders = sum(gpu_memory.encoder_parameters(encoder) for encoder in rewards) * gpu_memory.BYTES_FP32 / GIB
    memory_sum = gpu_memory.needed(config, policy, rewards)
    return Need(DISK + weights + encoders, MEMORY + weights, gpu, memory_sum, hub)


def asks_for_gpu(config: params.Params) -> str | None:
    """Return the setting, in words, that runs on an NVIDIA GPU alone, or None if there is none."""
    for section, key, values in NEEDS_GPU:
        value = getattr(getattr(config, section), key)
        if value in values:
            return f"{section}.{key} is {value}"
    return None


def checks(machine: Machine, config: params.Params, found: Found) -> list[Check]:
    """Return all checks that a run with these parameters calls for, in the order in which to mend them."""
    wanted = need(config)
    result = [
        _amount("disk", machine.disk, wanted.disk, "free some"),
        _amount("memory", machine.memory, wanted.memory, "close programs"),
        Check("TeX", machine.latexmk)
        if machine.latexmk
        else Check("TeX", "latexmk is missing", "the report needs it; run `make tex`"),
        _packages(found.differences),
    ]
    if wanted.gpu or machine.gpus:
        result += _gpu_checks(machine.gpus, wanted, config, found.driver_needed)
    for access in found.hub:
        name = f"hub: {access.repository.setting}"
        result.append(Check(name, f"{access.repository.id}: {access.state}", access.problem))
    return result


def problems(machine: Machine, config: params.Params, found: Found) -> list[str]:
    """Return what keeps a run from succeeding on this machine, one line each, with the way out."""
    # What is wrong with a repository names it already.
    return [
        check.way_out if check.name.startswith("hub: ") else f"{check.found}; {check.way_out}"
        for check in checks(machine, config, found)
        if check.way_out is not None
    ]


def _amount(name: str, free: float, needed: float, way_out: str) -> Check:
    found = f"{free:.1f} GiB of {name} are free, the run needs {needed:.0f}"
    return Check(name, found, way_out if free < needed else None)


def _packages(differences: Sequence[str]) -> Check:
    if not differences:
        return Check("packages", "as locked")
    return Check(
        "packages", f"packages differ from the lock: {installed.summary(list(differences))}", "run `rm -rf .venv && make setup`"
    )  # fmt: skip


def _gpu_checks(gpus: Sequence[Gpu], wanted: Need, config: params.Params, driver_needed: str) -> list[Check]:
    if not gpus:
        found = f"{asks_for_gpu(config)}, which needs an NVIDIA GPU, and none is found (nvidia-smi lists none)"
        return [Check("GPU", found, f"run on a machine with one, or {UNDO}")]
    result = [Check("GPU", ", ".join(f"{gpu.name} ({gpu.memory:.0f} GiB)" for gpu in gpus))]
    driver = min((gpu.driver for gpu in gpus), key=installed.version_key)
    old = installed.version_key(driver) < installed.version_key(driver_needed)
    found = f"the NVIDIA driver is {driver}, the CUDA of the pinned torch needs {driver_needed} or newer"
    # Without the GPU torch computes on the processor, which is enough for a run that asks for none.
    result.append(Check("driver", found, "update the driver" if old and wanted.gpu else None))
    if wanted.gpu_memory is not None:
        result.append(_memory_of_gpus(gpus, wanted.gpu_memory, config))
    return result


def _memory_of_gpus(gpus: Sequence[Gpu], wanted: gpu_memory.Sum, config: params.Params) -> Check:
    # One process takes one GPU. Of several the sum: how a launcher shares a model out among them is its own affair.
    alone = config.train_grpo.launcher == "none"
    there = (max if alone else sum)(gpu.memory for gpu in gpus)
    found = f"the {'GPU has' if alone or len(gpus) == 1 else 'GPUs have'} {there:.0f} GiB, the run needs {wanted.total:.1f} ({wanted.text()})"
    fewer = config.train_grpo.can_take_fewer(config.policy.backend)
    way_out = (
        f"lower {'train_grpo.completions_per_forward or ' if fewer else ''}policy.max_completion_tokens"
        + (", change train_grpo.vllm_gpu_memory_utilization" if wanted.share else "")
        + ", or take a larger GPU"
    )
    return Check("GPU memory", found, way_out if there < wanted.total else None)
