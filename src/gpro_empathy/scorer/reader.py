"""The reader model: what a reader would say of an answer to a message, learned from readings.

It is a scorer whose labels are the marks of a reading, which reads the answer after the message.
Its encoder and most of its settings are those of the empathy scorer.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from gpro_empathy import params
from gpro_empathy.files import UserError
from gpro_empathy.labels import EMPATHETIC, HIGHEST, MARKS, SENSE
from gpro_empathy.scorer import empathy_scorer, fitting
from gpro_empathy.scorer.approach import ApproachModel
from gpro_empathy.scorer.empathy_scorer import Scorer

Reading = Mapping[str, object]


def train(
    readings: Sequence[Reading],
    config: params.TrainReader,
    encoder: params.TrainScorer,
    progress: Callable[[str], None] = print,
) -> Scorer:
    """Train the reader model on readings: utterance, answer and marks.

    Raises:
        UserError: If there is no reading, or a mark is the same in all.
    """
    marks_B2 = marks(readings)
    for name, mark_B in zip(MARKS, marks_B2.T, strict=True):
        if not len(mark_B) or (mark_B == mark_B[0]).all():
            raise UserError(
                f"train_reader: {name} takes fewer than two values in the {len(readings)} readings of training turns, so that "
                "nothing can be learned; add readings to readings.jsonl of prepare.embedded_folder"
            )
    torch.manual_seed(config.seed)
    reader = empathy_scorer.build(settings(config, encoder), MARKS)
    answers, contexts = _texts(readings)
    fitting.fit(reader, answers, contexts, marks_B2, settings(config, encoder), config.seed, progress, "reader")
    return reader


def settings(config: params.TrainReader, encoder: params.TrainScorer) -> params.TrainScorer:
    """Return the settings of the reader model's training: the scorer's, with its own put in."""
    return encoder.model_copy(
        update={"epochs": config.epochs, "batch_size": config.batch_size, "context_turns": 1, "seed": config.seed}
    )


def describe(readings: Sequence[Reading], config: params.TrainReader, encoder: params.TrainScorer) -> dict:
    """Return what `empathy_scorer.save` stores of a training."""
    used = settings(config, encoder)
    return {
        **{name: getattr(used, name) for name in ("encoder", "revision", "max_tokens", "context_turns")},
        "training": {
            **{name: getattr(used, name) for name in fitting.RECIPE},
            "readings": len(readings),
            "messages": len({reading["utterance"] for reading in readings}),
            "seed": config.seed,
        },
    }


def marks(readings: Sequence[Reading]) -> np.ndarray:
    """Return the marks of readings, shape (B, 2)."""
    return np.array([[reading[name] for name in MARKS] for reading in readings], float).reshape(-1, len(MARKS))


def accuracy(reader: Scorer, approach: ApproachModel, readings: Sequence[Reading]) -> dict | None:
    """Return how well both models tell apart what readers told apart; None without readings.

    Of a sensible (empathetic) answer and another one, the AUC is the probability that a model puts
    it higher: the reader model by that mark, the approach model by its match. It is None where all
    or none are.
    """
    if not readings:
        return None
    answers, contexts = _texts(readings)
    predicted_B2, read_B2 = reader.score(answers, contexts), marks(readings)
    match_B = approach.match([reading["utterance"] for reading in readings], answers)
    found = {"readings": len(readings)}
    for name, mark in (("sensible", SENSE), ("empathetic", EMPATHETIC)):
        positive_B = read_B2[:, mark] == HIGHEST[MARKS[mark]]
        aucs = {"auc": _auc(positive_B, predicted_B2[:, mark]), "approach_auc": _auc(positive_B, match_B)}
        found[name] = {"share": float(positive_B.mean()), **aucs}
    return found


def _auc(positive_B: np.ndarray, score_B: np.ndarray) -> float | None:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive_B, score_B)) if 0 < positive_B.sum() < len(positive_B) else None


def _texts(readings: Sequence[Reading]) -> tuple[list[str], list[tuple[str]]]:
    """Return the answers, and the message before each as its context."""
    return [reading["answer"] for reading in readings], [(reading["utterance"],) for reading in readings]
