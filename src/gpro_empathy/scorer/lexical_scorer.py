"""The held-out scorer: a linear model on words, their pieces, a lexicon and style.

It is another kind than the reward's scorer, so that the two share no encoder and what one misreads
need not fool the other. Module `lexical_fitting` trains it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpro_empathy import files
from gpro_empathy.labels import LABELS
from gpro_empathy.scorer import empathy_scorer, lexical_features, windows
from gpro_empathy.scorer.lexical_features import Features, Linear

KIND, FORMAT = "lexical", "lexical-2"
EXPECTED = {"kind": KIND, "format": FORMAT, "labels": list(LABELS), "normalisation": windows.NORMALISATION}
SETTINGS = empathy_scorer.SETTINGS


@dataclass(frozen=True)
class LexicalScorer:
    """Rates texts, each by itself. Labels are in label units; see `dialogue.RANGES`.

    The intercept of a label that was not learned is NaN.
    """

    features: Features
    labels: Linear

    context_turns = 0

    def score(self, texts: Sequence[str], contexts: Sequence[Sequence[str]] | None = None) -> np.ndarray:
        """Return the labels (emotion, polarity, empathy) of texts, shape (B, 3), label units.

        Args:
            contexts: The turns before each text, which this scorer does not read.

        Raises:
            ValueError: If there are not as many contexts as texts.
        """
        if contexts is not None and len(contexts) != len(texts):
            raise ValueError(f"{len(texts)} texts and {len(contexts)} contexts")
        if not len(texts):
            return np.zeros((0, len(LABELS)))
        return self.labels(self.features.of(texts))

    def merge_adapter(self) -> None:
        """Do nothing: where `empathy_scorer.Scorer` becomes faster, this one has no adapter."""


def save(scorer: LexicalScorer, folder: Path, settings: Mapping, card: str) -> None:
    """Save a scorer, its settings and its model card to `folder`, atomically.

    Args:
        settings: How it was trained, and what for.
    """
    with files.atomic_path(folder) as temporary:
        temporary.mkdir()
        files.write_json(temporary / SETTINGS, EXPECTED | settings)
        lexical_features.store(temporary, scorer.features, {"labels": scorer.labels})
        files.write_text(temporary / "README.md", card)


def load(folder: Path) -> LexicalScorer:
    """Load a scorer that `save` wrote.

    Raises:
        UserError: If the folder is no scorer of this format, or a file is missing or damaged.
    """
    empathy_scorer.check(folder / SETTINGS, EXPECTED)
    remedy = f"delete {folder} and train it anew, the pipeline's with `dvc repro`"
    features, models = lexical_features.restore(folder, {"labels": len(LABELS)}, remedy)
    return LexicalScorer(features, models["labels"])
