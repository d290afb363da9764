"""One GRPO run: reference statistics, training with checkpoints, and what it leaves.

A run that was interrupted goes on from its checkpoints.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import GRPOTrainer

from gpro_empathy import calibration, distributed, files, params, response_format, rewards
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters, loading, sampling
from gpro_empathy.training import backends, checkpoints, grpo_trainer, reached_code, training_log

# Prompts whose responses are kept every few steps, so that one can read how the answers change.
SAMPLE_PROMPTS = 3
# What it and its imports do decides a run, and so whether a checkpoint is of the same run.
STAGE = "gpro_empathy.stages.train_grpo"


@dataclass(frozen=True)
class Run:
    """What a run starts from."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    rewards: rewards.RewardModel
    train_prompts: Sequence[str]
    sample_prompts: Sequence[str]
    config: params.TrainGrpo
    policy: params.Policy
    seed: int


@dataclass(frozen=True)
class Result:
    """What a run leaves.

    `log`, `timing`, `groups` and `samples` are rows by step; `reference` is (mean, sd) by term;
    `weights` are those of the whole model by name, where it is sharded among processes, else None.
    """

    seed: int
    log: list[dict]
    timing: list[dict]
    groups: list[dict]
    samples: list[dict]
    reference: dict[str, tuple[float, float]]
    settings: dict
    weights: dict[str, torch.Tensor] | None = None


def train(
    run: Run, folder: Path, inputs: Sequence[Path], reference: dict[str, tuple[float, float]] | None = None
) -> Result:
    """Train `run.model`, going on from the newest checkpoint in `folder`.

    Only a checkpoint of the same settings, `inputs` and code counts.

    Args:
        reference: Statistics of the starting policy, (mean, sd) by term; measured where they are
            not given.

    Raises:
        UserError: If there are fewer prompts than a step needs.
    """
    if len(run.train_prompts) < run.config.prompts_per_step:
        raise UserError(
            f"train_grpo.prompts_per_step is {run.config.prompts_per_step}, but there are {len(run.train_prompts)} prompts"
        )
    torch.manual_seed(run.seed)
    checkpoint = distributed.from_main(lambda: checkpoints.newest(folder, _fingerprint(run, inputs)))
    recorder = training_log.Recorder(run.rewards, run.config.num_generations)
    trainer = _trainer(run, recorder, folder)
    log = training_log.Log(recorder, trainer)
    record = Record(run, trainer, log, reference)
    trainer.add_callback(record)  # before the log, whose clock starts once the reference statistics are there
    trainer.add_callback(log)
    if checkpoint:
        record.restore(checkpoint)
        # Beside TRL's copy for the KL divergence, transformers would leave the trained adapter
        # where it started.
        adapters.restore(run.model, checkpoint)
        distributed.say(f"GRPO goes on from {checkpoint}")
    settings = effective_settings(run, trainer)
    _say_settings(run, trainer, settings, folder)
    weights = None
    if len(log.rows) < run.config.steps:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if distributed.are_sharded() else None
    return Result(run.seed, log.rows, log.timing, recorder.groups, record.samples, record.reference, settings, weights)


class Record(TrainerCallback):
    """What a run does beside its steps.

    Statistics of the starting policy, samples, and what a checkpoint keeps.

    With it a run that was interrupted ends with the same files as one that was not.
    """

    def __init__(
        self,
        run: Run,
        trainer: GRPOTrainer,
        log: training_log.Log,
        reference: dict[str, tuple[float, float]] | None,
    ) -> None:
        self.run, self.trainer, self.log = run, trainer, log
        self.reference = reference
        self.samples: list[dict] = []

    def on_train_begin(self, args, state, control, **_) -> None:
        """Measure and sample the starting policy, unless that was done before."""
        # Not before the training begins: only then are sharded weights where a vLLM server is sent
        # them from.
        self.reference = self.reference or measure_reference(self.run, self.trainer)
        self.log.recorder.model = rewards.with_reference(self.run.rewards, calibration.statistics_json(self.reference))
        if not self.samples:
            self.samples += sample_responses(self.run, 0, self.trainer)

    def on_save(self, args, state, control, **_) -> None:
        """Keep everything beside the weights in the checkpoint that was just written."""
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if distributed.is_main():
            files.write_json(checkpoint / checkpoints.LOG, self.log.state())
        self.samples += sample_responses(self.run, state.global_step, self.trainer)
        if distributed.is_main():
            kept = {"reference": self.reference, "samples": self.samples}
            files.write_json(checkpoint / checkpoints.RUN, kept)

    def restore(self, checkpoint: Path) -> None:
        """Take over what `on_save` kept."""
        kept = files.read_json(checkpoint / checkpoints.RUN)
        self.reference = {name: tuple(statistics) for name, statistics in kept["reference"].items()}
        self.samples = kept["samples"]
        self.log.restore(files.read_json(checkpoint / checkpoints.LOG))


def measure_reference(run: Run, trainer: GRPOTrainer | None = None) -> dict[str, tuple[float, float]]:
    """Return mean and SD of every calibrated term over responses to training prompts.

    The responses are of the policy as it is.
    """
    rng = np.random.default_rng([run.seed, 1])
    chosen = [run.train_prompts[i] for i in rng.permutation(len(run.train_prompts))[: calibration.REFERENCE_RESPONSES]]
    distributed.say(f"GRPO: reference statistics from {len(chosen)} responses of the starting policy")
    responses = [response_format.parse_response(text) for text in _respond(run, chosen, rng, trainer)]
    raw = distributed.from_main(lambda: run.rewards.raw(chosen, responses))
    return {
        name: calibration.batch_statistics(values) for name, values in raw.items() if name in calibration.CALIBRATED
    }


def sample_responses(run: Run, step: int, trainer: GRPOTrainer | None = None) -> list[dict]:
    """Return one response to each of a few fixed prompts.

    They are drawn from the same random numbers at every step.
    """
    chosen = list(run.sample_prompts[:SAMPLE_PROMPTS])
    if not chosen:
        return []
    texts = _respond(run, chosen, np.random.default_rng([run.seed, 2]), trainer)
    return [{"step": step, "prompt": prompt, "text": text} for prompt, text in zip(chosen, texts, strict=True)]


def effective_settings(run: Run, trainer: GRPOTrainer) -> dict:
    """Return what the run in fact uses, for the log and the report."""
    args = trainer.args
    return {
        "model": run.policy.model,
        "backend": run.policy.backend,
        "load_in_4bit": run.policy.load_in_4bit,
        "dtype": str(loading.compute_dtype(run.policy)).removeprefix("torch."),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "parameters_trained": sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        "steps": args.max_steps,
        "processes": distributed.count(),
        "completions_per_step": args.generation_batch_size,
        "completions_per_forward": args.per_device_train_batch_size,
        "trained_completions_per_forward": (
            args.per_device_train_batch_size * run.config.trained_generations // args.num_generations
        ),
        "accumulation_steps": args.gradient_accumulation_steps,
        "num_generations": args.num_generations,
        "trained_generations": run.config.trained_generations,
        "advantage_on": run.config.advantage_on,
        "loss_type": args.loss_type,
        "scale_rewards": args.scale_rewards,
        "prompts": len(run.train_prompts),
    }


def _respond(
    run: Run, utterances: Sequence[str], rng: np.random.Generator, trainer: GRPOTrainer | None = None
) -> list[str]:
    """Return one response to each utterance, the same in every process.

    The trainer's server gives them where it has one.
    """
    prompts = [loading.prompt_ids(run.tokenizer, response_format.messages(utterance)) for utterance in utterances]
    how = sampling.for_tokenizer(
        run.tokenizer, run.policy.max_completion_tokens, run.config.temperature, run.config.top_p
    )
    if trainer is not None and run.config.vllm_mode == "server":
        responses = backends.ServerSampler(trainer).sample(prompts, 1, how, rng)
    else:
        backend = backends.KINDS[run.policy.backend]
        responses = distributed.from_main(lambda: backend.sampler(run.model).sample(prompts, 1, how, rng))
    return [run.tokenizer.decode(ids, skip_special_tokens=True) for ids in responses]


def _trainer(run: Run, recorder: training_log.Recorder, folder: Path) -> GRPOTrainer:
    kind, extra = backends.KINDS[run.policy.backend].trainer(run.config)
    dataset = datasets.Dataset.from_list([{"prompt": response_format.messages(text)} for text in _in_order(run)])
    trainer = kind(
        model=run.model,
        reward_funcs=recorder.functions(),
        args=grpo_trainer.checked_config(_trl_values(run, folder)),
        train_dataset=dataset,
        processing_class=run.tokenizer,
        **extra,
    )
    trainer.remove_callback(PrinterCallback)  # the log prints one line a step of its own
    return trainer


def _trl_values(run: Run, folder: Path) -> dict[str, object]:
    return grpo_trainer.trl_values(run.config, run.rewards.config, run.policy, run.seed, folder)


def _in_order(run: Run) -> list[str]:
    """Return the prompts of all steps.

    They go through the training prompts as often as it takes, each pass in its own order.

    In one list, because TRL's sampler, in a run that goes on in its second pass, begins with the
    order of the first.
    """
    needed = run.config.steps * run.config.prompts_per_step
    rng = np.random.default_rng([run.seed, 3])
    passes = -(-needed // len(run.train_prompts))
    order = np.concatenate([rng.permutation(len(run.train_prompts)) for _ in range(passes)])
    return [run.train_prompts[i] for i in order[:needed]]


def _fingerprint(run: Run, inputs: Sequence[Path]) -> dict[str, str]:
    code = reached_code.files_of([STAGE])  # the user's reward modules are among the inputs
    return checkpoints.fingerprint((run.config, run.policy, run.rewards.config), run.seed, inputs, code)


def _say_settings(run: Run, trainer: GRPOTrainer, settings: dict, folder: Path) -> None:
    distributed.say(f"GRPO: {json.dumps(settings, sort_keys=True)}")
    changed = grpo_trainer.overridden_settings(run.config, _trl_values(run, folder), trainer.args)
    distributed.say(f"GRPO settings, as set -> in effect: {'; '.join(changed) or 'all as set'}")
