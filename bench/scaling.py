"""Plan memory and time of a GRPO step on more GPUs.

`python bench/scaling.py` prints the tables of docs/scaling.md.

What one GPU reaches is read from the measurements, reports/gpu, bench/gpu_step.json and
bench/gpu_decode.json; the constants in capitals below are data sheets and assumptions. Memory comes
from gpro_empathy.tools.gpu_memory, steps from the profiles.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from gpro_empathy import files, params
from gpro_empathy.machine import GIB
from gpro_empathy.tools import gpu_memory, profiles

ROOT = Path(__file__).parents[1]
# NVIDIA's data sheet of the H100 SXM: dense bfloat16 FLOP/s, bytes/s of memory, of NVLink and of a
# 400 Gbit/s network card, each way. The H200 has the same FLOP/s and faster memory.
FLOPS, MEMORY, NVLINK, NETWORK = 989e12, 3.35e12, 450e9, 50e9
MEMORY_H200 = 4.8e12
NVLINK_GPUS = 8  # of a machine
# Shares of these that are assumed: of FLOP/s by TRL's trainer with a server, of memory by decoding,
# of links.
SERVER_SHARE, MEMORY_SHARE, LINK_SHARE = 0.35, 0.6, 0.7
# 2 N FLOPs each over a token that is trained on: forward, forward again under gradient
# checkpointing, backward through frozen weights; with a server first forward once more, for the
# log-probabilities that correct what vLLM sampled.
PASSES, SERVER_PASSES = 3, 4

PROFILE = "llama-3.1-8b"  # the one that was measured
H100, H200 = (files.read_json(ROOT / f"reports/gpu/nvidia-{name}.json")[PROFILE] for name in ("h100-80gb-hbm3", "h200"))
PLAIN, REBUILT = (files.read_json(ROOT / "bench/gpu_step.json")["variants"][name] for name in "cd")
DECODED = files.read_json(ROOT / "bench/gpu_decode.json")
ENCODERS = ("cross-encoder/stsb-roberta-large", "roberta-base")  # of the rewards, in all profiles planned here


def architecture(model: str) -> dict:
    """Return the configuration of a model that the repository keeps."""
    return gpu_memory.architecture(model, ROOT / gpu_memory.ARCHITECTURES)


@dataclass(frozen=True)
class Step:
    """A step: its prompts, responses to each, and tokens of a prompt and of a response.

    `group` counts the responses to a prompt, `in_forward` those in a forward pass.
    """

    model: str
    prompts: int
    group: int
    in_forward: int
    prompt: int
    completion: int
    rank: int
    optimizer: str

    @property
    def architecture(self) -> dict:
        return architecture(self.model)

    @property
    def weights(self) -> int:
        """Return N, the number of weights of the model."""
        return sum(gpu_memory.decoder_parameters(self.architecture))

    @property
    def lora(self) -> int:
        """Return the number of weights of the LoRA matrices."""
        return gpu_memory.lora_parameters(self.architecture, self.rank)

    @property
    def responses(self) -> int:
        return self.prompts * self.group


def longest_step(policy: params.Policy, grpo: params.TrainGrpo) -> Step:
    """Return the step of these settings whose prompts and responses are as long as may be."""
    return Step(
        model=policy.model,
        prompts=grpo.prompts_per_step,
        group=grpo.num_generations,
        in_forward=grpo.completions_in_effect(policy.backend),
        prompt=policy.max_prompt_tokens,
        completion=policy.max_completion_tokens,
        rank=policy.lora_rank,
        optimizer=grpo.optimizer,
    )


def step_of_profile(name: str) -> Step:
    """Return the longest step of a profile."""
    profile = profiles.preview(name, ROOT / profiles.PROFILES, ROOT / params.PARAMS)
    return longest_step(profile.policy, profile.train_grpo)


def measured_step(measured: dict) -> Step:
    """Return the step of a rehearsal, whose prompts and responses are all as long as may be."""
    # Not validated: a setting that the package has got since does not change what was measured.
    policy = params.Policy.model_construct(**measured["settings"]["policy"])
    return longest_step(policy, params.TrainGrpo.model_construct(**measured["settings"]["train_grpo"]))


MEASURED = measured_step(H100)
CURRENT, LARGE = step_of_profile("llama-3.1-8b-current"), step_of_profile("llama-3.1-70b")


def rate(seconds: dict[str, float]) -> float:
    """Return the FLOP/s of the loss in a measured step.

    The passes of the loss hold each response behind a prompt of its own.
    """
    tokens = MEASURED.responses * (MEASURED.prompt + MEASURED.completion)
    return PASSES * 2 * MEASURED.weights * tokens / seconds["loss"]


def token(seconds: dict[str, float]) -> float:
    """Return the seconds of a token in a measured step.

    The reading of the prompt, below 1 %, is in them.
    """
    return seconds["generation"] / MEASURED.completion


@dataclass(frozen=True)
class Engine:
    """What trains and samples, and how fast.

    passes: over a token that is trained on, of 2 N FLOPs each.
    packed: whether they hold a prompt once for its group, or once for each response.
    rate: FLOP/s in training and in reading prompts.
    layer: seconds that a layer takes for a token at least, however few the responses.
    update: seconds of the optimizer, a LoRA weight.
    """

    name: str
    four_bit: bool
    passes: int
    packed: bool
    rate: float
    layer: float
    update: float


def as_fast_as(seconds: dict[str, float]) -> dict[str, float]:
    """Return the rate, layer and update of an engine that took a measured step."""
    layer = token(seconds) / MEASURED.architecture["num_hidden_layers"]
    return {"rate": rate(seconds), "layer": layer, "update": seconds["update"] / MEASURED.lora}


UNSLOTH = Engine("Unsloth, vLLM", four_bit=True, passes=PASSES, packed=False, **as_fast_as(H100["seconds_per_step"]))
# Never timed on a GPU: as fast as plain TRL, with which it shares the model and its kernels.
OWN = Engine("own", four_bit=True, passes=PASSES, packed=True, **as_fast_as(PLAIN["seconds"]))
SERVER = Engine(
    "TRL, server",
    four_bit=False,
    passes=SERVER_PASSES,
    packed=False,
    rate=SERVER_SHARE * FLOPS,
    layer=0.0,
    update=OWN.update,
)
REWARD = H100["seconds_per_step"]["reward"] / MEASURED.responses  # seconds of a response


@dataclass(frozen=True)
class Plan:
    """How a step is spread over GPUs.

    It says how many GPUs train, how many the vLLM server has, and whether the weights are sharded.
    """

    step: Step
    engine: Engine
    training: int = 1
    serving: int = 0
    sharded: bool = False

    @property
    def share(self) -> int:
        """Return the responses of each GPU that trains."""
        return self.step.responses // self.training

    @property
    def shards(self) -> int:
        return self.training if self.sharded else 1


def spread(step: Step, engine: Engine, training: int, serving: int = 0, sharded: bool = False) -> Plan:
    """Return a plan in which each GPU that trains has a prompt at least.

    Its forward passes are no larger than the responses that it has.
    """
    step = replace(step, prompts=max(step.prompts, training))
    step = replace(step, in_forward=min(step.in_forward, step.responses // training))
    return Plan(step, engine, training, serving, sharded)


PLANS = [
    Plan(MEASURED, UNSLOTH),
    Plan(CURRENT, UNSLOTH),
    Plan(CURRENT, OWN),
    spread(CURRENT, OWN, 8),
    spread(CURRENT, SERVER, 4, 4),
    spread(CURRENT, OWN, 64),
    spread(CURRENT, SERVER, 56, 8),
    Plan(LARGE, OWN),
    spread(LARGE, SERVER, 4, 4, sharded=True),
    spread(LARGE, SERVER, 56, 8, sharded=True),
]


def link(gpus: int) -> float:
    """Return the bytes/s between so many GPUs."""
    return LINK_SHARE * (NVLINK if gpus <= NVLINK_GPUS else NETWORK)


def sequences(step: Step, responses: int, packed: bool) -> tuple[int, int, int]:
    """Return how many sequences hold so many responses, and the tokens of each.

    The response tokens of each sequence come third.
    """
    if not packed:
        return responses, step.prompt + step.completion, step.completion
    together = min(responses, step.group)
    return responses // together, step.prompt + together * step.completion, together * step.completion


def reward_models() -> float:
    """Return the GiB of the encoders of both rewards."""
    return gpu_memory.encoders([architecture(name) for name in ENCODERS])


def training_memory(plan: Plan) -> dict[str, float]:
    """Return the GiB that a GPU which trains holds, by part."""
    step, model = plan.step, plan.step.architecture
    return {
        "weights": gpu_memory.weights(model, plan.engine.four_bit) / plan.shards,
        "gathered": gpu_memory.gathered(model) if plan.sharded else 0.0,
        "LoRA": step.lora * gpu_memory.BYTES_LORA[step.optimizer] / GIB / plan.shards,
        "activations": gpu_memory.activations(model, *sequences(step, step.in_forward, plan.engine.packed)),
        "cache": 0.0 if plan.serving else gpu_memory.cache(model, plan.share * (step.prompt + step.completion)),
        "rewards": reward_models(),
        "overhead": gpu_memory.OVERHEAD,
    }


def serving_memory(plan: Plan) -> float:
    """Return the GiB that a GPU of the server holds.

    It holds bfloat16 weights and the cache of all responses at once.
    """
    step, model = plan.step, plan.step.architecture
    cache = gpu_memory.cache(model, step.responses * (step.prompt + step.completion))
    return (gpu_memory.weights(model, load_in_4bit=False) + cache) / plan.serving


def token_seconds(plan: Plan) -> float:
    """Return the seconds of a token of all responses.

    They are the layers' floor, or the time of the memory or of the products if longer.
    """
    step, model, engine = plan.step, plan.step.architecture, plan.engine
    batch, gpus = (step.responses, plan.serving) if plan.serving else (plan.share, 1)
    cache = gpu_memory.cache(model, batch * (step.prompt + step.completion / 2))  # halfway through the responses
    reading = (gpu_memory.weights(model, engine.four_bit) + cache) * GIB / (MEMORY_SHARE * MEMORY)
    products = 2 * step.weights * batch / engine.rate
    return max(engine.layer * model["num_hidden_layers"], reading / gpus, products / gpus)


def seconds(plan: Plan) -> dict[str, float]:
    """Return the seconds of a step, by part."""
    step, engine, gpus = plan.step, plan.engine, plan.training
    prefill = 2 * step.weights * step.prompts * step.prompt / (plan.serving or gpus) / engine.rate
    rows, tokens, _ = sequences(step, plan.share, engine.packed)
    around = (gpus - 1) / gpus / link(gpus)  # seconds a byte, from all GPUs to all
    weights = gpu_memory.BYTES_BF16 * step.weights
    # For each forward pass, and once for backward: its repeated forward finds the layer whole.
    gathers = (engine.passes - 1) * plan.share / step.in_forward if plan.sharded else 0
    to_server = 1 / link(gpus + plan.serving) + (around if plan.sharded else 0) if plan.serving else 0
    return {
        "sampling": prefill + step.completion * token_seconds(plan),
        "rewards": REWARD * plan.share,
        "training": engine.passes * 2 * step.weights * rows * tokens / engine.rate,
        "exchange": (gathers * weights + 2 * gpu_memory.BYTES_FP32 * step.lora) * around,
        "update": engine.update * step.lora / plan.shards,
        "to server": weights * to_server,
    }


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def measured_table() -> str:
    """Return what was measured, and what follows from it."""
    columns = [
        *((measured["seconds_per_step"], measured["peak_memory_gib"]["train"]) for measured in (H100, H200)),
        *((measured["seconds"], measured["peak_gib"]) for measured in (PLAIN, REBUILT)),
    ]
    vllm = [
        measured["settings"]["train_grpo"]["vllm_gpu_memory_utilization"] * measured["gpu"]["memory_gib"]
        for measured in (H100, H200)
    ]
    beside = sum(value for part, value in training_memory(PLANS[0]).items() if part not in ("weights", "cache"))
    # A pass of (c) and (d) holds one response; while (d) builds its reward models, those of (c) are
    # still there.
    plain = sum(training_memory(Plan(replace(MEASURED, in_forward=1), OWN)).values()) + reward_models()
    weights = gpu_memory.weights(MEASURED.architecture, load_in_4bit=True) * GIB
    rows = {
        "sampling, s": [f"{part['generation']:.2f}" for part, _ in columns],
        "a token, ms": [f"{1e3 * token(part):.1f}" for part, _ in columns],
        "to read the weights at the data sheet's rate, ms": [
            f"{1e3 * weights / memory:.1f}" for memory in (MEMORY, MEMORY_H200, MEMORY, MEMORY)
        ],
        "rewards, s": [f"{part['reward']:.2f}" for part, _ in columns],
        "loss and gradients, s": [f"{part['loss']:.2f}" for part, _ in columns],
        "that is, at 6 N FLOPs a token, TFLOP/s": [f"{rate(part) / 1e12:.0f}" for part, _ in columns],
        "update, s": [f"{part['update']:.2f}" for part, _ in columns],
        "step, s": [f"{part['step']:.2f}" for part, _ in columns],
        "memory in use at most, GiB": [f"{peak:.1f}" for _, peak in columns],
        "of it vLLM's share, GiB": [*(f"{share:.1f}" for share in vllm), "", ""],
        "the rest, GiB": [f"{peak - share:.1f}" for (_, peak), share in zip(columns, [*vllm, 0, 0], strict=True)],
        "the rest computed, GiB": [f"{value:.1f}" for value in (beside, beside, plain, plain)],
    }
    head = ["", "H100 (a)", "H200 (a)", "H100 (c)", "H100 (d)"]
    return table(head, [[name, *cells] for name, cells in rows.items()])


def token_table() -> str:
    """Return the ms of a token of the engine's vLLM, by its weights."""
    rows = {
        "NF4, bitsandbytes' product": ("nf4", "a", "", "c"),
        "NF4, an own product for few rows and own LoRA kernels": ("nf4_rows", "g", "", "h"),
        "bfloat16": ("bf16", "d", "e", "f"),
    }

    def ms(engine: str, letter: str) -> str:
        return f"{DECODED[engine]['variants'][letter]['ms_per_token']:.2f}" if letter else ""

    cells = [[name, *(ms(engine, letter) for letter in letters)] for name, (engine, *letters) in rows.items()]
    return table(["weights in vLLM", "ms a token, LoRA beside them", "LoRA merged into them", "no LoRA"], cells)


def products_table() -> str:
    """Return the ms of the products with the projections of 32 layers, by rows.

    The table has the error of the largest product too.
    """
    names = {"bitsandbytes": "bitsandbytes", "rows_1": "own", "bfloat16": "bfloat16"}
    found = DECODED["products"]
    rows = [[str(n), *(f"{found[f'ms of 32 layers, {n} rows'][name]:.2f}" for name in names)] for n in (1, 3, 4, 8)]
    error = ["error, 3 rows", *(found["error"]["down 3"][name] for name in names)]
    return table(["rows", *names.values()], [*rows, error])


def decoded_steps_table() -> str:
    """Return the seconds of steps by what vLLM multiplies with.

    The table has the GPU memory in use after the steps too.
    """
    rows = {
        "NF4, bitsandbytes' product": ("nf4", "real"),
        "bfloat16, LoRA merged": ("bf16", "real"),
        "NF4, own product and LoRA kernels": ("nf4_rows", "longest"),
    }
    parts = {
        "step": "step, s",
        "generation": "sampling",
        "reward": "rewards",
        "loss": "loss and gradients",
        "update": "update",
    }
    cells = []
    for name, (engine, lengths) in rows.items():
        found = DECODED[engine]["steps"][lengths]
        tokens = f"{found['prompt_tokens']} + {found['completion_tokens']:.0f}"
        seconds = [f"{found['seconds_per_step'][part]:.2f}" for part in parts]
        cells.append([name, tokens, *seconds, f"{found['gpu_used_gib']:.1f}"])
    head = ["weights in vLLM", "tokens: prompt + response", *parts.values(), "GPU memory in use, GiB"]
    return table(head, cells)


def constants_table() -> str:
    """Return the constants of the plan, and where each is from."""

    def share(engine: Engine) -> str:
        reached = f"{engine.rate / 1e12:.0f} TFLOP/s, {100 * engine.rate / FLOPS:.0f} %"
        return f"{reached} of the data sheet's {FLOPS / 1e12:.0f}"

    def floor(engine: Engine) -> str:
        return f"{1e3 * engine.layer:.2f} ms"

    def update(engine: Engine) -> str:
        return f"{1e9 * engine.update:.2f} ns"

    rows = [
        ["matrix rate of Unsloth", share(UNSLOTH), "measured, (a)"],
        ["matrix rate of own training", share(OWN), "measured, (c); assumed for own"],
        ["matrix rate of TRL with a server, and of the server", share(SERVER), "assumed"],
        ["a layer for a token at least, vLLM in Unsloth", floor(UNSLOTH), "measured, (a)"],
        ["a layer for a token at least, own decoding", floor(OWN), "measured, (c); assumed for own"],
        ["a layer for a token at least, server", "0", "assumed"],
        ["memory rate in decoding", f"{100 * MEMORY_SHARE:.0f} % of the data sheet's {MEMORY / 1e12} TB/s", "assumed"],
        ["rewards of a response", f"{1e3 * REWARD:.0f} ms", "measured, (a)"],
        ["update of a LoRA weight, Unsloth", update(UNSLOTH), "measured, (a)"],
        ["update of a LoRA weight, own and with a server", update(OWN), "measured, (c); assumed for both"],
        [
            f"link of up to {NVLINK_GPUS} GPUs",
            f"{100 * LINK_SHARE:.0f} % of NVLink's {NVLINK / 1e9:.0f} GB/s",
            "assumed",
        ],
        ["link of more GPUs", f"{100 * LINK_SHARE:.0f} % of a card's {NETWORK / 1e9:.0f} GB/s for each GPU", "assumed"],
    ]
    return table(["constant", "value", "where from"], rows)


PLANNED = ["model", "engine", "GPUs: train + serve", "step"]


def _planned(plan: Plan) -> list[str]:
    size = next(part for part in plan.step.model.split("-") if part.endswith("B"))
    engine = f"{plan.engine.name}{', sharded' if plan.sharded else ''}"
    return [size, engine, f"{plan.training} + {plan.serving}", f"{plan.step.prompts} x {plan.step.group}"]


def memory_table() -> str:
    """Return the GiB of every plan."""
    rows = []
    for plan in PLANS:
        parts = training_memory(plan)
        served = f"{serving_memory(plan):.0f}" if plan.serving else ""
        rows.append([*_planned(plan), *(f"{v:.1f}" for v in parts.values()), f"{sum(parts.values()):.0f}", served])
    return table([*PLANNED, *training_memory(PLANS[0]), "sum", "a serving GPU"], rows)


def time_table() -> str:
    """Return the seconds of every plan."""
    rows = []
    for plan in PLANS:
        parts = seconds(plan)
        whole = sum(parts.values())
        ends = [f"{whole:.1f}", f"{plan.step.responses / whole:.1f}"]
        rows.append([*_planned(plan), f"{1e3 * token_seconds(plan):.1f}", *(f"{v:.2f}" for v in parts.values()), *ends])
    return table([*PLANNED, "ms a token", *seconds(PLANS[0]), "whole", "responses/s"], rows)


TABLES = (measured_table, token_table, products_table, decoded_steps_table, constants_table, memory_table, time_table)

if __name__ == "__main__":
    print("\n\n".join(make() for make in TABLES))
