"""How much GPU memory a run takes, computed from its parameters and the modules of its models.

An upper bound from stated formulas, not a measurement; `make rehearse` measures.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from gpro_empathy import files, params
from gpro_empathy.files import UserError
from gpro_empathy.machine import GIB

ARCHITECTURES = Path("profiles/architectures")
# Projections whose outputs are kept of every token.
KEYS_AND_VALUES = ("k_proj", "v_proj")
# NF4: half a byte a weight; a scale of one byte for every 64, and 4 bytes for every 256 scales
# (Dettmers et al. 2023, QLoRA).
BYTES_4BIT = 0.5 + (1 + 4 / 256) / 64
# Where vLLM multiplies by the product of module nf4_rows: that has the scales of all blocks in
# float32 beside them.
BYTES_SCALES = 4 / 64
BYTES_BF16, BYTES_FP32 = 2, 4
# Of each LoRA weight: itself and its gradient in float32, and the two moments of Adam, in 32 or in
# 8 bits.
BYTES_LORA = {"adamw_torch": 4 + 4 + 8, "paged_adamw_8bit": 4 + 4 + 2}
# Of each logit: itself in bfloat16, and in float32 its log-probability and its gradient.
BYTES_LOGIT = 2 + 4 + 4
# The CUDA context, the libraries' workspaces and the fragments that an allocator leaves: an
# allowance, in GiB.
OVERHEAD = 1.5
CACHE, COPY = "cache of keys and values", "vLLM's copy of the weights"
SCALES = "float32 scales"
# What vLLM takes beside weights and cache for its own passes and recorded CUDA graphs: an allowance
# too.
WORKSPACE, WORKSPACE_GIB = "vLLM's workspace", 1.5


@dataclass(frozen=True)
class Spread:
    """How a run lies on GPUs.

    Processes of a machine, all processes, and whether they share the weights.
    """

    per_machine: int = 1
    processes: int = 1
    sharded: bool = False


@dataclass(frozen=True)
class Sum:
    """The parts of one GPU's memory in GiB, by name.

    `vllm` names those that lie in vLLM's share of the GPU, 0 to 1.
    """

    parts: dict[str, float]
    share: float | None
    vllm: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Return the smallest GPU memory in GiB that holds all parts.

        With vLLM, each side of its share must fit.
        """
        if self.share is None:
            return sum(self.parts.values())
        inside = sum(self.parts[name] for name in self.vllm)
        return max(inside / self.share, (sum(self.parts.values()) - inside) / (1 - self.share))

    def text(self) -> str:
        """Return the sum as one line."""
        shown = " + ".join(f"{name} {value:.1f}" for name, value in self.parts.items())
        if self.share is None:
            return f"{shown} = {self.total:.1f} GiB"
        inside = sum(self.parts[name] for name in self.vllm)
        rest = sum(self.parts.values()) - inside
        return (
            f"{shown}; vLLM's share of {self.share:g} holds {' and '.join(self.vllm)}, {inside:.1f}, and what it leaves "
            f"{rest:.1f}: {self.total:.1f} GiB"
        )


def architecture(model: str, folder: Path = ARCHITECTURES) -> dict | None:
    """Return the configuration of a hub model that the repository keeps.

    None if it keeps none.
    """
    path = folder / f"{model.rpartition('/')[2]}.json"
    return files.read_json(path) if path.is_file() else None


def training(config: params.Params, policy: dict, rewards: list[dict], spread: Spread = Spread()) -> Sum:
    """Return what a process of GRPO takes on its GPU.

    Args:
        policy: Architecture of the policy.
        rewards: Architectures of the reward models, which are encoders in float32.
    """
    grpo = config.train_grpo
    tokens = config.policy.max_prompt_tokens + config.policy.max_completion_tokens
    in_forward = grpo.completions_in_effect(config.policy.backend)
    shards = spread.processes if spread.sharded else 1
    prompts = -(-grpo.prompts_per_step // spread.processes)
    parts = {
        "weights": weights(policy, config.policy.load_in_4bit) / shards,
        "LoRA and optimizer": lora_parameters(policy, config.policy.lora_rank)
        * BYTES_LORA[grpo.optimizer]
        / shards
        / GIB,
        "activations": activations(policy, in_forward, tokens, config.policy.max_completion_tokens),
        CACHE: cache(policy, prompts * grpo.num_generations * tokens),
        "reward models": encoders(rewards) + likelihood(config, policy),
        "overhead": OVERHEAD,
    }
    if spread.sharded:
        parts["gathered weights"] = gathered(policy)
    if grpo.vllm_mode == "colocate":
        parts[WORKSPACE] = WORKSPACE_GIB
        # Unsloth trains on the very weights that vLLM holds.
        weights_of_vllm = "weights" if config.policy.backend == "unsloth" else COPY
        if weights_of_vllm == COPY:
            parts[COPY] = weights(policy, load_in_4bit=False)
        elif config.policy.load_in_4bit:
            parts[SCALES] = sizes(policy).linear * BYTES_SCALES / GIB
        inside = (weights_of_vllm, SCALES, CACHE, WORKSPACE)
        return Sum(parts, grpo.vllm_gpu_memory_utilization, tuple(name for name in inside if name in parts))
    if grpo.vllm_mode == "server":
        del parts[CACHE]  # it lies on the server
    return Sum(parts, None)


def rollout(config: params.Params, policy: dict, rewards: list[dict]) -> Sum:
    """Return what rollouts take on each of their GPUs; arguments as `training`.

    vLLM takes as many responses at once as its share holds, so that it needs room for one; this
    package decodes the responses to rollout.batch_size prompts together.
    """
    settings = config.rollout
    vllm = settings.engine == "vllm"
    tokens = config.policy.max_prompt_tokens + settings.max_completion_tokens
    gpus = settings.vllm_gpus if vllm else 1
    at_once = 1 if vllm else min(settings.batch_size, settings.prompts) * settings.samples_per_prompt
    parts = {
        "weights": weights(policy, config.policy.load_in_4bit) / gpus,
        "LoRA": lora_parameters(policy, config.policy.lora_rank) * BYTES_FP32 / gpus / GIB,
        CACHE: cache(policy, at_once * tokens) / gpus,
        "reward models": encoders(rewards) + likelihood(config, policy),
        "overhead": OVERHEAD,
    }
    if not vllm:
        return Sum(parts, None)
    parts[WORKSPACE] = WORKSPACE_GIB
    return Sum(parts, settings.vllm_gpu_memory_utilization, ("weights", "LoRA", CACHE, WORKSPACE))


def likelihood(config: params.Params, policy: dict) -> float:
    """Return what the starting policy takes that the term `likelihood` holds, in GiB."""
    return weights(policy, config.policy.load_in_4bit) if "likelihood" in config.rewards.weights else 0.0


@dataclass(frozen=True)
class Sizes:
    """Sizes of a decoder, all in numbers.

    linear: Weights of the linear layers but the output layer, which are those that 4 bits hold.
    others: All other weights.
    layers, hidden, vocabulary: As in its configuration.
    widest: Most outputs of a linear layer but the output layer.
    per_rank: LoRA weights that each rank adds.
    per_token: Keys and values that are kept of a token.
    """

    linear: int
    others: int
    layers: int
    hidden: int
    vocabulary: int
    widest: int
    per_rank: int
    per_token: int


def sizes(policy: dict) -> Sizes:
    """Return the sizes of a decoder, without memory for weights.

    They are counted on the modules that transformers builds.

    Raises:
        UserError: If transformers knows no causal language model of this configuration.
    """
    return _sizes(json.dumps(policy, sort_keys=True))


@functools.cache
def _sizes(configuration: str) -> Sizes:
    from torch import nn
    from transformers import AutoModelForCausalLM

    from gpro_empathy.policy.loading import LORA_TARGETS

    model = _on_meta(AutoModelForCausalLM, json.loads(configuration))
    output = model.get_output_embeddings()
    modules = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    projections = {name: module for name, module in modules.items() if module is not output}
    by_last_name = [(name.rpartition(".")[2], module) for name, module in projections.items()]
    linear = sum(module.weight.numel() for module in projections.values())
    return Sizes(
        linear=linear,
        others=model.num_parameters() - linear,
        layers=model.config.num_hidden_layers,
        hidden=model.config.hidden_size,
        vocabulary=output.out_features,
        widest=max(module.out_features for module in projections.values()),
        per_rank=sum(module.in_features + module.out_features for name, module in by_last_name if name in LORA_TARGETS),
        per_token=sum(module.out_features for name, module in by_last_name if name in KEYS_AND_VALUES),
    )


def _on_meta(kind: type, configuration: dict):
    """Build a model whose weights have shapes and no values.

    Raises:
        UserError: If transformers cannot.
    """
    import torch
    from transformers import AutoConfig

    try:
        with torch.device("meta"):
            return kind.from_config(AutoConfig.for_model(**configuration))
    except (ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{ARCHITECTURES}: transformers cannot build a model of the type {configuration.get('model_type')!r} "
            f"({reason}); put the config.json of the model there as it is on the hub"
        ) from None


def decoder_parameters(policy: dict) -> tuple[int, int]:
    """Return how many weights a decoder has.

    First those of its projections, then those of embeddings, output layer and norms.
    """
    return sizes(policy).linear, sizes(policy).others


def lora_parameters(policy: dict, rank: int) -> int:
    """Return how many weights LoRA matrices of this rank on all projections have."""
    return rank * sizes(policy).per_rank


def weights(policy: dict, load_in_4bit: bool) -> float:
    """Return the GiB of the weights.

    Projections are in 4 bits or bfloat16, everything else in bfloat16.
    """
    projections, others = decoder_parameters(policy)
    return (projections * (BYTES_4BIT if load_in_4bit else BYTES_BF16) + others * BYTES_BF16) / GIB


def gathered(policy: dict) -> float:
    """Return the GiB that are whole at a time where weights are sharded.

    They are two layers, and the output layer.
    """
    model = sizes(policy)
    whole = 2 * model.linear / model.layers + model.vocabulary * model.hidden
    return whole * BYTES_BF16 / GIB


def activations(policy: dict, rows: int, tokens: int, completion: int) -> float:
    """Return the GiB that a forward and backward pass keeps, with gradient checkpointing.

    The input of every layer, what one layer at a time keeps (eight vectors of the hidden size and
    four of its widest layer a token), and the logits of the completions.

    Args:
        rows: Sequences in the pass, of `tokens` tokens each, `completion` of them in the
            completion.
    """
    model = sizes(policy)
    kept = rows * tokens * (model.layers * model.hidden + 8 * model.hidden + 4 * model.widest) * BYTES_BF16
    return (kept + rows * completion * model.vocabulary * BYTES_LOGIT) / GIB


def cache(policy: dict, tokens: int) -> float:
    """Return the GiB of the keys and values of so many tokens, in bfloat16."""
    return tokens * sizes(policy).per_token * BYTES_BF16 / GIB


def encoders(architectures: list[dict]) -> float:
    """Return the GiB of encoders in float32."""
    return sum(map(encoder_parameters, architectures)) * BYTES_FP32 / GIB


def encoder_parameters(encoder: dict) -> int:
    """Return how many weights an encoder has, without a pooling layer, which no stage uses.

    Raises:
        UserError: If transformers knows no model of this configuration.
    """
    return _encoder_parameters(json.dumps(encoder, sort_keys=True))


@functools.cache
def _encoder_parameters(configuration: str) -> int:
    from transformers import AutoModel

    model = _on_meta(AutoModel, json.loads(configuration))
    pooling = getattr(model, "pooler", None)
    return model.num_parameters() - (sum(p.numel() for p in pooling.parameters()) if pooling else 0)
