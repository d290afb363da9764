"""Made-up runs in the form of the baseline, whose true difference is known."""

import json

import numpy as np

import made_up
from gpro_empathy.analysis import baseline, response_table, trainings

SETTINGS = {
    "policy": {"model": "random", "lora_rank": 4},
    "rewards": {"calibration_temperature": 0.6, "weights": {"empathy": 1.0, "length": 0.5}, "similarity_model": "m"},
    "train_scorer": {"layers": 4},
    "train_grpo": {"seeds": [23], "steps": 10},
    "analyse_rewards": {"n_resamples": 300},
}
DECLARED = ("empathy_raw", "semantic_similarity_raw", "combined_reference", "answer_words", "overlap")
FILES = {"src/gpro_empathy/rewards.py": "a", "data/prepared/train.jsonl": "b"}


def several(rows, seeds):
    """Return the rows with the tuned policy's, once for each training seed."""
    return [{**row, "seed": seed} for row in rows for seed in (seeds if row["model"] == "tuned" else (row["seed"],))]


def shifted(rows, shift, *, noise=0.0, seed_sd=0.0, seed=11):
    """Return the rows with the tuned policy's raw empathy moved by `shift`.

    Each response gets its own noise and each training its own effect.
    """
    rng = np.random.default_rng(seed)
    effect = {}
    moved = []
    for row in rows:
        by = 0.0
        if row["model"] == "tuned":
            of_seed = effect.setdefault(row["seed"], seed_sd * rng.normal())
            by = shift + of_seed + noise * rng.normal()
        moved.append({**row, "empathy_raw": row["empathy_raw"] + by})
    return moved


def run(rows=None, *, files=FILES, machine="a processor", packages=None, **sections):
    """Make a run of rollout rows; keyword arguments change keys of a section of SETTINGS."""
    rows = made_up.rollouts() if rows is None else rows
    settings = {name: values | sections.get(name, {}) for name, values in SETTINGS.items()}
    record = {
        "commit": "0123abc",
        "files": dict(files),
        "machine": machine,
        "packages": packages or {"torch": "2.0", "dvc": "3.0"},
        "prompts_sha256": trainings.conditions([], {row["prompt_id"]: row["prompt"] for row in rows})["prompts_sha256"],
    }
    return baseline.Run(settings, baseline.scores(response_table.responses(rows), DECLARED), record)


def study(of, *, sd=0.1, trainings=5):
    """Make a study of several trainings under a run's conditions, of one spread in each metric."""
    conditions = {f"rewards.{key}": json.dumps(value, sort_keys=True) for key, value in of.settings["rewards"].items()}
    return {
        "training_seeds": list(range(trainings)),
        "metrics": {metric: {"between_training_sd": sd} for metric in DECLARED},
        "audit": {"metrics": {}, "gap": {"between_training_sd": sd}},
        "conditions": {"settings": conditions, "prompts_sha256": of.provenance["prompts_sha256"]},
    }
