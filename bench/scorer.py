"""Train and rate the empathy scorer on the official WASSA 2024 CONV-turn files.

The user has those files, and this repository does not.

    make scorer-benchmark WASSA=<folder> [ARGS=--quick]
        train on the official train file, rate the official dev file; quick: without the large
        encoder, which is fetched first
    make scorer-ablation WASSA=<folder> [ARGS="name ..."]
        compare recipes by cross-validation over stories of train

Recipes: bench/scorer.yaml. Results: bench/scorer.json, and as tables bench/scorer.md. The
benchmark's scorer is saved to models/wassa_scorer, for `python -m gpro_empathy score --model
models/wassa_scorer`. Cross-validation keeps each fold's predictions in work/scorer_folds, and goes
on from there.
"""

import argparse
import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
import yaml

from gpro_empathy import entry_point, files, model_card, packaged_models, params
from gpro_empathy.analysis import estimates
from gpro_empathy.data import dialogue, wassa
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.labels import LABELS
from gpro_empathy.machine import GIB
from gpro_empathy.report.number_format import MARKDOWN
from gpro_empathy.scorer import empathy_scorer, fitting

HERE = Path(__file__).parent
RECIPES, RESULTS, TABLES = HERE / "scorer.yaml", HERE / "scorer.json", HERE / "scorer.md"
MODEL, FOLDS = Path("models/wassa_scorer"), Path("work/scorer_folds")
TRAIN, DEV = "trac2_CONVT_train.csv", "trac2_CONVT_dev.csv"
N_FOLDS = 2
# GiB of free memory that training an encoder whole takes: 5.5 for 32 turns of 128 tokens at once,
# and more for longer ones.
MEMORY = {packaged_models.MPNET: 8}
# What the shared task calls the labels.
COLUMNS = {"emotion": "intensity", "polarity": "polarity", "empathy": "empathy"}


def main() -> None:
    """Run the benchmark or the cross-validation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("benchmark", "cross-validate"))
    parser.add_argument("wassa", type=Path, help=f"folder that holds {TRAIN} and {DEV}")
    parser.add_argument("recipes", nargs="*", help="recipes to cross-validate; all without")
    parser.add_argument("--quick", action="store_true", help="benchmark the recipe that needs no large encoder")
    parser.add_argument(
        "--folds", type=int, choices=range(1, N_FOLDS + 1), default=N_FOLDS, help="train only the first so many folds"
    )
    arguments = parser.parse_args()
    recipes = yaml.safe_load(files.read_text(RECIPES))
    full, quick = recipes.pop("benchmark"), recipes.pop("quick")
    if unknown := sorted(set(arguments.recipes) - set(recipes)):
        raise files.UserError(f"{RECIPES}: no recipe {unknown[0]!r}; there are {', '.join(recipes)}")
    train = wassa.read_labelled(arguments.wassa / TRAIN)
    results = {"dev": None, "folds": {}, "test": None} | (files.read_json(RESULTS) if RESULTS.is_file() else {})
    if arguments.what == "benchmark":
        dev, chosen = wassa.read_labelled(arguments.wassa / DEV), quick if arguments.quick else full
        check(members(recipes, chosen))
        results["dev"] = {"recipe": chosen} | benchmark(train, dev, members(recipes, chosen))
    else:
        names = dict.fromkeys([quick, *(arguments.recipes or recipes)])
        check([config for name in names for config in members(recipes, name)])
        predicted = {name: out_of_fold(train, members(recipes, name), arguments.folds) for name in names}
        results["folds"].setdefault(folds_over(train), {}).update(compare(train, predicted, quick))
    files.write_json(RESULTS, results)
    files.write_text(TABLES, tables(results, recipes))
    print(f"{TABLES}:\n\n{files.read_text(TABLES)}")


def members(recipes: dict, name: str) -> list[params.TrainScorer]:
    """Return train_scorer of params.yaml with a recipe's changes.

    There is one for each scorer whose predictions the recipe averages.
    """
    if "average" in recipes[name]:
        return [config for member in recipes[name]["average"] for config in members(recipes, member)]
    return [params.TrainScorer.model_validate(params.load(params.TrainScorer).model_dump() | recipes[name])]


def check(configs: Sequence[params.TrainScorer]) -> None:
    """Find the packaged encoders before anything is trained, and the memory that they take.

    Raises:
        UserError: If an encoder is missing or altered, or the machine has too little memory.
    """
    free = psutil.virtual_memory().available / GIB
    for name in sorted({config.encoder for config in configs}):
        if free < MEMORY.get(name, 0):
            raise files.UserError(
                f"{name}: training it takes {MEMORY[name]} GiB of memory, and {free:.1f} are free; close other programs, or run "
                "`make scorer-benchmark ARGS=--quick`, which does without it"
            )
        if name in packaged_models.ENCODERS:
            packaged_models.find(name)


def benchmark(train: Sequence[Turn], dev: Sequence[Turn], configs: Sequence[params.TrainScorer]) -> dict:
    """Train on all of train, save the scorer, and return its accuracy on dev with intervals."""
    started = time.perf_counter()
    trained = [fit(train, config) for config in configs]
    seconds = time.perf_counter() - started
    model = trained[0] if len(trained) == 1 else empathy_scorer.Ensemble(trained)
    predicted_B3 = empathy_scorer.score_turns(model, dev)
    measured = accuracy(dev, predicted_B3) | {
        "resampled": folds_over(dev),
        "train_seconds": round(seconds),
        "bfloat16": any(map(in_bfloat16, configs)),
    }
    described = [fitting.describe(train, config, seed=config.seed) for config in configs]
    empathy_scorer.save(
        model, MODEL, described[0] if len(described) == 1 else {"members": described}, card(measured, len(train))
    )
    return measured | speed(dev)


def fit(turns: Sequence[Turn], config: params.TrainScorer) -> empathy_scorer.Scorer:
    """Train a scorer of a recipe."""
    return fitting.train(turns, config, seed=config.seed, bfloat16=in_bfloat16(config))


def in_bfloat16(config: params.TrainScorer) -> bool:
    """Return whether a training multiplies in bfloat16, by /proc/cpuinfo.

    The large encoders' do where the processor does it itself; the others repeat to the last digit
    on any processor.
    """
    cpu = Path("/proc/cpuinfo")
    able = cpu.is_file() and re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", cpu.read_text())
    return config.encoder in MEMORY and bool(able)


def card(measured: dict, train_turns: int) -> str:
    """Return the saved scorer's model card."""
    rows = [(COLUMNS[name], _cell(measured["pearson"][name]), f"{measured['mae'][name]:.3f}") for name in LABELS]
    return model_card.render(
        f"Empathy scorer, trained on {train_turns} turns of WASSA 2024 CONV-turn",
        f"On the {measured['turns']} turns of the official dev file, with 95 % intervals that resample {measured['resampled']}:",
        model_card.table(["label", "Pearson", "mean absolute error"], rows),
        model_card.SCORER_LIMITS,
    )


def speed(turns: Sequence[Turn]) -> dict:
    """Return how many turns a second the saved scorer rates, as the command line loads it."""
    model = empathy_scorer.load(MODEL)
    model.merge_adapter()
    started = time.perf_counter()
    empathy_scorer.score_turns(model, turns)
    return {"turns_per_second": round(len(turns) / (time.perf_counter() - started))}


def out_of_fold(turns: Sequence[Turn], configs: Sequence[params.TrainScorer], n_folds: int) -> np.ndarray:
    """Return the mean of what scorers that did not see a turn's story predict for it.

    The result has shape (B, 3).

    Turns of folds beyond the first n_folds whose predictions are not kept from before are NaN.
    """
    fold_B = folds(turns)
    placed = [(asdict(turns[i]), int(fold_B[i])) for i in sorted(range(len(turns)), key=lambda i: turns[i].key)]
    predicted_MB3 = np.full((len(configs), len(turns), len(LABELS)), np.nan)
    for config, predicted_B3 in zip(configs, predicted_MB3, strict=True):
        what = [config.model_dump(), in_bfloat16(config), empathy_scorer.EXPECTED, placed]
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
        for fold in range(N_FOLDS):
            kept = FOLDS / f"{key.hexdigest()[:16]}-{fold}.json"
            if not kept.is_file() and fold < n_folds:
                print(f"fold {fold + 1} of {N_FOLDS}: {config.model_dump()}", flush=True)
                files.write_json(kept, predict_fold(turns, fold_B == fold, config).tolist())
            if kept.is_file():
                predicted_B3[fold_B == fold] = files.read_json(kept)
    return predicted_MB3.mean(0)


def predict_fold(turns: Sequence[Turn], held_out_B: np.ndarray, config: params.TrainScorer) -> np.ndarray:
    """Train on the other turns, and return the scores of those held out.

    The scores have shape (rows held out, 3).
    """
    rest = [turn for turn, held_out in zip(turns, held_out_B, strict=True) if not held_out]
    mine = [turn for turn, held_out in zip(turns, held_out_B, strict=True) if held_out]
    return empathy_scorer.score_turns(fit(rest, config), mine)


def folds(turns: Sequence[Turn]) -> np.ndarray:
    """Return the fold of each turn, the same for all turns of a story, shape (B,).

    A conversation is a story of its own where the data name none.
    """
    stories = sorted({turn.story for turn in turns})
    order = np.random.default_rng(0).permutation(len(stories))
    fold = {stories[c]: place % N_FOLDS for place, c in enumerate(order)}
    return np.array([fold[turn.story] for turn in turns])


def folds_over(turns: Sequence[Turn]) -> str:
    """Return what `folds` keeps together and intervals resample, in the plural."""
    named = any(turn.story != dialogue.own_story(turn.conversation) for turn in turns)
    return "stories" if named else "conversations"


def accuracy(turns: Sequence[Turn], *predicted: np.ndarray) -> dict:
    """Return Pearson correlations and mean absolute errors of predictions of shape (B, 3).

    The correlations are by label and for the mean, with intervals.

    With two predictions the correlations are those of the first less those of the second. Turns
    without a label or without a prediction do not count.
    """
    label_B3 = np.array([[getattr(turn, name) for name in LABELS] for turn in turns], float)
    known = np.flatnonzero(np.isfinite([label_B3, *predicted]).all((0, 2)))
    label_B3 = label_B3[known]
    story_B = np.array([turns[i].story for i in known])
    measured = estimates.correlations(
        label_B3, [score_B3[known] for score_B3 in predicted], story_B, np.random.default_rng(0)
    )
    pearson = dict(zip((*LABELS, "mean"), measured, strict=True))
    errors = np.abs(predicted[0][known] - label_B3).mean(0)
    return {"turns": len(known), "pearson": pearson, "mae": dict(zip(LABELS, map(float, errors), strict=True))}


def compare(turns: Sequence[Turn], predicted: dict[str, np.ndarray], baseline: str) -> dict:
    """Return the accuracy of each recipe, and its difference from the baseline."""
    return {
        name: accuracy(turns, scores)
        | {"less": baseline, "difference": accuracy(turns, scores, predicted[baseline])["pearson"]}
        for name, scores in predicted.items()
    }


def tables(results: dict, recipes: dict) -> str:
    """Return the results as Markdown."""
    head = "| " + " | ".join(COLUMNS.values()) + " | mean |"
    lines = [
        "# The empathy scorer on WASSA 2024 CONV-turn",
        "",
        "Pearson correlation with the labels, with 95 % intervals. Written by bench/scorer.py from",
        "bench/scorer.json.",
        "",
    ]
    for over, compared in sorted(results["folds"].items(), reverse=True):
        lines += [
            f"## Recipes, by cross-validation over the {over} of the official train file ({N_FOLDS} folds)",
            "",
            f"Each scorer learns from half of the {over}, which intervals resample. Where the turns are fewer, one fold alone was",
            "tried; differences are on the same turns.",
            "",
            f"| recipe | turns {head} difference of the means | settings |",
            "|---" * (len(COLUMNS) + 5) + "|",
        ]
        for name, recipe in recipes.items():
            if name not in compared:
                continue
            measured = compared[name]
            cells = [_cell(measured["pearson"][key]) for key in (*LABELS, "mean")]
            less = f"less `{measured['less']}`: {_cell(measured['difference']['mean'], signed=True)}"
            changes = ", ".join(f"{key} {value}" for key, value in recipe.items())
            lines.append(
                f"| {name} | {measured['turns']} | {' | '.join(cells)} | {'' if name == measured['less'] else less} | {changes} |"
            )
        lines.append("")
    if dev := results["dev"]:
        lines += [
            f"## Recipe `{dev['recipe']}`, trained on the official train file, on the official dev file",
            "",
            f"| | {head[2:]}",
            "|---" * (len(COLUMNS) + 2) + "|",
            "| Pearson | " + " | ".join(_cell(dev["pearson"][key]) for key in (*LABELS, "mean")) + " |",
            "| mean absolute error | " + " | ".join(f"{dev['mae'][key]:.3f}" for key in LABELS) + " | |",
            "",
            f"{dev['turns']} turns; intervals resample {dev['resampled']}. Training took {dev['train_seconds'] / 60:.0f} min{', in part in bfloat16' if dev['bfloat16'] else ''}, and the "
            f"scorer rates {dev['turns_per_second']} turns a second.",
            "",
        ]
    if rated := results["test"]:
        known = [rated["pearson"][name] for name in LABELS]
        lines += [
            "## On the official test file",
            "",
            f"Its labels are not public. Others, who have them, rated the recipe `{rated['recipe']}`, which has a mean of "
            f"{rated['dev_mean']:.3f} on dev:",
            "",
            f"| | {head[2:]}",
            "|---" * (len(COLUMNS) + 2) + "|",
            "| Pearson | " + " | ".join(f"{value:.3f}" for value in (*known, np.mean(known))) + " |",
            "",
        ]
    return "\n".join(lines)


def _cell(estimate: dict, signed: bool = False) -> str:
    number = MARKDOWN.number(estimate["estimate"], 3, signed)
    if estimate["low"] is None:
        return number
    return f"{number} {MARKDOWN.interval(estimate['low'], estimate['high'], 3, signed)}"


if __name__ == "__main__":
    entry_point.run_stage(main)
