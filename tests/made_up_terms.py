"""A reward term such as a user would write, in a module of its own."""

import numpy as np


def question(utterances, responses):
    """Return 1 for an answer that asks something."""
    return np.array([float(response.answer.endswith("?")) for response in responses])
