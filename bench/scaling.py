"""Plan memory and time of a GRPO step on more GPUs: `python bench/scaling.py` prints the tables of docs/scaling.md.

Everything is computed from the formulas below and the constants in capitals; nothing is measured.
"""

from dataclasses import dataclass

GIB = 2**30
# NVIDIA's data sheet of the H100 SXM: dense bfloat16 FLOP/s, bytes/s of memory, of NVLink and of a 400 Gbit/s network
# card, each way.
FLOPS, MEMORY, NVLINK, NETWORK = 989e12, 3.35e12, 450e9, 50e9
# Shares of these that are assumed to be reached: by matrix products in training, by decoding, by links.
COMPUTE_SHARE, MEMORY_SHARE, LINK_SHARE = 0.35, 0.6, 0.7
LAUNCH_SECONDS = 1e-3  # assumed, a layer and token: what starting the kernels costs this package's own decoding
PROMPT, COMPLETION = 320, 128  # tokens
GROUP = 8  # responses to a prompt
RANK = 32  # of the LoRA matrices, on all seven projections of a layer
NF4_BYTES = 0.516  # a weight: 4 bits, and its share of the doubly quantised scales
REWARD_WEIGHTS, REWARD_TOKENS = 355e6 + 125e6, 128  # roberta-large and roberta-base; tokens they read of a response


@dataclass(frozen=True)
class Model:
    """The shape of a Llama: layers, width, key-value width, width of the MLP, vocabulary."""

    layers: int
    width: int
    kv_width: int
    mlp: int
    vocabulary: int

    @property
    def projections(self) -> list[tuple[int, int]]:
        """Return (inputs, outputs) of a layer's seven projections."""
        h, k, f = self.width, self.kv_width, self.mlp
        return [(h, h), (h, k), (h, k), (h, h), (h, f), (h, f), (f, h)]

    @property
    def layer_weights(self) -> int:
        return sum(inputs * outputs for inputs, outputs in self.projections)

    @property
    def embeddings(self) -> int:
        """Return the weights of embedding and output layer, which are never quantised."""
        return 2 * self.vocabulary * self.width

    @property
    def weights(self) -> int:
        norms = (2 * self.layers + 1) * self.width
        return self.embeddings + self.layers * self.layer_weights + norms

    @property
    def lora(self) -> int:
        return self.layers * RANK * sum(inputs + outputs for inputs, outputs in self.projections)

    @property
    def cache_bytes(self) -> int:
        """Return the bytes of keys and values of a token, in bfloat16."""
        return 2 * 2 * self.layers * self.kv_width


MODELS = {"8B": Model(32, 4096, 1024, 14336, 128256), "70B": Model(80, 8192, 1024, 28672, 128256)}


@dataclass(frozen=True)
class Plan:
    """How a step is spread: GPUs that train and GPUs of the vLLM server (0: own sampling), and what a step holds."""

    model: str
    training: int
    serving: int
    prompts: int
    per_forward: int  # completions
    four_bit: bool = False
    sharded: bool = False

    @property
    def completions(self) -> int:
        return self.prompts * GROUP

    @property
    def shape(self) -> Model:
        return MODELS[self.model]

    @property
    def weight_bytes(self) -> float:
        """Return the bytes of all weights as they are trained."""
        rest = self.shape.weights - self.shape.embeddings
        return 2 * self.shape.embeddings + (NF4_BYTES if self.four_bit else 2) * rest

    def tokens(self, completions: int) -> int:
        """Return the tokens of a training pass: own passes hold a prompt once for its group, TRL's once a response."""
        prompts = completions if self.serving else max(1, completions // GROUP)
        return prompts * PROMPT + completions * COMPLETION

    def link(self, gpus: int) -> float:
        return LINK_SHARE * (NVLINK if gpus <= 8 else NETWORK)


def training_memory(plan: Plan) -> dict[str, float]:
    """Return the bytes that a GPU which trains holds, by part."""
    model, shards = plan.shape, plan.training if plan.sharded else 1
    tokens = plan.tokens(plan.per_forward)
    layer = 2 * tokens * (8 * model.width + 3 * model.mlp)  # inputs and outputs of one layer's projections
    own = plan.prompts // plan.training * GROUP * (PROMPT + COMPLETION) * model.cache_bytes
    return {
        "weights": plan.weight_bytes / shards,
        # Two layers and the larger half of the embeddings are whole at a time.
        "gathered": 2 * (2 * model.layer_weights + model.embeddings / 2) if plan.sharded else 0,
        "lora": 16 * model.lora / shards,  # matrix, gradient and Adam's two moments in float32
        # Checkpointed: the input of every layer, one layer whole; float32 logits with their gradient.
        "activations": 2 * tokens * model.layers * model.width
        + layer
        + 8 * plan.per_forward * COMPLETION * model.vocabulary,
        "cache": 0 if plan.serving else own,
    }


def serving_memory(plan: Plan) -> float:
    """Return the bytes that a GPU of the server holds: bfloat16 weights and the cache of all completions at once."""
    cache = plan.completions * (PROMPT + COMPLETION) * plan.shape.cache_bytes
    return (2 * plan.shape.weights + cache) / plan.serving


def seconds(plan: Plan) -> dict[str, float]:
    """Return the seconds of a step, by part."""
    model, gpus = plan.shape, plan.training
    engines = 1 if plan.serving else gpus  # each with a copy of the weights
    width = plan.serving or 1
    batch = plan.completions / engines
    read = (2 * model.weights if plan.serving else plan.weight_bytes) + batch * (
        PROMPT + COMPLETION
    ) * model.cache_bytes
    decode = max(read / (MEMORY * MEMORY_SHARE), 2 * model.weights * batch / (FLOPS * COMPUTE_SHARE)) / width
    launches = 0 if plan.serving else LAUNCH_SECONDS * model.layers
    prefill = 2 * model.weights * PROMPT * plan.prompts / (engines * width * FLOPS * COMPUTE_SHARE)
    # Forward, forward again under checkpointing, and back through frozen weights: 2 FLOPs each, a weight and token;
    # with a server once more, for the log-probabilities that correct what vLLM sampled.
    passes, forwards = (4, plan.completions / gpus / plan.per_forward) if plan.serving else (3, 1)
    share = plan.completions // gpus
    train = passes * 2 * model.weights * plan.tokens(share) / (FLOPS * COMPUTE_SHARE)
    rewards = 2 * REWARD_WEIGHTS * REWARD_TOKENS * share / (FLOPS * COMPUTE_SHARE)
    ring = (gpus - 1) / gpus / plan.link(gpus)
    gathering = 3 * forwards * 2 * model.weights * ring if plan.sharded else 0
    gradients = 2 * 4 * model.lora * ring
    sync = 2 * model.weights * (1 / plan.link(gpus + width) + (ring if plan.sharded else 0)) if plan.serving else 0
    return {
        "sampling": prefill + COMPLETION * max(decode, launches),
        "rewards": rewards,
        "training": train,
        "exchange": gathering + gradients,
        "weights to server": sync,
    }


PLANS = [
    Plan("8B", 1, 0, 64, 8, four_bit=True),
    Plan("8B", 8, 0, 64, 8, four_bit=True),
    Plan("8B", 64, 0, 64, 8, four_bit=True),
    Plan("8B", 4, 4, 64, 8),
    Plan("8B", 56, 8, 56, 8),
    Plan("70B", 1, 0, 64, 8, four_bit=True),
    Plan("70B", 4, 4, 64, 8, sharded=True),
    Plan("70B", 56, 8, 56, 8, sharded=True),
]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report() -> str:
    """Return the tables of docs/scaling.md."""
    memory, time = [], []
    for plan in PLANS:
        form = "4-bit" if plan.four_bit else "bf16, sharded" if plan.sharded else "bf16"
        name = [plan.model, f"{plan.training} + {plan.serving}", form]
        parts = training_memory(plan)
        served = f"{serving_memory(plan) / GIB:.0f}" if plan.serving else ""
        memory.append([*name, *(f"{v / GIB:.1f}" for v in parts.values()), f"{sum(parts.values()) / GIB:.0f}", served])
        spent = seconds(plan)
        whole = sum(spent.values())
        time.append([*name, str(plan.completions), *(f"{v:.2f}" for v in spent.values()), f"{whole:.1f}",
                     f"{plan.completions / whole:.0f}"])  # fmt: skip
    head = ["model", "GPUs: train + serve", "weights are"]
    return (
        table([*head, *training_memory(PLANS[0]), "sum", "a serving GPU"], memory)
        + "\n\n"
        + table([*head, "responses", *seconds(PLANS[0]), "step", "responses/s"], time)
    )


if __name__ == "__main__":
    print(report())
