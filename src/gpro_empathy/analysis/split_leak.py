"""The leak of a split by turn, measured: one recipe, with and without other turns of the conversations that are tested.

The published scorer was validated on turns drawn at random, so that every tested conversation also had turns in training. Here the
turns of the test conversations are halved at random. A scorer trained on one half, and on as many other turns as give
it the reward's number, rates the other half, and so does the reward's scorer, which saw none of these conversations.
"""

from collections.abc import Sequence

import numpy as np

from gpro_empathy import params
from gpro_empathy.analysis import estimates
from gpro_empathy.data.dialogue import LABELS, Turn
from gpro_empathy.scorer import empathy_scorer, fitting


def measure(
    model: empathy_scorer.Scorer, train: Sequence[Turn], test: Sequence[Turn], config: params.TrainScorer
) -> dict | None:
    """Train the leaking scorer and compare it with the reward's on the same held-out turns.

    Returns None where the test conversations stand in training already, or none of them has two turns.

    Args:
        model, train: The reward's scorer and the turns that it was trained on.
    """
    conversations = {turn.conversation for turn in test}
    if conversations & {turn.conversation for turn in train} or len(conversations) == len(test):
        return None
    rng = np.random.default_rng(config.seed)
    leaking, held_out = split(train, test, rng)
    print(f"scorer of a split by turn: {len(leaking)} turns")
    other = fitting.train(leaking, config, seed=config.seed)
    held_out = [turn for turn in held_out if all(getattr(turn, name) is not None for name in LABELS)]
    texts, contexts = [turn.text for turn in held_out], [turn.context for turn in held_out]
    label_B3 = np.array([[getattr(turn, name) for name in LABELS] for turn in held_out]).reshape(-1, len(LABELS))
    conversation_B = np.array([turn.conversation for turn in held_out])
    grouped_B3, leaking_B3 = (one.score(texts, contexts) for one in (model, other))
    return {
        "train_turns": len(leaking),
        "held_out_turns": len(held_out),
        "held_out_conversations": len(set(conversation_B.tolist())),
    } | compare(label_B3, grouped_B3, leaking_B3, conversation_B, rng)


def split(train: Sequence[Turn], test: Sequence[Turn], rng: np.random.Generator) -> tuple[list[Turn], list[Turn]]:
    """Return the turns that the leaking scorer learns from, as many as `train`, and the held-out half of `test`."""
    by_conversation: dict[str, list[Turn]] = {}
    for turn in test:
        by_conversation.setdefault(turn.conversation, []).append(turn)
    seen, held_out = [], []
    for turns in by_conversation.values():
        order = rng.permutation(len(turns))
        # Of an odd number the larger part is held out; a single turn is held out too.
        seen += [turns[i] for i in sorted(order[: len(turns) // 2])]
        held_out += [turns[i] for i in sorted(order[len(turns) // 2 :])]
    kept = sorted(rng.permutation(len(train))[: max(0, len(train) - len(seen))])
    return [*(train[i] for i in kept), *seen[: len(train)]], held_out


def compare(
    label_B3: np.ndarray,
    grouped_B3: np.ndarray,
    leaking_B3: np.ndarray,
    conversation_B: np.ndarray,
    rng: np.random.Generator,
) -> dict:
    """Return Pearson correlations of both predictions with the labels, and their difference with an interval.

    `labels` has them for each label, `mean` for the mean over labels: `grouped`, `by_turn`, `difference` (by turn less grouped).
    The interval resamples conversations; it holds nothing of the spread between trainings.
    """
    grouped, by_turn, difference = (
        estimates.correlations(label_B3, predicted, conversation_B, rng)
        for predicted in ([grouped_B3], [leaking_B3], [leaking_B3, grouped_B3])
    )
    rows = [
        {"grouped": ours["estimate"], "by_turn": theirs["estimate"], "difference": change}
        for ours, theirs, change in zip(grouped, by_turn, difference, strict=True)
    ]
    return {"labels": dict(zip(LABELS, rows, strict=False)), "mean": rows[-1]}
