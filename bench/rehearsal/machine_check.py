"""What keeps a profile from a rehearsal at full size on a machine's GPUs.

It is told before the profile's models are built.
"""

import shutil
from dataclasses import replace
from importlib.util import find_spec

from gpro_empathy import files, installed, machine, params
from gpro_empathy.tools import doctor, gpu_memory
from rehearsal.plan import Plan

# GiB of disk beside the models: the adapter, a checkpoint with the optimizer's state, responses; an
# allowance.
OUTPUTS = 2.0
# Settings that need a package which is installed beside an NVIDIA driver alone: section, key,
# value, package.
NEEDS_PACKAGE = (
    ("policy", "backend", "unsloth", "unsloth"),
    ("train_grpo", "vllm_mode", "colocate", "vllm"),
    ("rollout", "engine", "vllm", "vllm"),
)


def check(plan: Plan, this_machine: machine.Machine, part: float) -> None:
    """Check that the whole profile can be rehearsed on GPUs.

    It must be able to run in one process, with the machine's packages, memory and disk. Packages of
    other versions than the lock's are only told: a rehearsal may be what tries them.

    Args:
        part: Of the GPUs' memory, which stands for smaller ones.

    Raises:
        UserError: If it cannot.
    """
    doctor.refuse(_several_processes(plan.whole))
    gpus = tuple(replace(gpu, memory=part * gpu.memory) for gpu in this_machine.gpus)
    fits = doctor.gpu_problems(replace(this_machine, gpus=gpus), plan.whole)
    doctor.refuse([*fits, *_missing_packages(plan.whole), *_too_little_disk(plan)])
    differing = installed.differences(installed.pinned(files.read_text(installed.lock_in_use())), installed.present())
    if differing:
        print(f"Note: packages differ from the lock: {installed.summary(differing)}", flush=True)


def _several_processes(config: params.Params) -> list[str]:
    """Return what of the profile takes several processes.

    The build makes the whole model on one GPU, and starts no server.
    """
    grpo = config.train_grpo
    asked = [f"train_grpo.launcher is {grpo.launcher}"] if grpo.launcher != "none" else []
    asked += ["train_grpo.vllm_mode is server"] if grpo.vllm_mode == "server" else []
    if not asked:
        return []
    return [
        f"{' and '.join(asked)}, and a rehearsal on a GPU is of one process; rehearse a profile with launcher none and "
        "vllm_mode none or colocate, such as llama-3.1-8b, or this one at the reduced size, with CUDA_VISIBLE_DEVICES= before "
        "the command"
    ]


def _missing_packages(config: params.Params) -> list[str]:
    missing = [
        f"{package} (for {section}.{key} {value})"
        for section, key, value, package in NEEDS_PACKAGE
        if getattr(getattr(config, section), key) == value and find_spec(package) is None
    ]
    return [f"packages are missing: {', '.join(missing)}; run `rm -rf .venv && make setup`"] if missing else []


def _too_little_disk(plan: Plan) -> list[str]:
    encoders = gpu_memory.encoders([plan.models["similarity"], plan.models["scorer"]])
    needed = gpu_memory.weights(plan.models["policy"], load_in_4bit=False) + encoders + OUTPUTS
    free = shutil.disk_usage(plan.folder).free / machine.GIB
    if free >= needed:
        return []
    return [
        f"{free:.1f} GiB are free in {plan.folder.parent}, the rehearsal needs {needed:.1f}; free some, or set TMPDIR to a "
        "folder on a larger disk"
    ]
