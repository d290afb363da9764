"""A made-up sweep: a folder to run it in, and runs whose true differences are known."""

import shutil
import zlib

import numpy as np
import yaml

from conftest import ROOT
from gpro_empathy import files
from gpro_empathy.tools import sweep_folder

STORIES = 24
# What params.yaml holds there, in a made-up sweep.
TEMPERATURE = 0.6
# What a gain of 1 in empathy is in each metric.
FACTORS = {"empathy_raw": 1.0, "audit_empathy_raw": 0.5, "answer_words": 0.0}


def write_tree(root):
    """Write what a sweep reads of a repository, with fewer resamples and that temperature."""
    for name in ("dvc.yaml", "params.yaml", "versions.yaml"):
        shutil.copy(ROOT / name, root / name)
    files.write_text(root / "src/gpro_empathy/rewards.py", "code")
    files.write_text(root / ".gitignore", "/tmp/\n")
    values = yaml.safe_load((root / "params.yaml").read_text())
    values["analyse_rewards"]["n_resamples"] = 200
    values["rewards"]["calibration_temperature"] = TEMPERATURE
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def row(setting, seed, gain, *, training_sd=0.0, noise=0.3, rng=None, prompts=48, metrics=tuple(FACTORS)):
    """Return the row of a run whose empathy rises by `gain` on average, and half of that held out.

    Prompts have a part that all runs share, stories another; trainings differ by `training_sd`.
    """
    shared = np.random.default_rng(1)
    rng = rng or np.random.default_rng([seed, zlib.crc32(str(setting).encode())])
    names = [f"{p}.2" for p in range(prompts)]
    stories = {name: f"article {p % STORIES}" for p, name in enumerate(names)}
    story_C, prompt_P = shared.normal(0, 0.2, STORIES), shared.normal(0, 0.1, prompts)
    common_P = story_C[np.arange(prompts) % STORIES] + prompt_P
    common_P -= common_P.mean()
    training = rng.normal(0, training_sd) if training_sd else 0.0
    kept = {}
    for metric in metrics:
        noise_P = rng.normal(0, noise, prompts) if noise else np.zeros(prompts)
        change_P = FACTORS[metric] * (gain + training) + common_P + noise_P
        kept[metric] = {
            "start": 2.0,
            "tuned": 2.0 + float(change_P.mean()),
            "difference": {name: float(value) for name, value in zip(names, change_P, strict=True)},
        }
    return {"setting": setting, "seed": seed, "failed": None, "stories": stories, "metrics": kept, "seconds": 60.0}


def failed(setting, seed, reason="the machine's memory ran out"):
    """Return the row of a run that failed."""
    return {"setting": setting, "seed": seed, "failed": reason, "stories": {}, "metrics": {}, "seconds": 1.0}


def sweep(grid, seeds, base, name="made_up"):
    """Return a sweep of the settings of params.yaml, at that temperature, which was never begun."""
    base = base | {"rewards": base["rewards"] | {"calibration_temperature": TEMPERATURE}}
    return sweep_folder.Sweep(name, grid, list(seeds), base, {}, None, [])


def by_key(rows):
    """Return rows by what tells their runs apart."""
    return {sweep_folder.key(one["setting"], one["seed"]): one for one in rows}
