"""What a rehearsal measured: seconds by part of a step, tokens a second, peak memory, and what they mean for the whole run."""

import statistics
from pathlib import Path

import pandas as pd

from gpro_empathy import csv_table, files, machine, params, provenance

PARTS = ("generation", "reward", "loss", "update")


def collect(
    profile: str,
    config: params.Params,
    whole: params.Params,
    architecture: dict,
    tasks: dict[str, dict],
    folder: Path,
    here: machine.Machine,
) -> dict:
    """Return the numbers that the stages left in `folder`.

    Args:
        config: Parameters of the rehearsal; `whole` those of the profile.
        architecture: That of the policy, as it was rehearsed.
        tasks: Seconds and peak memory in GiB of each task.
    """
    timing = _timing(folder)
    log = csv_table.read(folder / "reports/training/log.csv", ["completion_tokens"])
    taken = per_step(timing)
    responses = config.train_grpo.prompts_per_step * config.train_grpo.num_generations
    tokens = statistics.median(log["completion_tokens"]) * responses
    rows = files.read_jsonl(folder / "data/rollouts/rollouts.jsonl")
    rates = {name: tokens / taken[name] for name in ("generation", "step") if taken[name] > 0}
    rates["rollout_stage"] = sum(row["completion_tokens"] for row in rows) / tasks["rollout"]["seconds"]
    return {
        "profile": profile,
        "gpu": _gpu(here),
        "versions": provenance.packages(),
        "settings": {"policy": config.policy.model_dump(), "train_grpo": config.train_grpo.model_dump()},
        "architecture": architecture,
        "steps_measured": len(timing) - 1,
        "completion_tokens_per_step": tokens,
        "seconds_per_step": taken,
        "tokens_per_second": rates,
        "peak_memory_gib": {name: tasks[name]["peak_gib"] for name in ("train", "rollout")},
        "adapter": files.read_json(folder / "reload.json"),
        "forecast": forecast(
            whole, taken["step"], tasks, len(rows), len({(row["model"], row["seed"]) for row in rows})
        ),
    }


def seconds(folder: Path) -> dict[str, float]:
    """Return the seconds per step that a training in `folder` logged."""
    return per_step(_timing(folder))


def _timing(folder: Path) -> pd.DataFrame:
    return csv_table.read(folder / "reports/training/timing.csv", [f"{name}_s" for name in (*PARTS, "step")])


def per_step(timing: pd.DataFrame) -> dict[str, float]:
    """Return the median seconds of a step and of each part, without the first: kernels are compiled in it."""
    return {name: float(timing[f"{name}_s"].iloc[1:].median()) for name in (*PARTS, "step")}


def forecast(whole: params.Params, step_seconds: float, tasks: dict, responses: int, policies: int) -> dict:
    """Return hours and GiB of the whole run with as long responses as may be, as an upper bound.

    Args:
        responses: How many the rehearsal's rollout sampled, of so many policies; its time is scaled by them.
    """
    seeds = len(whole.train_grpo.seeds)
    samples = whole.rollout.prompts * whole.rollout.samples_per_prompt * (policies - 1 + seeds)
    return {
        "train_hours": whole.train_grpo.steps * seeds * step_seconds / 3600,
        "rollout_hours": tasks["rollout"]["seconds"] * samples / responses / 3600,
        "peak_memory_gib": max(tasks[name]["peak_gib"] for name in ("train", "rollout")),
    }


def lines(found: dict) -> list[str]:
    """Return what was measured as lines to read."""
    seconds = found["seconds_per_step"]
    parts = ", ".join(f"{name} {seconds[name]:.2f}" for name in PARTS)
    peak, ahead, adapter = found["peak_memory_gib"], found["forecast"], found["adapter"]
    rates = ", ".join(f"{name.replace('_', ' ')} {value:.0f}" for name, value in found["tokens_per_second"].items())
    return [
        f"Seconds per step, median of {found['steps_measured']} after the first: {seconds['step']:.2f} ({parts})",
        f"Tokens per second: {rates}",
        f"Peak memory in GiB: train {peak['train']:.1f}, rollout {peak['rollout']:.1f}",
        f"Adapter reloaded: log-probabilities differ by at most {adapter['difference']:.1e}, those of the base by {adapter['effect']:.1e}",
        f"Forecast of the whole run at this size: training {ahead['train_hours']:.2f} h, rollouts {ahead['rollout_hours']:.2f} h, "
        f"{ahead['peak_memory_gib']:.1f} GiB",
    ]  # fmt: skip


def _gpu(here: machine.Machine) -> dict | None:
    if not here.gpus:
        return None
    first = here.gpus[0]
    return {"name": first.name, "memory_gib": round(first.memory, 1), "driver": first.driver}
