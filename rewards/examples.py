"""Reward terms of one's own: change this file, or put others beside it."""

import numpy as np


def asks_back(utterances, responses):
    """Return 1 for an answer that ends with a question, else 0."""
    return np.array([float(response.answer.endswith("?")) for response in responses])
