"""Group Relative Policy Optimization (Shao et al. 2024, DeepSeekMath, arXiv:2402.03300) of the policy.

TRL's GRPOTrainer computes advantages and loss. `GroupTrainer` replaces its two slow parts on one machine: sampling
(module `generation`) and log-probabilities (module `grouped`). A backend with an engine of its own, such as vLLM,
runs TRL's trainer as it is.
"""

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from gpro_empathy import files, generation, grouped, params
from gpro_empathy.decoder import decoder_of
from gpro_empathy.files import UserError
from gpro_empathy.prompts import parse_response
from gpro_empathy.rewards import RewardModel, Scores


def trl_config(grpo: params.TrainGrpo, rewards: params.Rewards, policy: params.Policy, folder: Path) -> GRPOConfig:
    """Return the GRPOConfig that the parameters stand for.

    TRL counts completions in a batch, where ours counts prompts: the generation batch is prompts_per_step x
    num_generations completions, cut into accumulation steps of completions_per_forward.

    Raises:
        UserError: If the installed TRL does not know a key.
    """
    completions = grpo.prompts_per_step * grpo.num_generations
    total = sum(rewards.weights.values())
    cuda = torch.cuda.is_available()
    values = {
        "output_dir": str(folder),
        "max_steps": grpo.steps,
        "per_device_train_batch_size": grpo.completions_per_forward,
        "gradient_accumulation_steps": completions // grpo.completions_per_forward,
        "num_generations": grpo.num_generations,
        "max_completion_length": policy.max_completion_tokens,
        "learning_rate": grpo.learning_rate,
        "lr_scheduler_type": grpo.lr_scheduler,
        "warmup_steps": round(grpo.warmup_ratio * grpo.steps),
        "optim": grpo.optimizer,
        "adam_beta1": grpo.adam_beta1,
        "adam_beta2": grpo.adam_beta2,
        "weight_decay": grpo.weight_decay,
        "max_grad_norm": grpo.max_grad_norm,
        "beta": grpo.kl_beta,
        "use_bias_correction_kl": False,  # the divergence as in the paper, not times the importance ratio
        "epsilon": grpo.clip_epsilon,
        "loss_type": grpo.loss_type,
        "scale_rewards": grpo.scale_rewards,
        "multi_objective_aggregation": rewards.aggregation,
        # Shares, so that TRL's weighted sum is the weighted mean that the combined score is.
        "reward_weights": [rewards.weights[name] / total for name in sorted(rewards.weights)],
        "temperature": grpo.temperature,
        "top_p": grpo.top_p,
        "save_steps": grpo.save_steps,
        "seed": grpo.seed,
        "logging_steps": 1,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": policy.dtype == "bfloat16" and cuda,
        "use_cpu": not cuda,
        "gradient_checkpointing": cuda,
        "dataloader_pin_memory": cuda,
    }
    if policy.backend == "unsloth":
        values |= {"use_vllm": True, "vllm_gpu_memory_utilization": grpo.vllm_gpu_memory_utilization}
    return checked_config(values)


def checked_config(values: dict) -> GRPOConfig:
    """Return a GRPOConfig, refusing keys that the installed TRL does not know.

    Raises:
        UserError: Naming the keys.
    """
    known = {field.name for field in dataclasses.fields(GRPOConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UserError(
            f"train_grpo: the installed TRL knows no {', '.join(unknown)}; run `make setup` for the pinned one"
        )
    return GRPOConfig(**values)


class Recorder:
    """Scores each batch of completions once, gives TRL one function per reward term, and keeps what the log needs."""

    def __init__(self, model: RewardModel) -> None:
        self.model = model
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
            return chosen[name].tolist()

        reward.__name__ = name
        return reward

    def _score(self, prompts: Sequence, completions: Sequence, step: int) -> Scores:
        started = time.perf_counter()
        utterances = [prompt[-1]["content"] for prompt in prompts]
        responses = [parse_response(completion[0]["content"]) for completion in completions]
        scores = self.model.score(utterances, responses)
        columns = {f"{name}_raw": values for name, values in scores.raw.items()}
        columns |= {f"{name}_batch": values for name, values in scores.batch.items() if name in self.model.reference}
        columns |= {f"{name}_reference": v for name, v in scores.reference.items() if name in self.model.reference}
        columns["combined_reference"] = scores.combined_reference
        columns["well_formed"] = np.array([float(response.well_formed) for response in responses])
        self.means[step] = {name: float(values.mean()) for name, values in columns.items()}
        group, sample, previous = -1, 0, None
        for index, utterance in enumerate(utterances):
            group, sample = (group, sample + 1) if utterance == previous else (group + 1, 0)
            previous = utterance
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


class GroupTrainer(GRPOTrainer):
    """TRL's trainer with the fast sampling and log-probabilities of this package, for one process.

    Samples depend on the seed and the step alone, so a resumed run draws what the interrupted one would have.
    """

    generation_seconds = 0.0

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        started = time.perf_counter()
        how = generation.Sampling(
            temperature=self.args.temperature,
            top_p=self.args.top_p,
            max_tokens=self.args.max_completion_length,
            eos_ids=tuple(self.eos_token_ids),
            pad_id=self._tokenizer.pad_token_id,
        )
        rng = np.random.default_rng([self.args.seed, self.state.global_step])
        self.model.eval()
        decoder = decoder_of(self.accelerator.unwrap_model(self.model))
        completions = generation.sample(decoder, prompt_ids[::num_generations], num_generations, how, rng)
        self.model.train()
        self.generation_seconds += time.perf_counter() - started
        return completions, None

    def _prepare_inputs(self, generation_batch):
        # As TRL, without its shuffling of a batch that is then cut up: that would take the groups apart.
        if self._step % self.args.steps_per_generation == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(batch, self.args.steps_per_generation)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **_
    ):
        boundary = input_ids.shape[1] - logits_to_keep
        prompts = _unpadded(input_ids[:, :boundary], attention_mask[:, :boundary])
        completions = _unpadded(input_ids[:, boundary:], attention_mask[:, boundary:])
        unwrapped = self.accelerator.unwrap_model(model)
        causal_model = unwrapped.get_base_model() if hasattr(unwrapped, "get_base_model") else unwrapped
        with self.accelerator.autocast():
            logps_BC, entropy_BC = grouped.log_probabilities(
                causal_model, prompts, completions, columns=logits_to_keep, temperature=self.temperature
            )
        return logps_BC, entropy_BC if compute_entropy else None, None

    def create_model_card(self, *args, **kwargs) -> None:
        """Write no card into checkpoints: the stage writes the adapter's own."""


def _unpadded(ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(ids_BT, mask_BT.bool(), strict=True)]


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


class Log(TrainerCallback):
    """One row per step, from TRL's metrics and the recorder's, printed as it comes, with the time left."""

    def __init__(self, recorder: Recorder, trainer: GRPOTrainer, on_save: Callable[[int], None]) -> None:
        self.recorder, self.trainer, self.on_save_step = recorder, trainer, on_save
        self.rows: list[dict] = []
        self.timing: list[dict] = []
        self._started = time.perf_counter()
        self._first_step = 0
        self._spent: dict[str, float] = defaultdict(float)

    def on_train_begin(self, args, state, control, **_) -> None:
        """Load what the checkpoint kept when training goes on from one."""
        self._started, self._first_step = time.perf_counter(), state.global_step

    def on_log(self, args, state, control, logs=None, **_) -> None:
        """Add the step's row."""
        if logs is None or "reward" not in logs:
            return
        step = state.global_step
        row = {"step": step, **{ours: logs.get(theirs) for theirs, ours in LOGGED.items()}}
        row |= self.recorder.means[step]
        self.rows.append(row)
        self._add_timing(step, logs)
        print(self._line(row, args.max_steps), flush=True)

    def on_save(self, args, state, control, **_) -> None:
        """Keep log and scores beside the checkpoint, so that a resumed run ends with the same files."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        files.write_json(folder / "log.json", {"rows": self.rows, "timing": self.timing, **self.recorder.state()})
        self.on_save_step(state.global_step)

    def restore(self, folder: Path) -> None:
        """Take over what `on_save` kept."""
        state = files.read_json(folder / "log.json")
        self.rows, self.timing = state["rows"], state["timing"]
        self.recorder.restore(state)

    def _add_timing(self, step: int, logs: dict) -> None:
        totals = {
            "generation_s": getattr(self.trainer, "generation_seconds", 0.0),
            "reward_s": self.recorder.reward_seconds,
        }
        parts = {name: total - self._spent[name] for name, total in totals.items()}
        self._spent.update(totals)
        whole = logs.get("step_time", 0.0)
        self.timing.append({"step": step, **parts, "update_s": whole - sum(parts.values()), "step_s": whole})

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
