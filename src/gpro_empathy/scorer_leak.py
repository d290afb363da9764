"""The leak of a split by turn, measured: one recipe, with and without other turns of the conversations that are tested.

The published scorer was validated on turns drawn at random, so that every tested conversation also had turns in training. Here the
turns of the test conversations are halved at random. A scorer trained on one half, and on as many other turns as give
it the reward's number, rates the other half, and so does the reward's scorer, which saw none of these conversations.
"""

from collections.abc import Sequence

import numpy as np

from gpro_empathy import estimates, params, scorer, scorer_training
from gpro_empathy.dialogue import LABELS, Turn


def measure(
    model: scorer.Scorer, train: Sequence[Turn], test: Sequence[Turn], config: params.TrainScorer
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
    other = scorer_training.train(leaking, config, seed=config.seed)
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
    n_labels = len(LABELS)
    parts = [(predicted_B3[:, k], label_B3[:, k]) for predicted_B3 in (grouped_B3, leaking_B3) for k in range(n_labels)]
    moment_BK = np.concatenate([estimates.moments(x_B, y_B) for x_B, y_B in parts], axis=1)

    def correlations(mean_RK: np.ndarray) -> np.ndarray:
        """Return them for both splits and all labels, shape (2, 3, R)."""
        pieces = np.split(mean_RK, 2 * n_labels, axis=1)
        return np.array([estimates.correlation(piece) for piece in pieces]).reshape(2, n_labels, -1)

    def row(columns: list[int]) -> dict:
        def of(mean_RK: np.ndarray) -> np.ndarray:
            return correlations(mean_RK)[:, columns].mean(axis=1)

        grouped, by_turn = of(moment_BK.mean(axis=0, keepdims=True))[:, 0]
        difference = estimates.statistic(lambda mean_RK: -np.subtract(*of(mean_RK)), moment_BK, conversation_B, rng)
        numbers = {"grouped": grouped, "by_turn": by_turn}
        return {k: None if np.isnan(v) else float(v) for k, v in numbers.items()} | {"difference": difference}

    return {"labels": {name: row([k]) for k, name in enumerate(LABELS)}, "mean": row(list(range(n_labels)))}
