"""Demonstrations of three approaches, and the approach model that they train, for tests."""

import dataclasses
from pathlib import Path

import numpy as np

from gpro_empathy import response_format
from gpro_empathy.scorer import approach

KINDS = {
    "share the sadness": ("they lost the farm number {}", "That is so sad for them, {}."),
    "share the smile": ("the goose ate my hat number {}", "Ha, that made me smile, {}."),
    "greet back": ("hello there number {}", "Hello, it is good to hear from you, {}."),
}


def demonstration(kind: str, i: int) -> dict[str, str]:
    """Return the i-th demonstration of an approach."""
    message, answer = (text.format(i) for text in KINDS[kind])
    row = {"concern": "it", "emotion": "sad", "intensity": 2, "approach": kind, "answer": answer}
    return {"utterance": message, "response": response_format.format_response(row)}


DEMONSTRATIONS = [demonstration(kind, i) for kind in KINDS for i in range(8)]


def quiet(line: str) -> None:
    """Print nothing of the training."""


def save(folder: Path) -> None:
    """Train the model, with 0.5 as the usual score of each approach, and save it."""
    usual = {name: np.full(len(KINDS), 0.5) for name in approach.USUAL}
    model = dataclasses.replace(approach.train(DEMONSTRATIONS, quiet), usual=usual)
    approach.save(model, folder, "An approach model for tests.")
