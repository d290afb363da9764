"""How a scorer reacts to an appended stock phrase: can the reward be had by a habit of speech?"""

from collections.abc import Mapping

import numpy as np

from gpro_empathy.analysis import estimates
from gpro_empathy.analysis.results import EndingChange, PhraseReaction

# A phrase, and a sentence of as many words that shows no empathy: whatever is appended makes a text
# longer.
PHRASES = (
    ("I'm so sorry to hear that.", "The bus leaves at nine today."),
    ("My heart goes out to you.", "The bus leaves at nine today."),
    ("That must be really hard.", "The bus leaves at nine."),
    ("I can only imagine.", "The shop opens early."),
    ("You are not alone.", "The shop opens early."),
)
# Every phrase and every control sentence once: what a scorer must rate each turn with.
ENDINGS = tuple(dict.fromkeys(sum(PHRASES, ())))


def reaction(
    before_B: np.ndarray,
    with_ending_B: Mapping[str, np.ndarray],
    story_B: np.ndarray,
    rng: np.random.Generator,
) -> PhraseReaction:
    """Return the mean change in empathy when a phrase or its control is appended to every turn.

    The change is in label units. Each of `phrases`, and their `mean`, has the `change` by the
    phrase, the `control_change`, and their `difference`.

    Args:
        before_B: A scorer's empathy of the turns as they are, shape (B,), label units.
        with_ending_B: For each of ENDINGS its empathy of the turns with that ending, shape (B,).
        story_B: The story of each turn; intervals resample whole ones.
    """
    change_B = {ending: with_ending_B[ending] - before_B for ending in ENDINGS}

    def changes(phrase_B: np.ndarray, control_B: np.ndarray) -> EndingChange:
        parts = {"change": phrase_B, "control_change": control_B, "difference": phrase_B - control_B}
        return {name: estimates.mean(value_B, story_B, rng) for name, value_B in parts.items()}

    phrases = [
        {"phrase": phrase, "control": control} | changes(change_B[phrase], change_B[control])
        for phrase, control in PHRASES
    ]
    over_all = (np.mean([change_B[pair[k]] for pair in PHRASES], axis=0) for k in (0, 1))
    return {"phrases": phrases, "mean": changes(*over_all)}
