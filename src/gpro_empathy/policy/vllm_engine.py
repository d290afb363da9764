"""vLLM: an engine for rollouts, with adapters as LoRA requests, and its responses as token ids.

Rollouts use an engine of vLLM's own and not the one that Unsloth shares with training: it quantises
the same weights to NF4 as it loads them (package vllm-bnb-plugin), keeps no second model for the
backward pass, needs none of Unsloth's patches, and takes the folders of adapters as they are. It
applies LoRA matrices in the format of the base weights.

Seeds: module `decoding` draws one uniform number per token, vLLM takes one seed per response.
Either way the numbers of a response are fixed before decoding starts by rollout.seed and its place
alone, and are the same for every policy; the responses of the two engines differ. In GRPO's own
sampling vLLM has one seed for all, so that a resumed run draws anew.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gpro_empathy import files, params
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters
from gpro_empathy.policy.sampling import Sampling

# Its LoRA kernels take 16 bits alone, whatever policy.dtype is.
DTYPE = "bfloat16"
# The ranks that vLLM makes room for.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def weights(folder: Path) -> Path:
    """Return a folder with the weights of a converted policy.

    Those of a hub model are fetched at their revision; a folder of the user's is taken as it is.

    Raises:
        UserError: If a hub model cannot be fetched.
    """
    source = files.read_json(folder / adapters.SOURCE)
    if source["model"] is None:
        return folder
    if Path(source["model"]).is_dir():
        return Path(source["model"])
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                source["model"], revision=source["revision"], allow_patterns=["*.json", "*.jinja", "*.safetensors"]
            )
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"policy.model {source['name']!r}: cannot fetch it ({' '.join(str(error).split())[:200]}); check the network, "
            "and for a gated model that HF_TOKEN belongs to an account with access"
        ) from None


def engine_arguments(config: params.Policy, rollout: params.Rollout, folder: Path, base: Path) -> dict:
    """Return the arguments of vllm.LLM for the responses of a rollout by the weights in `base`.

    Raises:
        UserError: If the LoRA rank is above all that vLLM knows.
    """
    return {
        "model": str(base),
        "tokenizer": str(folder),
        "dtype": DTYPE,
        "quantization": "bitsandbytes" if config.load_in_4bit else None,
        "load_format": "bitsandbytes" if config.load_in_4bit else "auto",
        "max_model_len": config.max_prompt_tokens + rollout.max_completion_tokens,
        "gpu_memory_utilization": rollout.vllm_gpu_memory_utilization,
        "tensor_parallel_size": rollout.vllm_gpus,
        "enable_lora": True,
        "max_lora_rank": room_for(config.lora_rank),
    }


def room_for(rank: int) -> int:
    """Return the smallest rank that vLLM makes room for and that holds `rank`.

    Raises:
        UserError: If there is none.
    """
    if rank > RANKS[-1]:
        raise UserError(
            f"a LoRA rank of {rank} is more than vLLM takes, {RANKS[-1]}; lower policy.lora_rank and train anew"
        )
    return next(room for room in RANKS if room >= rank)


def load(config: params.Policy, rollout: params.Rollout, folder: Path):
    """Start vLLM in this process with the base of a converted policy.

    The arguments are as for `engine_arguments`.

    Raises:
        UserError: If vLLM is not installed. How it fails to start, module `entry_point` puts into
            words.
    """
    # From a process of the engine's own the cause of a failure would not come back.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    try:
        from vllm import LLM
    except ImportError as error:
        raise UserError(
            f"rollout.engine is vllm, which cannot be imported ({error}); install requirements.lock on a machine with CUDA, "
            "or set rollout.engine: transformers"
        ) from None
    return LLM(**engine_arguments(config, rollout, folder, weights(folder)))


def sampling_arguments(how: Sampling, seed: int) -> dict:
    """Return the arguments of vllm.SamplingParams for one response."""
    return {
        "temperature": how.temperature,
        "top_p": how.top_p,
        "max_tokens": how.max_tokens,
        "stop_token_ids": list(how.eos_ids),
        "seed": seed,
        "detokenize": False,
    }


class VllmSampler:
    """Samples by vLLM.

    Args:
        generate: The method of a vllm.LLM.
        adapter: A LoRA request; None for the base.
        drawn_per_prompt: For how many responses to a prompt seeds are drawn, as in
            `decoding.DecoderSampler`; by default for as many as are sampled.
    """

    def __init__(self, generate: Callable, adapter=None, drawn_per_prompt: int | None = None) -> None:
        self._generate, self._adapter, self._drawn_per_prompt = generate, adapter, drawn_per_prompt

    def sample(
        self, prompts: Sequence[Sequence[int]], samples_per_prompt: int, how: Sampling, rng: np.random.Generator
    ) -> list[list[int]]:
        """Sample as `Sampler.sample`; `rng` gives the seed of each response."""
        from vllm import SamplingParams

        requests = [{"prompt_token_ids": list(ids)} for ids in prompts for _ in range(samples_per_prompt)]
        drawn = self._drawn_per_prompt or samples_per_prompt
        seeds_PK = rng.integers(2**31, size=(len(prompts), drawn))[:, :samples_per_prompt]
        each = [SamplingParams(**sampling_arguments(how, seed)) for seed in seeds_PK.ravel().tolist()]
        outputs = self._generate(requests, sampling_params=each, use_tqdm=False, lora_request=self._adapter)
        return [list(output.outputs[0].token_ids) for output in outputs]


def adapter_request(name: str, number: int, folder: Path):
    """Return the request with which vLLM samples from an adapter.

    Numbers count from 1 and differ.
    """
    from vllm.lora.request import LoRARequest

    return LoRARequest(lora_name=name, lora_int_id=number, lora_path=str(folder))
