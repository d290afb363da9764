"""How much GPU memory a run takes, computed from its parameters and the architecture of its models.

An upper bound from stated formulas, not a measurement; `make rehearse` measures.
"""

from dataclasses import dataclass
from pathlib import Path

from gpro_empathy import files, params
from gpro_empathy.machine import GIB

ARCHITECTURES = Path("profiles/architectures")
# NF4: half a byte a weight; a scale of one byte for every 64, and 4 bytes for every 256 scales (Dettmers et al. 2023, QLoRA).
BYTES_4BIT = 0.5 + (1 + 4 / 256) / 64
BYTES_BF16, BYTES_FP32 = 2, 4
# Of each LoRA weight: itself and its gradient in float32, and the two moments of Adam, in 32 or in 8 bits.
BYTES_LORA = {"adamw_torch": 4 + 4 + 8, "paged_adamw_8bit": 4 + 4 + 2}
# Of each logit: itself in bfloat16, and in float32 its log-probability and its gradient.
BYTES_LOGIT = 2 + 4 + 4
# The CUDA context, the libraries' workspaces and the fragments that an allocator leaves: an allowance, in GiB.
OVERHEAD = 1.5
CACHE, COPY = "cache of keys and values", "vLLM's copy of the weights"
# What vLLM takes beside weights and cache for its own passes and recorded CUDA graphs: an allowance too.
WORKSPACE, WORKSPACE_GIB = "vLLM's workspace", 1.5


@dataclass(frozen=True)
class Spread:
    """How a run lies on the GPUs of one machine: processes there, all processes, and whether they share the weights."""

    here: int = 1
    processes: int = 1
    sharded: bool = False


@dataclass(frozen=True)
class Sum:
    """The parts of one GPU's memory in GiB, by name; `vllm` names those that lie in vLLM's share of the GPU, 0 to 1."""

    parts: dict[str, float]
    share: float | None
    vllm: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Return the smallest GPU memory in GiB that holds all parts; with vLLM, each side of its share must fit."""
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
    """Return the configuration of a hub model that the repository keeps, or None if it keeps none."""
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
        "reward models": encoders(rewards),
        "overhead": OVERHEAD,
    }
    if spread.sharded:
        parts["gathered weights"] = gathered(policy)
    if grpo.vllm_mode == "colocate":
        parts[WORKSPACE] = WORKSPACE_GIB
        # Unsloth trains on the very weights that vLLM holds.
        held = "weights" if config.policy.backend == "unsloth" else COPY
        if held == COPY:
            parts[COPY] = weights(policy, load_in_4bit=False)
        return Sum(parts, grpo.vllm_gpu_memory_utilization, (held, CACHE, WORKSPACE))
    if grpo.vllm_mode == "server":
        del parts[CACHE]  # it lies on the server
    return Sum(parts, None)


def rollout(config: params.Params, policy: dict, rewards: list[dict]) -> Sum:
    """Return what rollouts take on each of their GPUs; arguments as `training`.

    vLLM takes as many responses at once as its share holds, so that it needs room for one; this package decodes the
    responses to rollout.batch_size prompts together.
    """
    own = config.rollout
    vllm = own.engine == "vllm"
    tokens = config.policy.max_prompt_tokens + own.max_completion_tokens
    gpus = own.vllm_gpus if vllm else 1
    at_once = 1 if vllm else min(own.batch_size, own.prompts) * own.samples_per_prompt
    parts = {
        "weights": weights(policy, config.policy.load_in_4bit) / gpus,
        "LoRA": lora_parameters(policy, config.policy.lora_rank) * BYTES_FP32 / gpus / GIB,
        CACHE: cache(policy, at_once * tokens) / gpus,
        "reward models": encoders(rewards),
        "overhead": OVERHEAD,
    }
    if not vllm:
        return Sum(parts, None)
    parts[WORKSPACE] = WORKSPACE_GIB
    return Sum(parts, own.vllm_gpu_memory_utilization, ("weights", "LoRA", CACHE, WORKSPACE))


def linear_sizes(policy: dict) -> list[tuple[int, int]]:
    """Return (inputs, outputs) of the seven projections of one layer of a Llama."""
    hidden, wide = policy["hidden_size"], policy["intermediate_size"]
    keys = policy["num_key_value_heads"] * _head(policy)
    queries = policy["num_attention_heads"] * _head(policy)
    attention = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    return [*attention, (hidden, wide), (hidden, wide), (wide, hidden)]


def decoder_parameters(policy: dict) -> tuple[int, int]:
    """Return how many weights a Llama has in its projections, and in embeddings, output layer and norms."""
    layers, hidden = policy["num_hidden_layers"], policy["hidden_size"]
    embeddings = policy["vocab_size"] * hidden * (1 if policy["tie_word_embeddings"] else 2)
    projections = layers * sum(inputs * outputs for inputs, outputs in linear_sizes(policy))
    return projections, embeddings + (2 * layers + 1) * hidden


def lora_parameters(policy: dict, rank: int) -> int:
    """Return how many weights LoRA matrices of this rank on all projections have."""
    return policy["num_hidden_layers"] * rank * sum(inputs + outputs for inputs, outputs in linear_sizes(policy))


def weights(policy: dict, load_in_4bit: bool) -> float:
    """Return the GiB of a Llama's weights: projections in 4 bits or bfloat16, everything else in bfloat16."""
    projections, others = decoder_parameters(policy)
    return (projections * (BYTES_4BIT if load_in_4bit else BYTES_BF16) + others * BYTES_BF16) / GIB


def gathered(policy: dict) -> float:
    """Return the GiB that are whole on a GPU at a time where weights are sharded: two layers, and half the embeddings."""
    projections, _ = decoder_parameters(policy)
    whole = 2 * projections / policy["num_hidden_layers"] + policy["vocab_size"] * policy["hidden_size"]
    return whole * BYTES_BF16 / GIB


def activations(policy: dict, rows: int, tokens: int, completion: int) -> float:
    """Return the GiB that a forward and backward pass keeps, with gradient checkpointing.

    The input of every layer, what one layer at a time keeps (eight vectors of the hidden and four of the intermediate size a
    token), and the logits of the completions.

    Args:
        rows: Sequences in the pass, of `tokens` tokens each, `completion` of them in the completion.
    """
    hidden, wide = policy["hidden_size"], policy["intermediate_size"]
    kept = rows * tokens * (policy["num_hidden_layers"] * hidden + 8 * hidden + 4 * wide) * BYTES_BF16
    return (kept + rows * completion * policy["vocab_size"] * BYTES_LOGIT) / GIB


def cache(policy: dict, tokens: int) -> float:
    """Return the GiB of the keys and values of so many tokens, in bfloat16."""
    width = policy["num_key_value_heads"] * _head(policy)
    return tokens * policy["num_hidden_layers"] * 2 * width * BYTES_BF16 / GIB


def encoders(architectures: list[dict]) -> float:
    """Return the GiB of RoBERTas in float32."""
    return sum(map(encoder_parameters, architectures)) * BYTES_FP32 / GIB


def encoder_parameters(encoder: dict) -> int:
    """Return how many weights a RoBERTa has: embeddings, and in each layer four square and two wide matrices."""
    hidden, wide = encoder["hidden_size"], encoder["intermediate_size"]
    embeddings = encoder["vocab_size"] + encoder["max_position_embeddings"] + encoder["type_vocab_size"] + 2
    matrices = 4 * (hidden + 1) * hidden + (hidden + 1) * wide + (wide + 1) * hidden + 4 * hidden
    return embeddings * hidden + encoder["num_hidden_layers"] * matrices


def _head(policy: dict) -> int:
    return policy.get("head_dim") or policy["hidden_size"] // policy["num_attention_heads"]
