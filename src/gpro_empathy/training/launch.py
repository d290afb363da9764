"""Start a stage in several processes by accelerate.

What would fail in them is refused before that.
"""

import importlib.util
import logging
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path
from subprocess import CalledProcessError

import yaml

from gpro_empathy import params
from gpro_empathy.files import UserError

CONFIGURATIONS = Path("accelerate")
SHARDING = ("FSDP", "DEEPSPEED")
PATIENCE = 5.0  # seconds that a server may take to say that it is up


def check(grpo: params.TrainGrpo, policy: params.Policy, folder: Path = CONFIGURATIONS, *, warm_started: bool) -> None:
    """Check what the launcher and the vLLM server need, in seconds, before any long work.

    Args:
        warm_started: Whether GRPO starts from the adapter of a warm start.

    Raises:
        UserError: If there is no such launcher, its processes cannot share a step, the server does
            not answer, or the settings do not go together.
    """
    if policy.backend == "unsloth" and grpo.launcher != "none":
        sampling = " and train_grpo.vllm_mode: none" if grpo.vllm_mode == "colocate" else ""
        raise UserError(
            f"train_grpo.launcher {grpo.launcher}: policy.backend unsloth trains in one process; set policy.backend: "
            f"transformers{sampling}, or train_grpo.launcher: none"
        )
    if grpo.launcher != "none":
        configuration = read(grpo.launcher, folder)
        grpo.accumulation_steps(configuration["num_processes"])
        if configuration["distributed_type"] in SHARDING and grpo.vllm_mode != "server":
            raise UserError(
                f"train_grpo.launcher {grpo.launcher} shards the weights, from which this package cannot sample; set "
                "train_grpo.vllm_mode: server"
            )
        if configuration["distributed_type"] == "DEEPSPEED" and not _is_installed("deepspeed"):
            raise UserError(
                f"train_grpo.launcher {grpo.launcher} needs DeepSpeed, which is not installed; run "
                "`.venv/bin/pip install deepspeed`, or take the launcher fsdp"
            )
    if grpo.vllm_mode == "colocate" and policy.backend == "transformers" and policy.load_in_4bit:
        unsloth = ", or policy.backend: unsloth" if grpo.launcher == "none" else ""
        raise UserError(
            "train_grpo.vllm_mode: colocate with policy.backend: transformers cannot give vLLM 4-bit weights, which TRL "
            f"sends packed; set policy.load_in_4bit: false, or train_grpo.vllm_mode: none{unsloth}"
        )
    if policy.backend == "unsloth" and grpo.kl_beta and warm_started:
        raise UserError(
            f"train_grpo.kl_beta is {grpo.kl_beta:g}, but the backend unsloth would measure the divergence from the base "
            "model and not from the warm start; set it to 0, or policy.backend: transformers"
        )
    check_whole_groups(grpo, policy.backend)
    if grpo.vllm_mode == "server":
        check_server(grpo, policy)


def check_whole_groups(grpo: params.TrainGrpo, backend: str) -> None:
    """Check that whole groups and responses are trained on where other trainers run.

    This package's own takes less: some responses of a group, and their answers alone.

    Raises:
        UserError: If not.
    """
    if backend == "transformers" and grpo.vllm_mode == "none":
        return
    engine = f"train_grpo.vllm_mode: {grpo.vllm_mode}" if backend == "transformers" else f"the backend {backend}"
    if grpo.trained_generations != grpo.num_generations:
        raise UserError(
            f"train_grpo.trained_generations is {grpo.trained_generations}, but {engine} trains on whole groups; set it "
            f"to num_generations, {grpo.num_generations}"
        )
    if grpo.advantage_on != "response":
        raise UserError(
            f"train_grpo.advantage_on is {grpo.advantage_on}, but {engine} takes whole responses; set it to response"
        )


def check_server(grpo: params.TrainGrpo, policy: params.Policy) -> None:
    """Check that a vLLM server can take the policy's weights, and that it is up.

    Raises:
        UserError: If not.
    """
    if policy.load_in_4bit:
        raise UserError(
            "train_grpo.vllm_mode: server sends every weight to the server, which takes no 4-bit ones; set "
            "policy.load_in_4bit: false"
        )
    if policy.backend != "transformers":
        raise UserError(
            f"train_grpo.vllm_mode: server works with policy.backend: transformers, not with {policy.backend}, which "
            "brings a vLLM of its own"
        )
    try:
        urllib.request.urlopen(f"{grpo.vllm_server_url}/health", timeout=PATIENCE).close()
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"train_grpo.vllm_server_url {grpo.vllm_server_url}: no vLLM server answers there ({reason}); start one as "
            "docs/scaling.md says, or set train_grpo.vllm_mode: none"
        ) from None
    if not _is_installed("vllm"):
        raise UserError(
            "train_grpo.vllm_mode: server needs the package vllm here too, which requirements.lock installs"
        )


def read(name: str, folder: Path = CONFIGURATIONS) -> dict:
    """Read the accelerate configuration of a launcher.

    Raises:
        UserError: If there is none of that name, accelerate refuses it, or it forces a number
            format on the policy.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise UserError(f"train_grpo.launcher {name}: there is no {path}; there are {known}, and none")
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        configuration = load_config_from_file(str(path)).to_dict()
        _check_keys(configuration)
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: accelerate cannot read it: {' '.join(str(error).split())}") from None
    # Each process turns on what policy.dtype stands for by itself (bf16 in
    # grpo_trainer.trl_values), on whichever machine and however it was started. It cannot turn off
    # what the launcher turned on.
    if configuration.get("mixed_precision") not in (None, "no"):
        raise UserError(
            f"{path}: mixed_precision is {configuration['mixed_precision']}, which would hold whatever policy.dtype says; set it "
            'to "no", and policy.dtype to what you want'
        )
    return configuration


def _check_keys(configuration: dict) -> None:
    """Check the keys of an engine's own section, which accelerate passes over.

    Raises:
        ValueError: Naming the unknown ones.
    """
    from accelerate.commands.launch import launch_command_parser

    known = vars(launch_command_parser().parse_args(["script"]))
    for section in ("fsdp_config", "deepspeed_config"):
        unknown = sorted(set(configuration.get(section) or {}) - set(known))
        if unknown:
            raise ValueError(f"{section} has unknown keys: {', '.join(unknown)}")


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def command(name: str, module: str, folder: Path = CONFIGURATIONS) -> list[str]:
    """Return the arguments of `accelerate launch` that start a module in a launcher's processes."""
    return ["--config_file", str(folder / f"{name}.yaml"), "-m", module]


def launch(name: str, module: str, folder: Path = CONFIGURATIONS) -> None:
    """Run a module in the processes of a launcher, until all end.

    It does what `accelerate launch` on the command line does.

    Raises:
        UserError: If a process fails; what it said stands above, unless the kernel ended it.
        KeyboardInterrupt: If the run is interrupted; all processes have ended then.
    """
    # The launcher runs here rather than in a process of its own, so that its failure is one line,
    # not its traceback.
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if read(name, folder)["use_cpu"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # accelerate tells its processes to leave the GPUs alone only if alone
    arguments = command(name, module, folder)
    print("accelerate launch", *arguments, flush=True)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        launch_command(launch_command_parser().parse_args(arguments))
    except SignalException:
        raise KeyboardInterrupt from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise UserError(f"{module}: process {rank} {_end(failure.exitcode, name, folder)}") from None
    except CalledProcessError as error:
        raise UserError(f"{module}: a process {_end(error.returncode, name, folder)}") from None


def _end(code: int, name: str, folder: Path) -> str:
    """Say how a process of a launcher ended."""
    if code != -signal.SIGKILL:
        return f"ended with {code}; what it said stands above"
    return (
        "was killed, most likely because the machine's memory ran out; close other programs, or lower num_processes in "
        f"{folder / name}.yaml"
    )
