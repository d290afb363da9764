"""How good the two scorers are: against the labels, and against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpro_empathy import csv_table
from gpro_empathy.analysis import effects, scorer_reliability, stock_phrases
from gpro_empathy.analysis.results import Agreement
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.labels import EMPATHY, LABELS

COLUMNS = ("conversation", "turn", "label_empathy", "predicted_empathy", "audit_empathy")


@dataclass(frozen=True)
class Predictions:
    """What a scorer says of the held-out turns, label units.

    `validation_B3` and `test_B3` are the labels of the turns of these splits; `with_ending_B` is
    the empathy of the test turns with each of `stock_phrases.ENDINGS` appended.
    """

    validation_B3: np.ndarray
    test_B3: np.ndarray
    with_ending_B: Mapping[str, np.ndarray]


def report(
    predictions: Mapping[str, Predictions],
    trained_on: Mapping[str, Sequence[Turn]],
    splits: Mapping[str, Sequence[Turn]],
    rng: np.random.Generator,
) -> dict:
    """Return the accuracy of both scorers by role, "reward" and "audit", and their agreement.

    Args:
        predictions: By role, of the turns of `splits`.
        trained_on: By role, the turns that the scorer learned from.
        splits: The held-out turns, "validation" and "test".
    """
    test = splits["test"]
    story_B = np.array([turn.story for turn in test])
    result: dict = {}
    for role, predicted in predictions.items():
        empathy_B = predicted.test_B3[:, EMPATHY]
        result[role] = {
            "train_turns": len(trained_on[role]),
            "train_stories": len({turn.story for turn in trained_on[role]}),
            "train_conversations": len({turn.conversation for turn in trained_on[role]}),
            "validation": evaluate(splits["validation"], predicted.validation_B3),
            "test": evaluate(test, predicted.test_B3),
            "calibration": scorer_reliability.calibration(test, empathy_B, rng),
            "stock_phrases": stock_phrases.reaction(empathy_B, predicted.with_ending_B, story_B, rng),
        }
    reward_B, audit_B = (predictions[role].test_B3[:, EMPATHY] for role in ("reward", "audit"))
    return result | {"agreement": agreement(reward_B, audit_B)}


def table(turns: Sequence[Turn], reward_B: np.ndarray, audit_B: np.ndarray) -> str:
    """Return the label and both predictions of empathy of every turn, as CSV."""
    rows = [
        (
            turn.conversation,
            turn.turn,
            "" if turn.empathy is None else f"{turn.empathy:g}",
            f"{reward:.6f}",
            f"{audit:.6f}",
        )
        for turn, reward, audit in zip(turns, reward_B, audit_B, strict=True)
    ]
    return csv_table.text(COLUMNS, [dict(zip(COLUMNS, row, strict=True)) for row in rows])


def agreement(reward_B: np.ndarray, audit_B: np.ndarray) -> Agreement:
    """Return how far two predictions of empathy agree.

    These are their correlation, mean absolute difference and limits of agreement. Between the
    limits, in label units, lie 95 % of the differences (reward's less audit's), if they are normal.

    Source:
        Bland & Altman (1986), Statistical methods for assessing agreement between two methods of
        clinical measurement.
    """
    difference_B = reward_B - audit_B
    reach = 1.96 * float(difference_B.std(ddof=1)) if len(difference_B) > 1 else 0.0
    return {
        "pearson_empathy": effects.pearson(reward_B, audit_B),
        "mean_absolute_difference": float(np.abs(difference_B).mean()),
        "mean_difference": float(difference_B.mean()),
        "limit_low": float(difference_B.mean()) - reach,
        "limit_high": float(difference_B.mean()) + reach,
    }


def evaluate(turns: Sequence[Turn], predicted_B3: np.ndarray) -> dict:
    """Return Pearson correlation and mean absolute error by label, and the mean correlation.

    A correlation is None where it is not defined: fewer than three labelled turns, or no spread. A
    label that the scorer has not learned (NaN) has no numbers.

    Args:
        predicted_B3: What a scorer says of the turns, shape (B, 3), label units.
    """
    result: dict = {"turns": len(turns)}
    for column, name in enumerate(LABELS):
        learned_B = ~np.isnan(predicted_B3[:, column])
        known = [i for i, turn in enumerate(turns) if getattr(turn, name) is not None and learned_B[i]]
        label_B = np.array([getattr(turns[i], name) for i in known])
        result[name] = {
            "pearson": effects.pearson(label_B, predicted_B3[known, column]),
            "mae": float(np.abs(label_B - predicted_B3[known, column]).mean()) if known else None,
        }
    correlations = [result[name]["pearson"] for name in LABELS]
    result["mean_pearson"] = None if None in correlations else float(np.mean(correlations))
    return result
