"""Linear models of a text: what they see of it, and how they are stored.

A text is a vector of TF-IDF weights of its words and pairs of words, of those of the pieces of its
words, and of a few measures of style, of which the valence of its words comes from the lexicon of
VADER (Hutto & Gilbert 2014, ICWSM). Shapes: _B texts, _N features, _K outputs.
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
from gpro_empathy.scorer import encoder as scorer_encoder

VOCABULARY, WEIGHTS = "vocabulary.json", "weights.safetensors"
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
    """What a text is to a linear model: TF-IDF of `words` and `pieces`, and standardised style."""

    words: TfidfVectorizer
    pieces: TfidfVectorizer
    style_mean: np.ndarray
    style_sd: np.ndarray

    @classmethod
    def learn(cls, texts: Sequence[str]) -> "Features":
        """Take terms and their weights from texts, and the mean and spread of their style.

        Raises:
            ValueError: If no word stands in two of them.
        """
        plain = _plain(texts)
        words, pieces = (_vectorizer(name, min_df=FEWEST_TEXTS).fit(plain) for name in VECTORIZERS)
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
class Linear:
    """A linear model on features, with K outputs."""

    weights_KN: np.ndarray
    intercept_K: np.ndarray

    def __call__(self, features_BN: sparse.csr_matrix) -> np.ndarray:
        """Return the outputs, shape (B, K)."""
        return features_BN @ self.weights_KN.T + self.intercept_K


def store(folder: Path, features: Features, models: Mapping[str, Linear]) -> None:
    """Write features and the linear models on them into a folder."""
    terms = {name: list(getattr(features, name).get_feature_names_out()) for name in VECTORIZERS}
    files.write_json(folder / VOCABULARY, terms)
    arrays = {f"{name}_idf": getattr(features, name).idf_ for name in VECTORIZERS}
    arrays |= {"style_mean": features.style_mean, "style_sd": features.style_sd}
    for name, model in models.items():
        arrays |= {f"{name}_weights": np.ascontiguousarray(model.weights_KN), f"{name}_intercept": model.intercept_K}
    save_file(arrays, folder / WEIGHTS)


def restore(folder: Path, outputs: Mapping[str, int], remedy: str) -> tuple[Features, dict[str, Linear]]:
    """Read features and linear models that `store` wrote.

    Args:
        outputs: Number of outputs K of each model, by name.

    Raises:
        UserError: If a file is missing, damaged or does not fit; ends with the remedy.
    """
    terms = _read_terms(folder / VOCABULARY, remedy)
    stored = {name: value.numpy() for name, value in scorer_encoder.tensors(folder / WEIGHTS, remedy).items()}
    style = _style([""]).shape[1]
    expected = {f"{name}_idf": (len(terms[name]),) for name in VECTORIZERS} | {
        "style_mean": (style,),
        "style_sd": (style,),
    }
    for name, count in outputs.items():
        size = style + sum(len(terms[part]) for part in VECTORIZERS)
        expected |= {f"{name}_weights": (count, size), f"{name}_intercept": (count,)}
    if scorer_encoder.shapes(stored) != expected:
        raise UserError(f"{folder / WEIGHTS}: does not fit {VOCABULARY} beside it; {remedy}")
    vectorizers = {name: _vectorizer(name, vocabulary=terms[name]) for name in VECTORIZERS}
    for name, vectorizer in vectorizers.items():
        vectorizer.idf_ = stored[f"{name}_idf"]
    features = Features(**vectorizers, style_mean=stored["style_mean"], style_sd=stored["style_sd"])
    return features, {name: Linear(stored[f"{name}_weights"], stored[f"{name}_intercept"]) for name in outputs}


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
