"""What a rehearsal measured, and a forecast of the run.

Measured are the seconds by part of a step, the tokens a second, and the peak memory.
"""

import statistics
from pathlib import Path

import pandas as pd

from gpro_empathy import csv_table, files, machine, params
from gpro_empathy.report import provenance
from rehearsal import lengths
from rehearsal.plan import Plan

PARTS = ("generation", "reward", "loss", "update")
# Rated turns of the WASSA 2024 CONV-turn train file (Giorgi et al. 2024), which the two scorers
# share.
TURNS = 11_166
FORECAST = {"scorer_hours": "scorers", "train_hours": "GRPO", "rollout_hours": "rollouts"}


def collect(plan: Plan, tasks: dict[str, dict], failed: dict[str, str], this_machine: machine.Machine) -> dict:
    """Return the numbers that the stages left in the rehearsal's folder.

    Args:
        tasks: Seconds and peak memory in GiB of each task that ran to its end.
        failed: What each of the others said.
    """
    config, folder = plan.config, plan.folder
    timing = _timing(folder)
    log = csv_table.read(folder / "reports/training/log.csv", ["completion_tokens"])
    taken = per_step(timing)
    responses = config.train_grpo.prompts_per_step * config.train_grpo.num_generations
    tokens = statistics.median(log["completion_tokens"]) * responses
    rates = {name: tokens / taken[name] for name in ("generation", "step") if taken[name] > 0}
    rows = files.read_jsonl(folder / "data/rollouts/rollouts.jsonl") if "rollout" in tasks else []
    if rows:
        rates["rollout_stage"] = sum(row["completion_tokens"] for row in rows) / tasks["rollout"]["seconds"]
    speed = _result(folder / "scorer.json")
    real = at_lengths(_result(folder / lengths.REAL))
    return {
        "profile": plan.profile,
        "gpu": _gpu(this_machine),
        "versions": provenance.packages(),
        "settings": {"policy": config.policy.model_dump(), "train_grpo": config.train_grpo.model_dump()},
        "architecture": plan.models["policy"],
        "steps_measured": len(timing) - 1,
        "completion_tokens_per_step": tokens,
        "seconds_per_step": taken,
        "real_lengths": real,
        "tokens_per_second": rates,
        "peak_memory_gib": {name: tasks[name]["peak_gib"] for name in ("scorer", "train", "rollout") if name in tasks},
        "scorer": speed,
        "adapter": _result(folder / "reload.json"),
        "failed": failed,
        "forecast": forecast(plan.whole, taken["step"], tasks, rows, speed, real),
    }


def at_lengths(noted: dict | None) -> dict | None:
    """Return tokens and seconds per step of what `lengths.timed` gives; None if None.

    The tokens are those of a prompt and of a response.
    """
    if noted is None:
        return None
    tokens = {key: noted[key] for key in ("prompt_tokens", "completion_tokens")}
    return tokens | {"seconds_per_step": per_step(pd.DataFrame(noted["timing"]))}


def _result(path: Path) -> dict | None:
    return files.read_json(path) if path.is_file() else None


def seconds(folder: Path) -> dict[str, float]:
    """Return the seconds per step that a training in `folder` logged."""
    return per_step(_timing(folder))


def _timing(folder: Path) -> pd.DataFrame:
    return csv_table.read(folder / "reports/training/timing.csv", [f"{name}_s" for name in (*PARTS, "step")])


def per_step(timing: pd.DataFrame) -> dict[str, float]:
    """Return the median seconds of a step and of each part, without the first step.

    Kernels are compiled in the first step.
    """
    return {name: float(timing[f"{name}_s"].iloc[1:].median()) for name in (*PARTS, "step")}


def forecast(
    whole: params.Params,
    step_seconds: float,
    tasks: dict[str, dict],
    rows: list[dict],
    scorer: dict | None,
    real: dict | None = None,
) -> dict:
    """Return hours and GiB of the whole run with as long responses as may be, as an upper bound.

    The hours of GRPO at real lengths too, for what is likely.

    Args:
        rows: The responses of the rehearsal's rollout, by whose number and policies its time is
            scaled; none if it failed.
        scorer: How many turns a second a scorer is trained on; None if it failed.
        real: Seconds per step at real lengths; None if they were not measured.
    """
    seeds = len(whole.train_grpo.seeds)
    steps = whole.train_grpo.steps * seeds
    forecasts = {
        "train_hours": steps * step_seconds / 3600,
        "peak_memory_gib": max(tasks[name]["peak_gib"] for name in ("scorer", "train", "rollout") if name in tasks),
    }
    if real:
        forecasts["train_hours_at_real_lengths"] = steps * real["seconds_per_step"]["step"] / 3600
    if scorer:
        forecasts["scorer_hours"] = whole.train_scorer.epochs * TURNS / scorer["turns_per_second"] / 3600
    if rows:
        # Of the base and a warm start as in the rehearsal, and of every seed.
        policies = len({(row["model"], row["seed"]) for row in rows}) - 1 + seeds
        samples = whole.rollout.prompts * whole.rollout.samples_per_prompt * policies
        forecasts["rollout_hours"] = tasks["rollout"]["seconds"] * samples / len(rows) / 3600
    return forecasts


def lines(measured: dict) -> list[str]:
    """Return what was measured as lines to read."""
    seconds, ahead, adapter = measured["seconds_per_step"], measured["forecast"], measured["adapter"]
    peaks = ", ".join(f"{name} {value:.1f}" for name, value in measured["peak_memory_gib"].items())
    rates = ", ".join(f"{name.replace('_', ' ')} {value:.0f}" for name, value in measured["tokens_per_second"].items())
    hours = ", ".join(f"{label} {_hours(ahead, name)}" for name, label in FORECAST.items())
    reloaded = (
        f"Adapter reloaded: log-probabilities differ by at most {adapter['difference']:.1e}, those of the base by "
        f"{adapter['effect']:.1e}"
        if adapter
        else "Adapter not reloaded"
    )
    return [
        f"Seconds per step, median of {measured['steps_measured']} after the first: {_parts(seconds)}",
        *_real_lengths(measured["real_lengths"], ahead),
        f"Tokens per second: {rates}",
        f"Peak memory in GiB: {peaks}",
        reloaded,
        f"Forecast of the whole run at this size: {hours}, {ahead['peak_memory_gib']:.1f} GiB; the scorers' for {TURNS} turns",
    ]


def _parts(seconds: dict[str, float]) -> str:
    return f"{seconds['step']:.2f} ({', '.join(f'{name} {seconds[name]:.2f}' for name in PARTS)})"


def _real_lengths(real: dict | None, ahead: dict) -> list[str]:
    if real is None:
        return []
    tokens = f"prompts of {real['prompt_tokens']} and responses of {real['completion_tokens']:.0f} tokens"
    return [
        f"At real lengths, {tokens}: {_parts(real['seconds_per_step'])}, and GRPO {_hours(ahead, 'train_hours_at_real_lengths')}"
    ]


def _hours(ahead: dict, name: str) -> str:
    return f"{ahead[name]:.2f} h" if name in ahead else "not known"


def _gpu(this_machine: machine.Machine) -> dict | None:
    if not this_machine.gpus:
        return None
    first = this_machine.gpus[0]
    return {"name": first.name, "memory_gib": round(first.memory, 1), "driver": first.driver}
