"""One GRPO run: reference statistics, training with checkpoints to go on from, and what is reported of it."""

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl import GRPOTrainer

from gpro_empathy import calibration, distributed, files, params, response_format, rewards
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters, loading, sampling
from gpro_empathy.training import backends, grpo_trainer, training_log

# Prompts whose responses are kept every few steps, so that one can read how the answers change.
SAMPLE_PROMPTS = 3
# Columns that stand first in every table; the others follow in alphabetical order.
LEADING = ("seed", "step", "group", "sample")


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

    `log`, `timing`, `groups` and `samples` are rows by step; `reference` is (mean, sd) by term; `weights` are those of the
    whole model by name, where it is sharded among processes, else None.
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
    run: Run, checkpoints: Path, inputs: Sequence[Path], reference: dict[str, tuple[float, float]] | None = None
) -> Result:
    """Train `run.model`, going on from the newest checkpoint if one was made from these `inputs` and settings.

    Args:
        reference: Statistics of the starting policy, (mean, sd) by term; measured where they are not given.

    Raises:
        UserError: If there are fewer prompts than a step needs.
    """
    if len(run.train_prompts) < run.config.prompts_per_step:
        raise UserError(
            f"train_grpo.prompts_per_step is {run.config.prompts_per_step}, but there are {len(run.train_prompts)} prompts"
        )
    torch.manual_seed(run.seed)
    checkpoint = distributed.from_main(lambda: _newest_checkpoint(checkpoints, _fingerprint(run, inputs)))
    kept = files.read_json(checkpoint / "run.json") if checkpoint else None
    if kept:
        reference = {name: tuple(statistics) for name, statistics in kept["reference"].items()}
    samples = kept["samples"] if kept else []
    recorder = training_log.Recorder(run.rewards, run.config.num_generations)
    trainer = _trainer(run, recorder, checkpoints)

    def begin() -> None:
        nonlocal reference
        reference = reference or measure_reference(run, trainer)
        recorder.model = rewards.with_reference(run.rewards, calibration.statistics_json(reference))
        if not samples:
            samples.extend(sample_responses(run, 0, trainer))

    def keep(step: int) -> None:
        samples.extend(sample_responses(run, step, trainer))
        if distributed.is_main():
            state = {"reference": reference, "samples": samples}
            files.write_json(checkpoints / f"checkpoint-{step}" / "run.json", state)

    log = training_log.Log(recorder, trainer, begin, keep)
    trainer.add_callback(log)
    if checkpoint:
        log.restore(checkpoint)
        # Beside TRL's copy for the KL divergence, transformers would leave the trained adapter where it started.
        adapters.restore(run.model, checkpoint)
        distributed.say(f"GRPO goes on from {checkpoint}")
    settings = effective_settings(run, trainer)
    distributed.say(f"GRPO: {json.dumps(settings, sort_keys=True)}")
    changed = grpo_trainer.departures(run.config, _trl_values(run, checkpoints), trainer.args)
    distributed.say(f"GRPO settings, as set -> in effect: {'; '.join(changed) or 'all as set'}")
    weights = None
    if len(log.rows) < run.config.steps:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if distributed.are_sharded() else None
    return Result(run.seed, log.rows, log.timing, recorder.groups, samples, reference, settings, weights)


def measure_reference(run: Run, trainer: GRPOTrainer | None = None) -> dict[str, tuple[float, float]]:
    """Return mean and SD of every calibrated term over responses of the policy as it is, to training prompts."""
    rng = np.random.default_rng([run.seed, 1])
    chosen = [run.train_prompts[i] for i in rng.permutation(len(run.train_prompts))[: calibration.REFERENCE_RESPONSES]]
    distributed.say(f"GRPO: reference statistics from {len(chosen)} responses of the starting policy")
    responses = [response_format.parse_response(text) for text in _respond(run, chosen, rng, trainer)]
    raw = distributed.from_main(lambda: run.rewards.raw(chosen, responses))
    return {
        name: calibration.batch_statistics(values) for name, values in raw.items() if name in calibration.CALIBRATED
    }


def sample_responses(run: Run, step: int, trainer: GRPOTrainer | None = None) -> list[dict]:
    """Return one response to each of a few fixed prompts, drawn from the same random numbers at every step."""
    chosen = list(run.sample_prompts[:SAMPLE_PROMPTS])
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
        "parameters_total": sum(p.numel() for p in run.model.parameters()),
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
        "loss_type": args.loss_type,
        "scale_rewards": args.scale_rewards,
        "prompts": len(run.train_prompts),
    }


def write_reports(results: Sequence[Result], folder: Path) -> None:
    """Write the log, timing, groups and samples of the runs, one after the other with their seeds, to `folder`, atomically.

    Reference statistics and settings are those of the first: all runs share them.
    """
    with files.atomic_path(folder) as temporary:
        temporary.mkdir()
        for name in ("log", "timing", "groups"):
            files.write_text(temporary / f"{name}.csv", _csv(_with_seed(results, name)))
        files.write_jsonl(temporary / "samples.jsonl", _with_seed(results, "samples"))
        files.write_json(temporary / "reference.json", calibration.statistics_json(results[0].reference))
        seeds = [result.seed for result in results]
        files.write_json(temporary / "settings.json", results[0].settings | {"seeds": seeds})


def _with_seed(results: Sequence[Result], name: str) -> list[dict]:
    return [{"seed": result.seed} | row for result in results for row in getattr(result, name)]


def card(run: Run, result: Result) -> str:
    """Return the adapter's model card."""
    first, last = result.log[0], result.log[-1]
    terms = "".join(
        f"| {name} (raw) | {first[f'{name}_raw']:.3f} | {last[f'{name}_raw']:.3f} |\n"
        for name in sorted(run.rewards.terms)
    )
    base = "the base in 4 bits (NF4)" if run.policy.load_in_4bit else "the unquantised base"
    return (
        f"# {run.policy.model}, trained by GRPO to answer with empathy\n\n"
        f"LoRA of rank {run.policy.lora_rank} on {base}, "
        f"{run.config.steps} GRPO steps of {run.config.prompts_per_step} prompts x {run.config.num_generations} responses, "
        f"seed {run.seed}.\n\n"
        f"| training batch mean | step {first['step']} | step {last['step']} |\n|---|---|---|\n{terms}\n"
        "The comparison on held-out prompts, with intervals, is in reports/reward_analysis.json. A research model: an automatic "
        "score is not empathy, and it is not for use with people in distress.\n"
    )


def forget(checkpoints: Path) -> None:
    """Delete the checkpoints of a run that is complete."""
    # First what makes them count: a run that is killed here must not find half of a checkpoint and go on from it.
    for mark in checkpoints.rglob("fingerprint.txt"):
        mark.unlink()
    shutil.rmtree(checkpoints, ignore_errors=True)


def _respond(
    run: Run, utterances: Sequence[str], rng: np.random.Generator, trainer: GRPOTrainer | None = None
) -> list[str]:
    """Return one response to each utterance, the same in every process, by the trainer's server where it has one."""
    tokens = [loading.prompt_ids(run.tokenizer, response_format.messages(utterance)) for utterance in utterances]
    if trainer is not None and run.config.vllm_mode == "server":
        engine = trainer.vllm_generation
        engine.sync_weights()
        # The server takes the prompts of all processes together, so that the main one brings them all.
        _, responses, _, _ = engine.generate(tokens if distributed.is_main() else [], None, num_generations=1)
    else:
        how = sampling.sampling(
            run.tokenizer, run.policy.max_completion_tokens, run.config.temperature, run.config.top_p
        )
        sample = backends.KINDS[run.policy.backend].sample
        responses = distributed.from_main(lambda: sample(run.model, tokens, 1, how, rng))
    responses = distributed.from_main(lambda: responses)
    return [run.tokenizer.decode(ids, skip_special_tokens=True) for ids in responses]


def _trainer(run: Run, recorder: training_log.Recorder, checkpoints: Path) -> GRPOTrainer:
    kind, extra = backends.KINDS[run.policy.backend].trainer(run.config)
    dataset = datasets.Dataset.from_list([{"prompt": response_format.messages(text)} for text in _in_order(run)])
    trainer = kind(
        model=run.model,
        reward_funcs=recorder.functions(),
        args=grpo_trainer.checked_config(_trl_values(run, checkpoints)),
        train_dataset=dataset,
        processing_class=run.tokenizer,
        **extra,
    )
    trainer.remove_callback(PrinterCallback)  # the log prints one line a step of its own
    return trainer


def _trl_values(run: Run, checkpoints: Path) -> dict[str, object]:
    return grpo_trainer.trl_values(run.config, run.rewards.config, run.policy, run.seed, checkpoints)


def _in_order(run: Run) -> list[str]:
    """Return the prompts of all steps: as often through the training prompts as it takes, each pass in its own order.

    In one list, because TRL's sampler, in a run that goes on in its second pass, begins with the order of the first.
    """
    needed = run.config.steps * run.config.prompts_per_step
    rng = np.random.default_rng([run.seed, 3])
    passes = -(-needed // len(run.train_prompts))
    order = np.concatenate([rng.permutation(len(run.train_prompts)) for _ in range(passes)])
    return [run.train_prompts[i] for i in order[:needed]]


def _fingerprint(run: Run, inputs: Sequence[Path]) -> str:
    """Return a hash of everything that decides the run: settings and input files."""
    digest = hashlib.sha256()
    for section in (run.config, run.policy, run.rewards.config):
        # How many processes share a run, where its server stands, and how much memory vLLM takes, does not change it.
        left_out = {"launcher", "vllm_server_url", "vllm_gpu_memory_utilization"}
        digest.update(section.model_dump_json(exclude=left_out).encode())
    digest.update(str(run.seed).encode())
    for folder in inputs:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(folder)}\n".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _newest_checkpoint(checkpoints: Path, fingerprint: str) -> Path | None:
    """Return the newest whole checkpoint of this very run, after deleting those of any other."""
    mark = checkpoints / "fingerprint.txt"
    if not mark.is_file() or files.read_text(mark).strip() != fingerprint:
        forget(checkpoints)
        files.write_text(mark, fingerprint + "\n")
        return None
    whole = [path.parent for path in checkpoints.glob("checkpoint-*/run.json")]  # run.json is written last
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _csv(rows: Sequence[dict]) -> str:
    text = io.StringIO()
    # Not in the order of the first row: rows that a checkpoint kept come back with their keys sorted.
    columns = sorted(rows[0], key=lambda name: (LEADING.index(name) if name in LEADING else len(LEADING), name))
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
