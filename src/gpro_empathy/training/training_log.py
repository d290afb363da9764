"""What is kept of a GRPO run while it trains.

Every reward of every sample, one row a step, and a line that says so.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

from gpro_empathy import distributed
from gpro_empathy.response_format import parse_response
from gpro_empathy.rewards import RewardModel, Scores


class Recorder:
    """Scores each batch of completions once, and keeps what the log needs.

    It gives TRL one function per reward term.

    The batch is that of all processes together: its statistics calibrate the scores.
    """

    def __init__(self, model: RewardModel, num_generations: int) -> None:
        self.model, self.num_generations = model, num_generations
        self.groups: list[dict] = []  # one row per completion: step, group, sample, raw scores
        self.means: dict[int, dict[str, float]] = {}  # per step, of what a batch's mean is taken of
        self.reward_seconds = 0.0
        self._batch: list | None = None
        self._scores: Scores | None = None

    def functions(self) -> list[Callable]:
        """Return one TRL reward function per term, in the order of the reward weights."""
        return [self._function(name) for name in sorted(self.model.config.weights)]

    def _function(self, name: str) -> Callable:
        def reward(prompts, completions, trainer_state, **_) -> list[float]:
            # TRL calls every term with the same list of completions, one after the other.
            if self._batch is not completions:
                self._batch = completions
                self._scores = self._score(prompts, completions, trainer_state.global_step + 1)
            chosen = self._scores.batch if self.model.config.calibration == "batch" else self._scores.reference
            first = distributed.index() * len(completions)
            return chosen[name][first : first + len(completions)].tolist()

        reward.__name__ = name
        return reward

    def _score(self, prompts: Sequence, completions: Sequence, step: int) -> Scores:
        started = time.perf_counter()
        utterances = [prompt[-1]["content"] for prompt in prompts]
        responses = [parse_response(completion[0]["content"]) for completion in completions]
        raw_of_process = self.model.raw(utterances, responses)
        well_formed = np.array([float(response.well_formed) for response in responses])
        parts = distributed.gather((raw_of_process, well_formed))
        scores = self.model.combine({name: np.concatenate([raw[name] for raw, _ in parts]) for name in raw_of_process})
        columns = {f"{name}_raw": values for name, values in scores.raw.items()}
        columns |= {f"{name}_batch": values for name, values in scores.batch.items() if name in self.model.reference}
        columns |= {f"{name}_reference": v for name, v in scores.reference.items() if name in self.model.reference}
        columns["combined_reference"] = scores.combined_reference
        columns["well_formed"] = np.concatenate([values for _, values in parts])
        self.means[step] = {name: float(values.mean()) for name, values in columns.items()}
        for index in range(len(columns["well_formed"])):
            group, sample = divmod(index, self.num_generations)
            raw = {f"{name}_raw": float(values[index]) for name, values in scores.raw.items()}
            self.groups.append({"step": step, "group": group, "sample": sample, **raw})
        self.reward_seconds += time.perf_counter() - started
        return scores

    def state(self) -> dict:
        """Return what a checkpoint must keep."""
        return {"groups": self.groups, "means": {str(step): means for step, means in self.means.items()}}

    def restore(self, state: dict) -> None:
        """Take over what a checkpoint kept."""
        self.groups = state["groups"]
        self.means = {int(step): means for step, means in state["means"].items()}


# TRL's name of a metric, and ours.
LOGGED = {
    "loss": "loss",
    "reward": "reward",
    "reward_std": "reward_sd",
    "completions/mean_length": "completion_tokens",
    "completions/clipped_ratio": "clipped_ratio",
    "entropy": "entropy",
    "kl": "kl",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}
# Logged where vLLM samples: the mean over tokens of |log-probability in vLLM - log-probability in
# the trainer|.
DIFFERENCE = "sampling/sampling_logp_difference/mean"
# With the embedded policy in bfloat16 it was 0.02, and 1.1 where vLLM had not been sent the warm
# start.
_TOO_DIFFERENT = 0.2


class Log(TrainerCallback):
    """One row per step, from TRL's metrics and the recorder's.

    It is printed as it comes, with the time left.
    """

    def __init__(self, recorder: Recorder, trainer: GRPOTrainer) -> None:
        self.recorder, self.trainer = recorder, trainer
        self.rows: list[dict] = []
        self.timing: list[dict] = []
        self._started = time.perf_counter()
        self._first_step = 0
        self._spent: dict[str, float] = defaultdict(float)
        self._update_started = self._update_seconds = 0.0

    def on_pre_optimizer_step(self, args, state, control, **_) -> None:
        """Start the clock of the optimizer."""
        self._update_started = _now()

    def on_optimizer_step(self, args, state, control, **_) -> None:
        """Stop it."""
        self._update_seconds += _now() - self._update_started

    def on_train_begin(self, args, state, control, **_) -> None:
        """Start the clock."""
        self._started, self._first_step = time.perf_counter(), state.global_step

    def on_log(self, args, state, control, logs=None, **_) -> None:
        """Add the step's row."""
        if logs is None or "reward" not in logs:
            return
        step = state.global_step
        row = {"step": step, **{ours: logs.get(theirs) for theirs, ours in LOGGED.items()}}
        if DIFFERENCE in logs:
            row["sampler_difference"] = logs[DIFFERENCE]
        row |= self.recorder.means[step]
        self.rows.append(row)
        self._add_timing(step, logs)
        distributed.say(self._line(row, args.max_steps))
        if row.get("sampler_difference", 0.0) > _TOO_DIFFERENT:
            distributed.say(
                f"GRPO: log-probabilities of the samples differ by {row['sampler_difference']:.2f} on average between vLLM and "
                "the trainer, which rounding does not explain: vLLM may hold other weights; see docs/scaling.md on its server"
            )

    def state(self) -> dict:
        """Return what a checkpoint must keep, so that a resumed run ends with the same files."""
        return {"rows": self.rows, "timing": self.timing, **self.recorder.state()}

    def restore(self, state: dict) -> None:
        """Take over what a checkpoint kept."""
        self.rows, self.timing = state["rows"], state["timing"]
        self.recorder.restore(state)

    def _add_timing(self, step: int, logs: dict) -> None:
        totals = {
            "generation_s": getattr(self.trainer, "generation_seconds", 0.0),
            "reward_s": self.recorder.reward_seconds,
            "update_s": self._update_seconds,
        }
        parts = {name: total - self._spent[name] for name, total in totals.items()}
        self._spent.update(totals)
        whole = logs.get("step_time", 0.0)
        # What is left is the loss: its forward and backward passes.
        self.timing.append({"step": step, **parts, "loss_s": whole - sum(parts.values()), "step_s": whole})

    def _line(self, row: dict, steps: int) -> str:
        done = row["step"] - self._first_step
        left = (time.perf_counter() - self._started) / done * (steps - row["step"])
        raw = " ".join(
            f"{name.removesuffix('_raw')} {value:.3f}" for name, value in row.items() if name.endswith("_raw")
        )
        return (
            f"GRPO step {row['step']}/{steps}: reward {row['reward']:.3f} | {raw} | well-formed {row['well_formed']:.2f} "
            f"| {row['completion_tokens']:.0f} tokens | {self.timing[-1]['step_s']:.0f} s, {left / 60:.1f} min left"
        )


def _now() -> float:
    """Return the time in seconds, once the GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
