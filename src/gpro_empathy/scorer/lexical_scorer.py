"""The held-out scorer: a linear model on words, their pieces, a lexicon and style.

It is another kind than the reward's scorer, so that the two share no encoder and what one misreads
need not fool the other. A text is a vector of TF-IDF weights of its words and pairs of words, of
those of the pieces of its words, and of a few measures of style, of which the valence of its words
comes from the lexicon of VADER (Hutto & Gilbert 2014, ICWSM). Module `lexical_fitting` trains it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from gpro_empathy import files
from gpro_empathy.data import dialogue
from gpro_empathy.files import UserError
from gpro_empathy.labels import LABELS
from gpro_empathy.scorer import empathy_scorer, windows
from gpro_empathy.scorer import encoder as scorer_encoder

KIND, FORMAT = "lexical", "lexical-1"
EXPECTED = {"kind": KIND, "format": FORMAT, "labels": list(LABELS), "normalisation": windows.NORMALISATION}
SETTINGS, VOCABULARY, WEIGHTS = empathy_scorer.SETTINGS, "vocabulary.json", "weights.safetensors"
# A term that stands in one training text alone is not learned: nothing tells it from its text.
FEWEST_TEXTS = 2
VECTORIZERS = {
    "words": {"ngram_range": (1, 2), "token_pattern": r"\w[\w']*|[?!]"},
    "pieces": {"ngram_range": (2, 5), "analyzer": "char_wb"},
}
PERSONS = (
    {"i", "me", "my", "mine", "myself", "i'm", "i've", "i'd", "i'll"},
    {"we", "us", "our", "ours", "ourselves", "we're", "we've", "we'd", "we'll"},
    {"you", "your", "yours", "yourself", "you're", "you've", "you'd", "you'll"},
    {"he", "him", "his", "she", "her", "hers", "they", "them", "their", "theirs"},
)
# Weight of a measure of style, one standard deviation, beside TF-IDF vectors of length 1.
STYLE_WEIGHT = 0.1
_WORD = re.compile(r"\w[\w']*")


@dataclass(frozen=True)
class Features:
    """What a text is to the scorer: TF-IDF of `words` and `pieces`, and standardised style."""

    words: TfidfVectorizer
    pieces: TfidfVectorizer
    style_mean: np.ndarray
    style_sd: np.ndarray

    @classmethod
    def learn(cls, texts: Sequence[str]) -> "Features":
        """Take terms and their weights from texts, and the mean and spread of their style.

        Raises:
            UserError: If no word stands in two of them.
        """
        plain = _plain(texts)
        try:
            words, pieces = (_vectorizer(name, min_df=FEWEST_TEXTS).fit(plain) for name in VECTORIZERS)
        except ValueError:  # after pruning, no terms remain
            raise UserError(
                f"train_scorer: no word stands in {FEWEST_TEXTS} of {len(texts)} training turns of the held-out scorer; "
                "raise train_scorer.audit_fraction, or give more turns"
            ) from None
        style_BF = _style(plain)
        sd = style_BF.std(0)
        return cls(words, pieces, style_BF.mean(0), np.where(sd > 0, sd, 1.0))

    def of(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Return the features of texts, shape (B, N)."""
        plain = _plain(texts)
        style_BF = STYLE_WEIGHT * (_style(plain) - self.style_mean) / self.style_sd
        parts = [self.words.transform(plain), self.pieces.transform(plain), sparse.csr_matrix(style_BF)]
        return sparse.hstack(parts, format="csr")


@dataclass(frozen=True)
class LexicalScorer:
    """Rates texts, each by itself. Labels are in label units; see `dialogue.RANGES`.

    The intercept of a label that was not learned is NaN.
    """

    features: Features
    weights_3N: np.ndarray
    intercept_3: np.ndarray

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
        return self.features.of(texts) @ self.weights_3N.T + self.intercept_3

    def merge_adapter(self) -> None:
        """Do nothing: where `empathy_scorer.Scorer` becomes faster, this one has no adapter."""


def save(scorer: LexicalScorer, folder: Path, settings: Mapping, card: str) -> None:
    """Save a scorer, its settings and its model card to `folder`, atomically.

    Args:
        settings: How it was trained, and what for.
    """
    features = scorer.features
    with files.atomic_path(folder) as temporary:
        temporary.mkdir()
        files.write_json(temporary / SETTINGS, EXPECTED | settings)
        terms = {name: list(getattr(features, name).get_feature_names_out()) for name in VECTORIZERS}
        files.write_json(temporary / VOCABULARY, terms)
        save_file(
            {
                "words_idf": features.words.idf_,
                "pieces_idf": features.pieces.idf_,
                "style_mean": features.style_mean,
                "style_sd": features.style_sd,
                "weights": np.ascontiguousarray(scorer.weights_3N),
                "intercept": scorer.intercept_3,
            },
            temporary / WEIGHTS,
        )
        files.write_text(temporary / "README.md", card)


def load(folder: Path) -> LexicalScorer:
    """Load a scorer that `save` wrote.

    Raises:
        UserError: If the folder is no scorer of this format, or a file is missing or damaged.
    """
    remedy = f"delete {folder} and train it anew, the pipeline's with `dvc repro`"
    empathy_scorer.check(folder / SETTINGS, EXPECTED)
    terms = _read_terms(folder / VOCABULARY, remedy)
    stored = {name: value.numpy() for name, value in scorer_encoder.tensors(folder / WEIGHTS, remedy).items()}
    words, pieces, style = len(terms["words"]), len(terms["pieces"]), _style([""]).shape[1]
    expected = {
        "words_idf": (words,),
        "pieces_idf": (pieces,),
        "style_mean": (style,),
        "style_sd": (style,),
        "weights": (len(LABELS), words + pieces + style),
        "intercept": (len(LABELS),),
    }
    if scorer_encoder.shapes(stored) != expected:
        raise UserError(f"{folder / WEIGHTS}: does not fit {VOCABULARY} beside it; {remedy}")
    vectorizers = {name: _vectorizer(name, vocabulary=terms[name]) for name in VECTORIZERS}
    for name, vectorizer in vectorizers.items():
        vectorizer.idf_ = stored[f"{name}_idf"]
    features = Features(**vectorizers, style_mean=stored["style_mean"], style_sd=stored["style_sd"])
    return LexicalScorer(features, stored["weights"], stored["intercept"])


def _read_terms(path: Path, remedy: str) -> dict[str, list[str]]:
    terms = files.read_json(path)
    for name in VECTORIZERS:
        found = terms.get(name) if isinstance(terms, dict) else None
        if not (isinstance(found, list) and found and all(isinstance(term, str) for term in found)):
            raise UserError(f"{path}: {name} is no list of terms; {remedy}")
        if len(set(found)) < len(found):
            raise UserError(f"{path}: a term of {name} stands in it twice; {remedy}")
    return terms


def _vectorizer(name: str, **settings) -> TfidfVectorizer:
    return TfidfVectorizer(sublinear_tf=True, **VECTORIZERS[name], **settings)


def _plain(texts: Sequence[str]) -> list[str]:
    """Return texts as they are read: normalised, in lower case, with plain apostrophes."""
    return [dialogue.normalise(text).lower().replace("\u2019", "'") for text in texts]


def _style(texts: Sequence[str]) -> np.ndarray:
    """Return measures of style of plain texts, shape (B, F).

    They are, per word, the valence of good words and of bad ones, the shares of both and of words
    for each person; the logarithms of both sums of valence and of the length; and whether the text
    asks or exclaims.
    """
    valence = _valence()
    rows = []
    for text in texts:
        words = _WORD.findall(text)
        values = np.array([valence.get(word, 0.0) for word in words] or [0.0])
        good, bad, total = values[values > 0].sum(), -values[values < 0].sum(), len(values)
        persons = [sum(word in person for word in words) / total for person in PERSONS]
        shares = [good / total, bad / total, (values > 0).mean(), (values < 0).mean(), *persons]
        rows.append([*shares, *np.log1p([good, bad, len(words)]), "?" in text, "!" in text])
    return np.array(rows, float)


@cache
def _valence() -> dict[str, float]:
    """Return the valence of the words of VADER's lexicon, from -4 (bad) to 4 (good)."""
    return SentimentIntensityAnalyzer().lexicon
