"""Rehearse a profile: its real stages, for a few steps, on random models of its architectures, timed and weighed.

`python -m gpro_empathy.rehearse PROFILE` runs GRPO and rollouts at the profile's full shapes, or without a GPU at a reduced
size, in a temporary folder; it reloads the adapter, and forecasts the whole run. On a GPU it writes reports/gpu/<name>.json.
"""

import argparse
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import yaml

from gpro_empathy import csv_table, files, gpu_memory, gpu_report, machine, params, profiles, rehearsal_check
from gpro_empathy.files import UserError

STEPS = 5
ROLLOUT_PROMPTS = 8
SAYS_REDUCED = "NOT the profile's size: no GPU is found, so this rehearsal runs at a reduced size on the processor"
# On a processor: a width of 256, two layers, and what goes with it, so that the whole takes two minutes on two slow cores.
REDUCED_POLICY = {
    "hidden_size": 256, "intermediate_size": 896, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 4096,
}  # fmt: skip
REDUCED_ENCODER = {
    "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 4096
}  # fmt: skip
REDUCED_SETTINGS = {
    "policy": {"backend": "transformers", "dtype": "float32", "max_completion_tokens": 24},
    "train_grpo": {"steps": 3, "save_steps": 3, "optimizer": "adamw_torch", "prompts_per_step": 1},
    "rollout": {"prompts": 2, "samples_per_prompt": 2},
}


def architectures(config: params.Params) -> dict[str, dict]:
    """Return the configurations of the profile's three models.

    Raises:
        UserError: If the repository keeps none of one of them.
    """
    names = {
        "policy": ("policy.model", config.policy.model),
        "similarity": ("rewards.similarity_model", config.rewards.similarity_model),
        "scorer": ("train_scorer.encoder", config.train_scorer.encoder),
    }
    found = {}
    for role, (setting, name) in names.items():
        found[role] = gpu_memory.architecture(name)
        if found[role] is None:
            known = ", ".join(sorted(path.stem for path in gpu_memory.ARCHITECTURES.glob("*.json")))
            raise UserError(
                f"{setting} {name!r}: {gpu_memory.ARCHITECTURES} keeps no configuration of it to rehearse with; put its "
                f"config.json there. There are {known}"
            )
    return found


def settings(values: dict, folder: Path, reduced: bool) -> dict:
    """Return the content of params.yaml for the rehearsal: the profile's, for a few steps."""
    rewards = {"similarity_model": str(folder / "similarity"), "similarity_revision": None}
    steps = {"steps": STEPS, "save_steps": STEPS, "seeds": values["train_grpo"]["seeds"][:1]}
    changes: dict[str, dict] = {"rewards": rewards, "train_grpo": steps, "rollout": {"prompts": ROLLOUT_PROMPTS}}
    result = {section: dict(content) | changes.get(section, {}) for section, content in values.items()}
    if reduced:
        for section, content in REDUCED_SETTINGS.items():
            result[section] |= content
        group = result["train_grpo"]["num_generations"]
        result["train_grpo"]["completions_per_forward"] = group
    return result


def run(profile: str, folder: Path, here: machine.Machine) -> dict:
    """Rehearse in `folder` and return what was measured."""
    reduced = not here.gpus
    values = profiles.values(profile)
    whole = params.check(values, profiles.PROFILES / f"{profile}.yaml")
    models = architectures(whole)
    if reduced:
        models = {
            role: model | (REDUCED_POLICY if role == "policy" else REDUCED_ENCODER) for role, model in models.items()
        }
    changed = settings(values, folder, reduced)
    config = params.check(changed, Path("params.yaml"))
    (folder / "params.yaml").write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
    context = multiprocessing.get_context("forkserver")
    if reduced:  # with a GPU not, as Unsloth demands to be imported before them
        context.set_forkserver_preload(["gpro_empathy.grpo_run", "sentence_transformers"])
    tasks = {"build": (models,), "train": (), "rollout": (), "reload": ()}
    memory = {name: _in_child(context, name, arguments, folder) for name, arguments in tasks.items()}
    return measured(profile, config, whole, models, memory, folder, here)


def measured(profile, config, whole, models, memory, folder: Path, here: machine.Machine) -> dict:
    """Collect what the tasks left."""
    from gpro_empathy import provenance

    timing = csv_table.read(folder / "reports/training/timing.csv", [])
    log = csv_table.read(folder / "reports/training/log.csv", [])
    # The first step warms up: kernels are chosen and compiled, memory is taken.
    names = ("generation", "reward", "loss", "update", "step")
    seconds = {name: statistics.median(timing[f"{name}_s"][1:]) for name in names}
    tokens = (
        statistics.median(log["completion_tokens"])
        * config.train_grpo.prompts_per_step
        * config.train_grpo.num_generations
    )
    rate = (
        {"generation": tokens / seconds["generation"], "step": tokens / seconds["step"]}
        if seconds["generation"]
        else {"step": tokens / seconds["step"]}
    )
    rows = files.read_jsonl(folder / "data/rollouts/rollouts.jsonl")
    rollout_tokens = sum(row["completion_tokens"] for row in rows)
    policies = len({(row["model"], row["seed"]) for row in rows})
    return {
        "profile": profile,
        "reduced": not here.gpus,
        "gpu": {"name": here.gpus[0].name, "memory_gib": round(here.gpus[0].memory, 1), "driver": here.gpus[0].driver}
        if here.gpus
        else None,
        "versions": provenance.packages(),
        "settings": {
            "policy": config.policy.model_dump(),
            "train_grpo": config.train_grpo.model_dump(),
            "architecture": models["policy"],
        },
        "steps_measured": len(timing) - 1,
        "completion_tokens_per_step": tokens,
        "seconds_per_step": seconds,
        "tokens_per_second": rate | {"rollout_stage": rollout_tokens / memory["rollout"]["seconds"]},
        "peak_memory_gib": {name: memory[name]["peak_gib"] for name in ("train", "rollout")},
        "adapter": files.read_json(folder / "reload.json"),
        "forecast": forecast(whole, seconds["step"], memory, len(rows), policies),
    }


def forecast(whole: params.Params, step_seconds: float, memory: dict, responses: int, policies: int) -> dict:
    """Return hours and GiB of the whole run with as long responses as may be, as an upper bound.

    Args:
        responses: How many the rehearsal's rollout sampled, of so many policies; its time is scaled by them.
    """
    seeds = len(whole.train_grpo.seeds)
    samples = whole.rollout.prompts * whole.rollout.samples_per_prompt * (policies - 1 + seeds)
    return {
        "train_hours": whole.train_grpo.steps * seeds * step_seconds / 3600,
        "rollout_hours": memory["rollout"]["seconds"] * samples / responses / 3600,
        "peak_memory_gib": max(memory[name]["peak_gib"] for name in ("train", "rollout")),
    }


def _in_child(context, name: str, arguments: tuple, folder: Path) -> dict:
    """Run one task in a process of its own, as a stage has; return its seconds and peak memory.

    Raises:
        UserError: If it fails; it has said why.
    """
    print(f"rehearsal: {name}", flush=True)
    process = context.Process(target=rehearsal_check.task, args=(name, arguments, folder))
    process.start()
    process.join()
    if process.exitcode:
        raise UserError(f"rehearsal: {name} failed (exit status {process.exitcode}); its message stands above")
    return files.read_json(folder / "tasks" / f"{name}.json")


def lines(found: dict) -> list[str]:
    """Return what was measured as lines to read."""
    seconds = found["seconds_per_step"]
    parts = ", ".join(f"{name} {seconds[name]:.2f}" for name in ("generation", "reward", "loss", "update"))
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


def main() -> None:
    """Rehearse the profile named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("profile", help="a file of profiles/, without .yaml")
    profile = parser.parse_args().profile
    here = machine.inspect()
    banner = f"{SAYS_REDUCED}." if not here.gpus else f"Rehearsal of {profile} at full size on {here.gpus[0].name}."
    print(banner, flush=True)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        found = run(profile, Path(folder), here)
    print("\n".join(lines(found)))
    print(f"GPU memory at full size, computed: {_computed(profile)}")
    if here.gpus:
        print(f"Written: {gpu_report.write(found)}")
    print(f"{math.ceil(time.perf_counter() - started)} s in all. {banner}")


def _computed(profile: str) -> str:
    whole = profiles.preview(profile)
    models = architectures(whole)
    return gpu_memory.needed(whole, models["policy"], [models["similarity"], models["scorer"]]).text()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    files.run_stage(main)
