"""Serve the tuned policy by vLLM's OpenAI-compatible server, with its adapter as a LoRA module."""

import importlib.util
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import contextmanager

from gpro_empathy import machine, params, response_format
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters, vllm_engine

# The name of the tuned policy in requests.
NAME = "empathy"


def command(trained: adapters.Tuned, config: params.Params, port: int, extra: Sequence[str] = ()) -> list[str]:
    """Return the command line of `vllm serve`, in the options of vLLM 0.30.0.

    The base is quantised to NF4 as it is loaded where the adapter was trained so. Prompts and
    responses are bounded, and sampled where a request says nothing, as in the rollouts. It listens
    to this machine alone.

    Args:
        extra: Further arguments of vllm serve; they come last, and the last one counts.

    Raises:
        UserError: If the adapter's rank is larger than vLLM takes.
    """
    policy, rollout = config.policy, config.rollout
    sampling = {
        "max_new_tokens": rollout.max_completion_tokens, "temperature": rollout.temperature, "top_p": rollout.top_p
    }  # fmt: skip
    return [
        "vllm", "serve", trained.hub_model or str(adapters.POLICY),
        *(["--revision", trained.revision] if trained.revision else []),
        "--tensor-parallel-size", str(rollout.vllm_gpus),
        "--enable-lora",
        "--lora-modules", f"{NAME}={trained.adapter}",
        "--max-lora-rank", str(vllm_engine.room_for(trained.rank)),
        *(["--quantization", "bitsandbytes", "--load-format", "bitsandbytes"] if policy.load_in_4bit else []),
        "--dtype", vllm_engine.DTYPE,
        "--max-model-len", str(policy.max_prompt_tokens + rollout.max_completion_tokens),
        "--override-generation-config", json.dumps(sampling),
        "--host", "127.0.0.1",
        "--port", str(port),
        *extra,
    ]  # fmt: skip


def request(port: int) -> str:
    """Return a command that asks the server for an answer.

    It uses the system message that the policy was trained with.
    """
    body = {"model": NAME, "messages": response_format.messages("My dog died last night.")}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    return shlex.join(["curl", url, "-H", "Content-Type: application/json", "-d", json.dumps(body)])


def run(trained: adapters.Tuned, config: params.Params, port: int, extra: Sequence[str] = ()) -> None:
    """Print the command line and start the server; return when it is stopped.

    Raises:
        UserError: If there is no GPU or no vLLM, or the server ends with an error.
    """
    line = command(trained, config, port, extra)
    if not machine.inspect().gpus:
        raise UserError("make serve needs an NVIDIA GPU, and none is found; `make chat` runs without one")
    if importlib.util.find_spec("vllm") is None:
        raise UserError("vLLM is not installed; run `rm -rf .venv && make setup LOCK=requirements.lock`")
    print(f"{shlex.join(line)}\n\nOnce it runs, another terminal can ask it:\n{request(port)}\n", flush=True)
    with _interrupts_left_to_the_server():
        # The module behind the script `vllm`, so that it is the one of this environment.
        status = subprocess.run([sys.executable, "-m", "vllm.entrypoints.cli.main", *line[1:]], check=False).returncode
    if status not in (0, -signal.SIGINT, 128 + signal.SIGINT):
        raise UserError(
            f"vllm serve ended with status {status}, its last lines say why; if memory was short, close other programs on the "
            'GPU, spread it over more GPUs by rollout.vllm_gpus, or lower what it keeps: `make serve ARGS="-- --max-num-seqs 8"`; '
            'if the port was taken, `ARGS="--port 8001"`'
        )


@contextmanager
def _interrupts_left_to_the_server():
    """Do nothing on Ctrl-C here: the server gets it as well, and has workers to end."""
    # A function, because a signal that is ignored would be ignored by the server too.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
