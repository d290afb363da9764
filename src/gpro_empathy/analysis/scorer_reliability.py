"""How predicted empathy lies to labelled empathy: slope, reliability, and error.

The error is given by label, length and polarity. Bias by the label's own level is no fault by
itself: any prediction that is not perfect is drawn to the mean, so that low labels are overrated
and high ones underrated, and with them the polarities that go with them. Bias by length is one.
"""

from collections.abc import Sequence

import numpy as np

from gpro_empathy.analysis import estimates
from gpro_empathy.analysis.results import GroupError, Reliability, ReliabilityBin
from gpro_empathy.data.dialogue import Turn

BINS = 5


def calibration(turns: Sequence[Turn], predicted_B: np.ndarray, rng: np.random.Generator) -> Reliability:
    """Compare predictions with labels on turns whose empathy is labelled.

    Args:
        predicted_B: Predicted empathy of the turns, shape (B,), label units.

    Returns:
        `slope` of the label on the prediction (1: a point more in the prediction is a point more in
        the label); `reliability`, the mean label in BINS equally filled bins by prediction; and the
        bias (prediction less label) and mean absolute error `by_label`, `by_words` (tertiles) and
        `by_polarity`.
    """
    known = [i for i, turn in enumerate(turns) if turn.empathy is not None]
    turns, predicted_B = [turns[i] for i in known], predicted_B[known]
    label_B = np.array([turn.empathy for turn in turns], dtype=float)
    story_B = np.array([turn.story for turn in turns])
    error_B = predicted_B - label_B

    def errors(groups: dict[str, list[int]]) -> list[GroupError]:
        return [
            {
                "group": name,
                "turns": len(rows),
                "bias": estimates.mean(error_B[rows], story_B[rows], rng),
                "mae": float(np.abs(error_B[rows]).mean()),
            }
            for name, rows in groups.items()
        ]

    moment_BK = estimates.moments(predicted_B, label_B)
    return {
        "slope": estimates.statistic(estimates.slope, moment_BK, story_B, rng),
        "reliability": _reliability(predicted_B, label_B, story_B, rng),
        "by_label": errors(_by_level([turn.empathy for turn in turns])),
        "by_words": errors(_by_words([len(turn.text.split()) for turn in turns])),
        "by_polarity": errors(_by_level([turn.polarity for turn in turns])),
    }


def _reliability(
    predicted_B: np.ndarray, label_B: np.ndarray, story_B: np.ndarray, rng: np.random.Generator
) -> list[ReliabilityBin]:
    order = np.lexsort([label_B, predicted_B])
    return [
        {
            "turns": len(rows),
            "predicted": float(predicted_B[rows].mean()),
            "labelled": estimates.mean(label_B[rows], story_B[rows], rng),
        }
        for rows in np.array_split(order, BINS)
        if len(rows)
    ]


def _by_level(values: Sequence[float | None]) -> dict[str, list[int]]:
    """Return the rows of each whole level, rounded half up, in its order.

    A row without a value is in none.
    """
    level = {i: int(value + 0.5) for i, value in enumerate(values) if value is not None}
    return {str(k): [i for i, of_row in level.items() if of_row == k] for k in sorted(set(level.values()))}


def _by_words(words: Sequence[int]) -> dict[str, list[int]]:
    """Return the rows of the shortest, middle and longest third.

    Each third is named by its fewest and most words.
    """
    if not words:
        return {}
    third = np.searchsorted(np.quantile(words, [1 / 3, 2 / 3]), words)
    parts = [np.flatnonzero(third == k).tolist() for k in range(3)]
    return {f"{min(words[i] for i in part)}-{max(words[i] for i in part)}": part for part in parts if part}
