"""Take one GRPO step of TRL's own trainer or of this package's, and measure it.

Each part has its time and its arithmetic.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
from peft import PeftModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import GRPOTrainer

from gpro_empathy import params, response_format, rewards
from gpro_empathy.training import grpo_trainer, training_log

# An id beyond any vocabulary: a response that only this token ends is as long as it may be.
NO_TOKEN = 2**31 - 1
# What the counter does not know: the product of the decoder's layers on a CPU, of x (R, I) and W
# (O, I).
PRODUCTS = (
    {torch.ops.mkldnn._linear_pointwise: lambda x, weight, *_, **__: 2 * x[0] * x[1] * weight[0]}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise")
    else {}
)
PARTS = ("generation", "rewards", "forward_backward", "optimizer", "other")


@dataclass(frozen=True)
class Bench:
    """What both trainers are given.

    The model is one and the same object: no step of the benchmark changes it.
    """

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    rewards: rewards.RewardModel
    config: params.TrainGrpo
    policy: params.Policy
    folder: Path

    @property
    def dtype(self) -> str:
        """Return the number format of the base weights."""
        return str(self.model.get_input_embeddings().weight.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Setting:
    """A step: its prompts, responses per prompt and in one forward pass, and their length.

    The length is the longest that a response may have; `fixed_length` says whether all reach it.
    """

    prompts: Sequence[str]
    num_generations: int
    completions_per_forward: int
    max_tokens: int
    fixed_length: bool


@dataclass(frozen=True)
class Step:
    """A measured step: seconds by part, and token ids of prompts and responses.

    The token ids are as they were sampled, (B, ...) each.

    `flops` counts the multiplications and additions of the matrix products by part, zeros where
    they were not counted.
    """

    seconds: dict[str, float]
    flops: dict[str, float]
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]

    @property
    def whole(self) -> float:
        """Return the seconds of the step."""
        return sum(self.seconds.values())

    @property
    def tokens(self) -> int:
        """Return how many tokens the responses have."""
        return sum(len(ids) for ids in self.completion_ids)


class Meter:
    """Adds up, by part, seconds and floating-point operations."""

    def __init__(self, counter: FlopCounterMode | None) -> None:
        self.counter = counter
        self.spent: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
        self._opened: dict[str, np.ndarray] = {}

    def open(self, part: str) -> None:
        """Begin a part."""
        self._opened[part] = self._reading()

    def close(self, part: str) -> None:
        """End a part."""
        self.spent[part] += self._reading() - self._opened.pop(part)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure the block."""
        self.open(name)
        yield
        self.close(name)

    def _reading(self) -> np.ndarray:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return np.array([time.perf_counter(), self.counter.get_total_flops() if self.counter else 0.0])


class Timed:
    """Measures the parts of a trainer's step; goes before the trainer among the base classes."""

    meter: Meter
    sampled: tuple[list[list[int]], list[list[int]]]

    def training_step(self, *args, **kwargs):
        with self.meter.part("training_step"):
            return super().training_step(*args, **kwargs)

    def _prepare_inputs(self, *args, **kwargs):
        with self.meter.part("inputs"):
            return super()._prepare_inputs(*args, **kwargs)

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        with self.meter.part("generation"):
            result = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        self.sampled = (prompt_ids, result[0])
        return result

    def _calculate_rewards(self, *args, **kwargs):
        with self.meter.part("rewards"):
            return super()._calculate_rewards(*args, **kwargs)


class Stock(Timed, grpo_trainer.EngineTrainer):
    """TRL's trainer as it is, which samples with transformers' `generate`.

    Its LoRA matrices are in float32 too.
    """


class Ours(Timed, grpo_trainer.GroupTrainer):
    """This package's trainer."""


KINDS = {"stock": Stock, "ours": Ours}


class Bounds(TrainerCallback):
    """Marks where a step and its optimizer begin and end."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_step_begin(self, args, state, control, **_) -> None:
        """Begin the step."""
        self.meter.open("step")

    def on_step_end(self, args, state, control, **_) -> None:
        """End the step."""
        self.meter.close("step")

    def on_pre_optimizer_step(self, args, state, control, **_) -> None:
        """Begin the optimizer's part."""
        self.meter.open("optimizer")

    def on_optimizer_step(self, args, state, control, **_) -> None:
        """End the optimizer's part."""
        self.meter.close("optimizer")


def make_trainer(kind: str, bench: Bench, setting: Setting, seed: int, meter: Meter) -> GRPOTrainer:
    """Build a trainer of one step; `kind` is a key of KINDS."""
    config = bench.config.model_copy(
        update={
            "steps": 1,
            "prompts_per_step": len(setting.prompts),
            "num_generations": setting.num_generations,
            "completions_per_forward": setting.completions_per_forward,
            "learning_rate": 0.0,  # the whole work of a step, after which the policy is what it was
            "warmup_ratio": 0.0,
        }
    )
    policy = bench.policy.model_copy(update={"max_completion_tokens": setting.max_tokens})
    args = grpo_trainer.trl_config(config, bench.rewards.config, policy, seed, bench.folder)
    args.save_strategy = "no"
    # Both train on whole groups and responses: to take a part of them is a choice of its own, which
    # stock has not.
    whole = {"trained_generations": setting.num_generations, "advantage_on": "response"}
    extra = whole if kind == "ours" else {}
    trainer = KINDS[kind](
        model=bench.model,
        reward_funcs=training_log.Recorder(bench.rewards, setting.num_generations).functions(),
        args=args,
        train_dataset=datasets.Dataset.from_list(
            [{"prompt": response_format.messages(text)} for text in setting.prompts]
        ),
        processing_class=bench.tokenizer,
        **extra,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Bounds(meter))
    trainer.meter = meter
    if setting.fixed_length:
        trainer.eos_token_ids = [NO_TOKEN]
        trainer.generation_config.eos_token_id = NO_TOKEN
    return trainer


def measure(kind: str, bench: Bench, setting: Setting, seed: int, count_flops: bool = False) -> Step:
    """Run one step and return what it took; equal seeds sample equal responses.

    Raises:
        RuntimeError: If responses are of fixed length and one is not.
    """
    counter = FlopCounterMode(display=False, custom_mapping=PRODUCTS) if count_flops else None
    meter = Meter(counter)
    trainer = make_trainer(kind, bench, setting, seed, meter)
    with counter or nullcontext():
        trainer.train()
    prompt_ids, completion_ids = trainer.sampled
    lengths = {len(ids) for ids in completion_ids}
    if setting.fixed_length and lengths != {setting.max_tokens}:
        raise RuntimeError(f"{kind}: responses of {sorted(lengths)} tokens where all should have {setting.max_tokens}")
    spent = meter.spent
    parts = {
        "generation": spent["generation"],
        "rewards": spent["rewards"],
        "forward_backward": spent["training_step"] - spent["inputs"],
        "optimizer": spent["optimizer"],
    }
    parts["other"] = spent["step"] - sum(parts.values())
    seconds, flops = ({name: float(parts[name][i]) for name in PARTS} for i in (0, 1))
    return Step(seconds, flops, prompt_ids, completion_ids)
