"""Train the empathy scorer that rewards, and a second one that only audits.

Both learn from training conversations, each from its own: the second sees none that the first saw.

Reads   data/prepared/{train,validation,test}.jsonl
Writes  models/scorer/                  the reward's scorer, with a model card
        models/audit_scorer/            the second one
        reports/scorer.json             accuracy, calibration, reaction to stock phrases, the leak of a split by turn
        reports/scorer_predictions.csv  label and both predictions of every test turn
"""

import copy
from pathlib import Path

import numpy as np

from gpro_empathy import entry_point, files, params
from gpro_empathy.analysis import scorer_accuracy, split_leak
from gpro_empathy.data import dialogue
from gpro_empathy.scorer import empathy_scorer, fitting, model_card

PREPARED = Path("data/prepared")
FOLDERS = {"reward": Path("models/scorer"), "audit": Path("models/audit_scorer")}
REPORT = Path("reports/scorer.json")
PREDICTIONS = Path("reports/scorer_predictions.csv")


@entry_point.in_one_line("train_scorer")
def main() -> None:
    """Run the stage."""
    config = params.load(params.TrainScorer)
    splits = {name: dialogue.read_turns(PREPARED / f"{name}.jsonl") for name in ("train", "validation", "test")}
    halves = scorer_accuracy.disjoint_halves(splits["train"], config)
    scorers = {}
    for number, (role, turns) in enumerate(halves.items()):
        print(f"{role} scorer: {len(turns)} turns")
        scorers[role] = fitting.train(turns, config, seed=config.seed + number)
    rng = np.random.default_rng(config.seed)
    fast = copy.deepcopy(scorers)  # what is saved keeps its LoRA matrices
    for model in fast.values():
        model.merge_adapter()
    report, predictions = scorer_accuracy.compare(fast, halves, splits, config.encoder, rng)
    report["leak"] = split_leak.measure(fast["reward"], halves["reward"], splits["test"], config)
    for number, (role, turns) in enumerate(halves.items()):
        settings = fitting.describe(turns, config, seed=config.seed + number) | {"role": role}
        empathy_scorer.save(scorers[role], FOLDERS[role], settings, model_card.write(settings, report[role]))
    files.write_json(REPORT, report)
    files.write_text(PREDICTIONS, predictions)


if __name__ == "__main__":
    files.run_stage(main)
