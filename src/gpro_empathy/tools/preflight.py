"""What keeps a run from succeeding on a machine.

Checks of what was found against what the parameters need.

Pure functions: `doctor` looks at the machine, the packages and the hub, and hands over what it
found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from packaging.version import Version

from gpro_empathy import calibration, installed, params
from gpro_empathy.machine import Gpu, Machine
from gpro_empathy.tools import gpu_memory, hub_access
from gpro_empathy.training import launch

# Free disk and memory in GiB that the embedded default takes once it is set up: its outputs and
# DVC's copies of them took 1.2, its processes 5.
DISK, MEMORY = 3.0, 6.0
# Settings that run on an NVIDIA GPU alone: section, key, values.
NEEDS_GPU = (
    ("policy", "backend", ("unsloth",)),
    ("train_grpo", "optimizer", ("paged_adamw_8bit",)),
    ("train_grpo", "vllm_mode", ("colocate", "server")),
    ("rollout", "engine", ("vllm",)),
)
LAUNCH, REWARDS, INPUTS = "launcher", "reward terms", "inputs"
UNDO = "undo the profile with `git checkout params.yaml`"


@dataclass(frozen=True)
class Share:
    """What a part of the run takes of GPUs.

    How many, as which setting says, and the memory of each.

    `fewer` says how to take fewer GPUs, and `less` how to take less memory.
    """

    name: str
    gpus: int
    asked_by: str
    fewer: str
    sum: gpu_memory.Sum
    less: str


@dataclass(frozen=True)
class Need:
    """What a run takes of a machine.

    Free disk, downloads by setting and memory in GiB, a GPU or none, and what is read from the hub.

    `gpu_memory` is empty where the repository keeps no architecture to compute it from.
    """

    disk: float
    downloads: dict[str, float]
    memory: float
    gpu: bool
    gpu_memory: tuple[Share, ...]
    hub: tuple[hub_access.Repository, ...]


@dataclass(frozen=True)
class Environment:
    """What a run finds beside the machine.

    Packages, the driver that CUDA needs, and access to the hub.

    `differences` are those of the packages from the lock.
    `hub_disk` is the GiB that are free where the hub's cache lies, None if that is the disk of the
    working folder; `launch` what the stage train_grpo would refuse.
    """

    differences: Sequence[str] = ()
    unrecorded: Sequence[str] = ()  # differences from versions.yaml
    driver_needed: str = "0"
    hub: Sequence[hub_access.Access] = field(default_factory=tuple)
    hub_disk: float | None = None
    launch: str | None = None
    rewards: str | None = None
    inputs: str | None = None  # what is wrong with the paths that settings name


@dataclass(frozen=True)
class Check:
    """One check: its name, the state of things, and if that is not enough, what to do."""

    name: str
    state: str
    hint: str | None = None


def need(config: params.Params) -> Need:
    """Return what a run with these parameters takes.

    Raises:
        UserError: If there is no such launcher.
    """
    hub, gpu = tuple(hub_access.needed(config)), bool(asks_for_gpu(config))
    policy = gpu_memory.architecture(config.policy.model)
    names = {
        "rewards.similarity_model": config.rewards.similarity_model,
        "train_scorer.encoder": config.train_scorer.encoder,
    }
    encoders = {setting: encoder for setting, name in names.items() if (encoder := gpu_memory.architecture(name))}
    # The encoders in float32, and the policy in bfloat16, which is loaded through memory.
    sizes = {setting: gpu_memory.encoders([encoder]) for setting, encoder in encoders.items()}
    if policy is not None:
        sizes["policy.model"] = gpu_memory.weights(policy, load_in_4bit=False)
    # What the hub sends; a model in a folder of the user's is not sent.
    downloads = {one.setting: sizes[one.setting] for one in hub if one.setting in sizes}
    if policy is None:
        return Need(DISK, downloads, MEMORY, gpu, (), hub)
    spread = _spread(config.train_grpo.launcher)
    # Each process that is to hold a shard makes room for the whole first.
    loaded = sizes["policy.model"] * (spread.per_machine if spread.sharded else 1)
    return Need(DISK, downloads, MEMORY + loaded, gpu, _shares(config, policy, encoders, spread), hub)


def _spread(launcher: str) -> gpu_memory.Spread:
    if launcher == "none":
        return gpu_memory.Spread()
    configuration = launch.read(launcher)
    processes = configuration["num_processes"]
    gpus = 0 if configuration["use_cpu"] else processes // configuration["num_machines"]
    return gpu_memory.Spread(gpus, processes, configuration["distributed_type"] in launch.SHARDING)


def _shares(
    config: params.Params, policy: dict, encoders: dict[str, dict], spread: gpu_memory.Spread
) -> tuple[Share, ...]:
    """Return what GRPO and the rollouts take of GPUs.

    It is none where a launcher keeps to the processor.
    """
    rewards = list(encoders.values())
    if "train_scorer.encoder" in encoders and any(
        term.removeprefix(calibration.RELATIVE).startswith("reader_") for term in config.rewards.weights
    ):
        rewards.append(encoders["train_scorer.encoder"])  # the reader model's
    grpo, rollout = config.train_grpo, config.rollout
    fewer = grpo.can_take_fewer(config.policy.backend)
    training = Share(
        "training",
        spread.per_machine,
        f"train_grpo.launcher {grpo.launcher}",
        f"lower num_processes in accelerate/{grpo.launcher}.yaml",
        gpu_memory.training(config, policy, rewards, spread),
        f"lower {'train_grpo.completions_per_forward or ' if fewer else ''}policy.max_completion_tokens"
        + (", change train_grpo.vllm_gpu_memory_utilization" if grpo.vllm_mode == "colocate" else ""),
    )
    vllm = rollout.engine == "vllm"
    rollouts = Share(
        "rollouts",
        rollout.vllm_gpus if vllm else 1,
        f"rollout.vllm_gpus {rollout.vllm_gpus}",
        "lower it",
        gpu_memory.rollout(config, policy, rewards),
        "change rollout.vllm_gpu_memory_utilization, raise rollout.vllm_gpus"
        if vllm
        else "lower rollout.batch_size or rollout.max_completion_tokens",
    )
    return tuple(share for share in (training, rollouts) if share.gpus)


def asks_for_gpu(config: params.Params) -> str | None:
    """Return the setting, in words, that runs on an NVIDIA GPU alone, or None if there is none."""
    for section, key, values in NEEDS_GPU:
        value = getattr(getattr(config, section), key)
        if value in values:
            return f"{section}.{key} is {value}"
    return None


def checks(machine: Machine, config: params.Params, environment: Environment) -> list[Check]:
    """Return all checks that a run with these parameters calls for, in the order to mend them."""
    wanted = need(config)
    result = [
        *_disk(machine, wanted, environment),
        _amount("memory", machine.memory, wanted.memory, "close programs"),
        Check("TeX", machine.latexmk)
        if machine.latexmk
        else Check("TeX", "latexmk is missing", "the report needs it; run `make tex`"),
        _packages(environment.differences),
        _versions(environment.unrecorded),
    ]
    result += gpu_checks(machine, config, environment.driver_needed, wanted)
    grpo = config.train_grpo
    result.append(Check(LAUNCH, f"{grpo.launcher}; train_grpo.vllm_mode {grpo.vllm_mode}", environment.launch))
    result.append(Check(REWARDS, ", ".join(config.rewards.weights), environment.rewards))
    if named := params.paths_named(config):
        result.append(Check(INPUTS, ", ".join(named.values()), environment.inputs))
    for access in environment.hub:
        name = f"hub: {access.repository.setting}"
        result.append(Check(name, f"{access.repository.id}: {access.state}", access.problem))
    return result


def failing(checks: Sequence[Check]) -> list[str]:
    """Return those that fail, one line each, with the way out."""
    # What is wrong with a repository, the launcher or an input names it already.
    return [
        check.hint if check.name.startswith(("hub: ", LAUNCH, INPUTS)) else f"{check.state}; {check.hint}"
        for check in checks
        if check.hint is not None
    ]


def _disk(machine: Machine, wanted: Need, environment: Environment) -> list[Check]:
    """Check the disk of the working folder and that of the hub's cache.

    What is in the cache already needs no room.
    """
    cached = {access.repository.setting for access in environment.hub if access.in_cache}
    downloads = sum(size for setting, size in wanted.downloads.items() if setting not in cached)
    if environment.hub_disk is None:
        return [_amount("disk", machine.disk, wanted.disk + downloads, "free some")]
    cache = _amount(
        "disk for the hub's cache",
        environment.hub_disk,
        downloads,
        "free some, or set HF_HOME to a folder on a larger one",
    )
    return [_amount("disk", machine.disk, wanted.disk, "free some"), cache]


def _amount(name: str, free: float, needed: float, hint: str) -> Check:
    state = f"{free:.1f} GiB of {name} are free, the run needs {needed:.0f}"
    return Check(name, state, hint if free < needed else None)


def _packages(differences: Sequence[str]) -> Check:
    if not differences:
        return Check("packages", "as locked")
    return Check(
        "packages", f"packages differ from the lock: {installed.summary(list(differences))}", "run `rm -rf .venv && make setup`"
    )  # fmt: skip


def _versions(unrecorded: Sequence[str]) -> Check:
    if not unrecorded:
        return Check("versions of results", "as in versions.yaml")
    return Check("versions of results", installed.summary(list(unrecorded)), installed.REMEDY)


def gpu_checks(machine: Machine, config: params.Params, driver_needed: str, wanted: Need | None = None) -> list[Check]:
    """Return the checks of GPUs, their driver, number and memory.

    There are none where there is no GPU and none is asked for.

    Args:
        wanted: What `need` says of these parameters, where it is known.
    """
    asked, gpus, listed = asks_for_gpu(config), machine.gpus, machine.listed
    if not gpus and asked is None:
        return []
    if not gpus and listed:
        state = f"{asked}, which needs an NVIDIA GPU: nvidia-smi lists {listed}, and torch finds none"
        hint = "run `rm -rf .venv && make setup`, which installs torch for CUDA, and unset CUDA_VISIBLE_DEVICES"
        return [Check("GPU", state, hint)]
    if not gpus:
        state = f"{asked}, which needs an NVIDIA GPU, and none is found (nvidia-smi lists none)"
        return [Check("GPU", state, f"run on a machine with one, or {UNDO}")]
    result = [Check("GPU", ", ".join(f"{gpu.name} ({gpu.memory:.0f} GiB)" for gpu in gpus))]
    driver = min((gpu.driver for gpu in gpus), key=Version)
    old = Version(driver) < Version(driver_needed)
    state = f"the NVIDIA driver is {driver}, the CUDA of the pinned torch needs {driver_needed} or newer"
    # Without the GPU torch computes on the processor, which is enough for a run that asks for none.
    result.append(Check("driver", state, "update the driver" if old and asked else None))
    return result + [_of_gpus(gpus, share) for share in (wanted or need(config)).gpu_memory]


def _of_gpus(gpus: Sequence[Gpu], wanted: Share) -> Check:
    name = f"GPU memory, {wanted.name}"
    if len(gpus) < wanted.gpus:
        state = f"{wanted.asked_by} takes {wanted.gpus} GPUs, and this machine has {len(gpus)}"
        return Check(name, state, f"{wanted.fewer}, or run on a machine with as many")
    # Each GPU holds as much, so that of the largest ones that are taken the smallest counts.
    smallest = sorted((gpu.memory for gpu in gpus), reverse=True)[wanted.gpus - 1]
    each = "the GPU has" if wanted.gpus == 1 else f"each of {wanted.gpus} GPUs has"
    state = f"{each} {smallest:.0f} GiB, {wanted.sum.total:.1f} are needed for {wanted.name} ({wanted.sum.text()})"
    return Check(name, state, f"{wanted.less}, or take a larger GPU" if smallest < wanted.sum.total else None)
