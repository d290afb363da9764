"""Unsloth: its import, and the arguments with which it loads the policy.

The import must come before trl's.

Unsloth trains the 4-bit model with kernels of its own and samples with vLLM, which holds the same
weights in memory once; where train_grpo.vllm_mode is none, it samples with the trained model.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpro_empathy import calibration, files, params
from gpro_empathy.files import UserError
from gpro_empathy.policy.sampling import Sampling

# Where Unsloth keeps the code that it generates, and the description of the adapter that vLLM
# samples with.
WORK = Path("work/unsloth")


def prepare(config: params.Policy) -> None:
    """Import Unsloth where it is the backend.

    It patches trl, transformers and peft, so that none may come before.

    Raises:
        UserError: If there is no CUDA GPU, or Unsloth cannot be imported.
    """
    if config.backend != "unsloth":
        return
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "policy.backend is unsloth, which needs a CUDA GPU, and torch finds none; set policy.backend: transformers and "
            "train_grpo.vllm_mode: none"
        )
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(WORK))
    try:
        import unsloth  # noqa: F401  its import patches the others
    except ImportError as error:
        raise UserError(
            f"policy.backend is unsloth, which cannot be imported ({error}); install requirements.lock, or set "
            "policy.backend: transformers and train_grpo.vllm_mode: none"
        ) from None


def model_arguments(config: params.Policy, grpo: params.TrainGrpo, weights: Path) -> dict:
    """Return the arguments of FastLanguageModel.from_pretrained.

    The model is named by its folder and exactly: Unsloth would replace a hub name by a repository
    of its own with other 4-bit weights, and its vLLM passes over a revision. So all stages share
    one base, quantised to NF4 as it is loaded.
    """
    from gpro_empathy.policy import loading

    vllm = grpo.vllm_mode == "colocate"
    arguments = {
        "model_name": str(weights),
        "max_seq_length": config.max_prompt_tokens + config.max_completion_tokens,
        "dtype": loading.compute_dtype(config),
        "load_in_4bit": config.load_in_4bit,
        "fast_inference": vllm,
        "gpu_memory_utilization": grpo.vllm_gpu_memory_utilization,
        "max_lora_rank": config.lora_rank,
        "use_gradient_checkpointing": "unsloth",
        "use_exact_model_name": True,
    }
    return arguments | ({"max_num_seqs": responses_at_once(grpo)} if vllm else {})


def responses_at_once(grpo: params.TrainGrpo) -> int:
    """Return how many responses vLLM is to decode at once.

    Those of a step, or of the reference statistics.

    It lays out memory and records CUDA graphs for up to so many, as it starts.
    """
    return max(grpo.prompts_per_step * grpo.num_generations, calibration.REFERENCE_RESPONSES)


def lora_arguments(config: params.Policy, seed: int) -> dict:
    """Return the arguments of FastLanguageModel.get_peft_model.

    They describe the LoRA matrices of `loading.add_lora`.
    """
    from gpro_empathy.policy import loading

    return {
        "r": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": loading.LORA_TARGETS,
        "use_gradient_checkpointing": "unsloth",
        "random_state": seed,
    }


def check_padding(tokenizer, config: params.Policy) -> None:
    """Check that padding is told from text by its id alone, as Unsloth does.

    Raises:
        UserError: If the tokenizer pads with its end token.
    """
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise UserError(
            f"policy.model {config.model!r}: its tokenizer has no padding token but {tokenizer.eos_token!r}, which also ends "
            "messages, and the backend unsloth cannot tell them apart; set policy.backend: transformers and "
            "train_grpo.vllm_mode: none"
        )


def load(config: params.Policy, grpo: params.TrainGrpo, weights: Path, seed: int):
    """Load the base with vLLM beside it, and wrap it with new LoRA matrices."""
    from unsloth import FastLanguageModel

    if config.load_in_4bit and grpo.vllm_mode == "colocate":
        from gpro_empathy.training import nf4_rows

        nf4_rows.install(WORK)
    model, _ = FastLanguageModel.from_pretrained(**model_arguments(config, grpo, weights))
    return FastLanguageModel.get_peft_model(model, **lora_arguments(config, seed))


def has_vllm(model) -> bool:
    """Return whether a loaded model has vLLM beside it."""
    return getattr(model, "vllm_engine", None) is not None


class UnslothSampler:
    """Samples with a model of Unsloth itself, where it has no vLLM beside it."""

    def __init__(self, model) -> None:
        self._model = model

    def sample(
        self, prompts: Sequence[Sequence[int]], samples_per_prompt: int, how: Sampling, rng: np.random.Generator
    ) -> list[list[int]]:
        """Sample as `Sampler.sample`; `rng` gives torch's seed for all responses together."""
        import torch
        from unsloth import FastLanguageModel

        model = self._model
        rows = [list(ids) for ids in prompts for _ in range(samples_per_prompt)]
        width = max(map(len, rows))
        ids_BT = torch.tensor([[how.pad_id] * (width - len(row)) + row for row in rows], device=model.device)
        mask_BT = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
        torch.manual_seed(int(rng.integers(2**31)))
        FastLanguageModel.for_inference(model)
        with torch.no_grad():
            whole_BT = model.generate(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                do_sample=True,
                temperature=how.temperature,
                top_p=how.top_p,
                top_k=0,
                max_new_tokens=how.max_tokens,
                eos_token_id=list(how.eos_ids),
                pad_token_id=how.pad_id,
            )
        FastLanguageModel.for_training(model)
        return cut(whole_BT[:, width:].tolist(), how.eos_ids)


def cut(responses: list[list[int]], eos_ids: Sequence[int]) -> list[list[int]]:
    """Return responses up to their first end token, which stays."""
    ends = [next((i + 1 for i, token in enumerate(ids) if token in eos_ids), len(ids)) for ids in responses]
    return [ids[:end] for ids, end in zip(responses, ends, strict=True)]


def restart(model, adapter: Path | None, seed: int) -> None:
    """Give a model its starting LoRA matrices.

    Those of the folder `adapter`, or new ones that change nothing yet.

    Raises:
        UserError: If the adapter is of another rank, scale or choice of layers.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    from gpro_empathy.policy import adapters

    if adapter is not None:
        _check(files.read_json(adapter / "adapter_config.json"), model.peft_config[adapters.NAME], adapter)
        adapters.restore(model, adapter)
        return
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.reset_lora_parameters(adapters.NAME, init_lora_weights=True)


def _check(stated: dict, wanted, adapter: Path) -> None:
    for name in ("r", "lora_alpha"):
        if stated[name] != getattr(wanted, name):
            raise UserError(
                f"{adapter / 'adapter_config.json'}: {name} is {stated[name]:g}, but the policy has "
                f"{getattr(wanted, name):g}; run `dvc repro warm_start`"
            )
    if set(stated["target_modules"]) != set(wanted.target_modules):
        raise UserError(
            f"{adapter / 'adapter_config.json'}: the adapter is of the layers {', '.join(sorted(stated['target_modules']))}, "
            f"but the policy's are {', '.join(sorted(wanted.target_modules))}; run `dvc repro warm_start`"
        )
