"""Measure how good scorers and reader model are, and what a split by turn would have pretended.

Reads   data/prepared/{train,validation,test}.jsonl
        data/prepared/{readings,demonstrations}_{train,validation}.jsonl
        models/scorer/, models/audit_scorer/   the reward's scorer, and the one that only audits
        models/reader/, models/approach/       the reader model and the approach model
Writes  reports/scorer.json                    accuracy, calibration, stock phrases, leak of a split
        reports/scorer_predictions.csv         label and both predictions of every test turn
        reports/reader.json                    how well reader and approach model tell apart answers
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gpro_empathy import entry_point, files, params
from gpro_empathy.analysis import scorer_accuracy, split_leak, stock_phrases
from gpro_empathy.analysis.results import Leak
from gpro_empathy.analysis.scorer_accuracy import EMPATHY, Predictions
from gpro_empathy.data import dialogue
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.labels import MARKS
from gpro_empathy.scorer import approach, empathy_scorer, fitting, kinds, reader

PREPARED = Path("data/prepared")
FOLDERS = {"reward": Path("models/scorer"), "audit": Path("models/audit_scorer")}
REPORT = Path("reports/scorer.json")
PREDICTIONS = Path("reports/scorer_predictions.csv")
READER, APPROACH, READER_REPORT = Path("models/reader"), Path("models/approach"), Path("reports/reader.json")


def main() -> None:
    """Run the stage."""
    config = params.load(params.TrainScorer)
    splits = {name: dialogue.read_turns(PREPARED / f"{name}.jsonl") for name in ("train", "validation", "test")}
    trained_on = fitting.disjoint_halves(splits["train"], config)
    scorers = {role: kinds.load(folder) for role, folder in FOLDERS.items()}
    for scorer in scorers.values():
        scorer.merge_adapter()
    predictions = {role: predict(scorer, splits) for role, scorer in scorers.items()}
    report = scorer_accuracy.report(predictions, trained_on, splits, np.random.default_rng(config.seed))
    report |= {
        "encoder": config.encoder,
        "leak": measure_leak(scorers["reward"], trained_on["reward"], splits["test"], config),
    }
    files.write_json(REPORT, report)
    empathy_B = {role: predicted.test_B3[:, EMPATHY] for role, predicted in predictions.items()}
    files.write_text(PREDICTIONS, scorer_accuracy.table(splits["test"], empathy_B["reward"], empathy_B["audit"]))
    files.write_json(READER_REPORT, measure_reader())


def predict(scorer: empathy_scorer.Rater, splits: Mapping[str, Sequence[Turn]]) -> Predictions:
    """Return what a scorer says of the held-out turns, as they are and with stock phrases."""
    return Predictions(
        empathy_scorer.score_turns(scorer, splits["validation"]),
        empathy_scorer.score_turns(scorer, splits["test"]),
        {
            ending: empathy_scorer.score_turns(scorer, splits["test"], ending=f" {ending}")[:, EMPATHY]
            for ending in stock_phrases.ENDINGS
        },
    )


def measure_reader() -> dict:
    """Return what reader and approach model learned from, and their accuracy on validation."""
    rows = {
        what: {split: files.read_jsonl(PREPARED / f"{what}_{split}.jsonl") for split in ("train", "validation")}
        for what in ("readings", "demonstrations")
    }
    model, of_approaches = empathy_scorer.load(READER, MARKS), approach.load(APPROACH)
    model.merge_adapter()
    return {
        "trained_on": len(rows["readings"]["train"]),
        "validation": reader.accuracy(model, of_approaches, rows["readings"]["validation"]),
        "approach": {
            "trained_on": int(of_approaches.counts_K.sum()),
            "approaches": len(of_approaches.names),
            "averaged": approach.MOST_DEMONSTRATIONS,
            "commonest": of_approaches.names[int(of_approaches.counts_K.argmax())],
            "validation": approach.accuracy(of_approaches, rows["demonstrations"]["validation"]),
        },
    }


def measure_leak(
    scorer: empathy_scorer.Rater, train: Sequence[Turn], test: Sequence[Turn], config: params.TrainScorer
) -> Leak | None:
    """Train a scorer that saw turns of the test conversations, and compare it with the reward's.

    Returns None where that cannot be measured: see `split_leak.is_measurable`; or no held-out turn
    carries every label, or one of them cannot be learned.

    Args:
        scorer, train: The reward's scorer and the turns that it was trained on.
    """
    if not split_leak.is_measurable(train, test):
        return None
    rng = np.random.default_rng(config.seed)
    leaking, held_out = split_leak.split(train, test, rng)
    if not held_out:
        return None
    print(f"scorer of a split by turn: {len(leaking)} turns")
    leaking_scorer = fitting.train(leaking, config, seed=config.seed)
    grouped_B3, leaking_B3 = (empathy_scorer.score_turns(model, held_out) for model in (scorer, leaking_scorer))
    if np.isnan([grouped_B3, leaking_B3]).any():
        return None
    return split_leak.report(leaking, held_out, grouped_B3, leaking_B3, rng)


if __name__ == "__main__":
    entry_point.run_stage(main)
