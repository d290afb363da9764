"""The kinds of stored scorers: an encoder's (`empathy_scorer`), and the lexical one.

Apart from both, since GRPO loads an encoder's alone and must not go stale with the other.
"""

from pathlib import Path

from gpro_empathy import files
from gpro_empathy.scorer import empathy_scorer, lexical_scorer


def load(folder: Path) -> empathy_scorer.Rater:
    """Load a stored scorer of the kind that its settings name; an encoder's name none.

    Raises:
        UserError: If the folder is no scorer of that kind, naming what differs.
    """
    settings = files.read_json(folder / empathy_scorer.SETTINGS)
    if isinstance(settings, dict) and "kind" in settings:
        return lexical_scorer.load(folder)
    return empathy_scorer.load(folder)
