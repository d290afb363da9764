"""What a split by turn leaks, against one by story: a recipe with and without the tested stories.

The published scorer was validated on turns drawn at random, so that every tested conversation also
had turns in training. Here the turns of each test story are halved at random. A scorer trained on
one half, and on as many other turns as give it the reward's number, rates the other half, and so
does the reward's scorer, which saw none of these stories.
"""

from collections.abc import Sequence

import numpy as np

from gpro_empathy.analysis import estimates
from gpro_empathy.analysis.results import Leak, LeakComparison
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.labels import LABELS


def is_measurable(train: Sequence[Turn], test: Sequence[Turn]) -> bool:
    """Return whether no test story stands in training and one has two turns or more."""
    stories = {turn.story for turn in test}
    return not stories & {turn.story for turn in train} and len(stories) < len(test)


def split(train: Sequence[Turn], test: Sequence[Turn], rng: np.random.Generator) -> tuple[list[Turn], list[Turn]]:
    """Return the turns that the leaking scorer learns from, and the held-out half of `test`.

    It learns from as many as `train` has. Of the held-out half only turns that carry every label
    are returned.
    """
    by_story: dict[str, list[Turn]] = {}
    for turn in test:
        by_story.setdefault(turn.story, []).append(turn)
    seen, held_out = [], []
    for turns in by_story.values():
        order = rng.permutation(len(turns))
        # Of an odd number the larger part is held out; a single turn is held out too.
        seen += [turns[i] for i in sorted(order[: len(turns) // 2])]
        held_out += [turns[i] for i in sorted(order[len(turns) // 2 :])]
    kept = sorted(rng.permutation(len(train))[: max(0, len(train) - len(seen))])
    labelled = [turn for turn in held_out if all(getattr(turn, name) is not None for name in LABELS)]
    return [*(train[i] for i in kept), *seen[: len(train)]], labelled


def report(
    leaking: Sequence[Turn],
    held_out: Sequence[Turn],
    grouped_B3: np.ndarray,
    leaking_B3: np.ndarray,
    rng: np.random.Generator,
) -> Leak:
    """Return the sizes of the comparison and its result, see `compare`.

    Args:
        leaking, held_out: What `split` returned.
        grouped_B3, leaking_B3: What the reward's scorer and the leaking one say of the held-out
            turns, shape (B, 3).
        rng: The generator that `split` drew from.
    """
    label_B3 = np.array([[getattr(turn, name) for name in LABELS] for turn in held_out]).reshape(-1, len(LABELS))
    story_B = np.array([turn.story for turn in held_out])
    return {
        "train_turns": len(leaking),
        "held_out_turns": len(held_out),
        "held_out_conversations": len({turn.conversation for turn in held_out}),
        "held_out_stories": len(set(story_B.tolist())),
    } | compare(label_B3, grouped_B3, leaking_B3, story_B, rng)


def compare(
    label_B3: np.ndarray,
    grouped_B3: np.ndarray,
    leaking_B3: np.ndarray,
    story_B: np.ndarray,
    rng: np.random.Generator,
) -> LeakComparison:
    """Return both predictions' correlations with the labels, and their difference.

    The correlations are Pearson's, and the difference has an interval. `labels` has them for each
    label, `mean` for the mean over labels: `grouped`, `by_turn`, `difference` (by turn less
    grouped). The interval resamples stories; it holds nothing of the spread between
    trainings.
    """
    grouped, by_turn, difference = (
        estimates.correlations(label_B3, predicted, story_B, rng)
        for predicted in ([grouped_B3], [leaking_B3], [leaking_B3, grouped_B3])
    )
    rows = [
        {"grouped": grouped_row["estimate"], "by_turn": by_turn_row["estimate"], "difference": difference_row}
        for grouped_row, by_turn_row, difference_row in zip(grouped, by_turn, difference, strict=True)
    ]
    return {"labels": dict(zip(LABELS, rows, strict=False)), "mean": rows[-1]}
