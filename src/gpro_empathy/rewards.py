"""Reward terms: functions from (utterances, answers) to raw scores, and their calibrated combination.

A term is a function or object called with `Response`s and the user's utterances, and returns one raw score each, in
its own unit. Any function of that form becomes a term by a line `module:function: weight` in params.yaml, and so
does a reward function in TRL's form, which takes `completions`.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gpro_empathy import calibration, params, response_format, text_measures
from gpro_empathy.files import UserError
from gpro_empathy.labels import EMPATHY
from gpro_empathy.response_format import Response

Term = Callable[[Sequence[str], Sequence[Response]], np.ndarray]


def well_formed(utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
    """Return 1 for a reply in the response format and 0 for any other."""
    return np.array([float(response.well_formed) for response in responses])


def repetition(utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
    """Return the share of distinct word bigrams in the answer: 1 where none is repeated."""
    return np.array([text_measures.distinct_n(response.answer, 2) for response in responses])


def overlap(utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
    """Return 1 minus the share of the answer's content words that stand in the user's message."""
    pairs = zip(utterances, responses, strict=True)
    return np.array([1.0 - text_measures.overlap(user, response.answer) for user, response in pairs])


@dataclass(frozen=True)
class Length:
    """1 up to `free` words in the answer, falling linearly to 0 at `limit` words."""

    free: int
    limit: int

    def __call__(self, utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
        words = np.array([len(response.answer.split()) for response in responses])
        return 1.0 - np.clip((words - self.free) / (self.limit - self.free), 0.0, 1.0)


@dataclass(frozen=True)
class Empathy:
    """The Empathy label that a trained scorer gives the answer, as a reply if it reads context; label units (0 to 5)."""

    scorer: object

    def __call__(self, utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
        contexts = [(utterance,) for utterance in utterances]
        scores_B3 = self.scorer.score([response.answer for response in responses], contexts)
        return scores_B3[:, EMPATHY]


@dataclass(frozen=True)
class SemanticSimilarity:
    """Similarity of the answer to the user's message, clipped to [0, 1], by a sentence-transformers model.

    A bi-encoder gives the cosine of the two embeddings (Reimers & Gurevych 2019), a cross-encoder a score of the pair.
    """

    model: object
    is_cross_encoder: bool

    def __call__(self, utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
        answers = [response.answer for response in responses]
        if self.is_cross_encoder:
            scores = self.model.predict(list(zip(utterances, answers, strict=True)), show_progress_bar=False)
        else:
            embeddings = self.model.encode([*utterances, *answers], normalize_embeddings=True, show_progress_bar=False)
            scores = (embeddings[: len(answers)] * embeddings[len(answers) :]).sum(1)
        return np.clip(np.asarray(scores, dtype=np.float64), 0.0, 1.0)


@dataclass(frozen=True)
class TrlReward:
    """A reward function in TRL's form: called with `prompts` and `completions`, both as lists of messages.

    Columns of a data set and token ids are not passed, as responses are also scored outside of training.

    Source:
        TRL's documentation of GRPOTrainer, "Using a custom reward function".
    """

    function: Callable[..., Sequence[float | None]]

    def __call__(self, utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
        prompts = [response_format.messages(utterance) for utterance in utterances]
        completions = [[{"role": "assistant", "content": response.text}] for response in responses]
        scores = self.function(prompts=prompts, completions=completions)
        return np.array(scores, dtype=np.float64)  # None, TRL's "does not apply", becomes NaN and is refused


def load_similarity(config: params.Rewards) -> SemanticSimilarity:
    """Load the configured similarity model.

    Raises:
        UserError: If it cannot be loaded.
    """
    import sentence_transformers

    from gpro_empathy import packaged_models

    is_cross_encoder = config.similarity_kind == "cross_encoder"
    kind = sentence_transformers.CrossEncoder if is_cross_encoder else sentence_transformers.SentenceTransformer
    name = config.similarity_model
    if name == packaged_models.MINILM:
        name = str(packaged_models.find(packaged_models.MINILM).parent)
    try:
        return SemanticSimilarity(kind(name, revision=config.similarity_revision), is_cross_encoder)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"rewards.similarity_model {config.similarity_model!r}: cannot load it ({reason})") from None


def _load_empathy(config: params.Rewards, scorer_folder: Path) -> Empathy:
    from gpro_empathy.scorer import empathy_scorer

    return Empathy(empathy_scorer.load(scorer_folder))


TERMS: dict[str, Callable[[params.Rewards, Path], Term]] = {
    "semantic_similarity": lambda config, scorer_folder: load_similarity(config),
    "empathy": _load_empathy,
    "well_formed": lambda config, scorer_folder: well_formed,
    "length": lambda config, scorer_folder: Length(config.free_words, config.limit_words),
    "repetition": lambda config, scorer_folder: repetition,
    "overlap": lambda config, scorer_folder: overlap,
}


@dataclass(frozen=True)
class Scores:
    """Scores of a batch, shape (B,) each: raw and calibrated by term, and their weighted means."""

    raw: dict[str, np.ndarray]
    batch: dict[str, np.ndarray]
    reference: dict[str, np.ndarray]
    combined_batch: np.ndarray
    combined_reference: np.ndarray


@dataclass(frozen=True)
class RewardModel:
    """The configured terms, loaded once, and how they are calibrated and combined.

    `reference` holds (mean, sd) of each calibrated term on responses of the starting policy, in raw units.
    """

    config: params.Rewards
    terms: Mapping[str, Term]
    reference: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def raw(self, utterances: Sequence[str], responses: Sequence[Response]) -> dict[str, np.ndarray]:
        """Return the raw scores by term, shape (B,) each.

        Raises:
            ValueError: If a term gives the wrong number of scores or one that is not finite, naming term and sample.
        """
        return {name: self._checked(name, term(utterances, responses), responses) for name, term in self.terms.items()}

    def score(self, utterances: Sequence[str], responses: Sequence[Response]) -> Scores:
        """Return every score of a batch; the batch's own statistics calibrate `batch`."""
        return self.combine(self.raw(utterances, responses))

    def combine(self, raw: dict[str, np.ndarray]) -> Scores:
        """Return every score that follows from raw ones."""
        temperature, weights = self.config.calibration_temperature, self.config.weights
        batch = calibration.calibrated(raw, temperature)
        reference = calibration.calibrated(raw, temperature, self.reference)
        return Scores(
            raw, batch, reference, calibration.combined(batch, weights), calibration.combined(reference, weights)
        )

    @staticmethod
    def _checked(name: str, values: np.ndarray, responses: Sequence[Response]) -> np.ndarray:
        values = np.asarray(values, dtype=np.float64)
        if values.shape != (len(responses),):
            raise ValueError(f"reward term {name} returned shape {values.shape} for {len(responses)} responses")
        if not np.isfinite(values).all():
            index = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(
                f"reward term {name} gave {values[index]} to sample {index} of the batch: {responses[index].text[:80]!r}"
            )
        return values


def load(config: params.Rewards, scorer_folder: Path) -> RewardModel:
    """Load the configured terms, without reference statistics.

    Raises:
        UserError: If a term is unknown, or a model that it needs cannot be loaded.
    """
    # The calibrated terms are always scored, so that runs that leave one out can be compared with the others.
    names = sorted({*config.weights, *calibration.CALIBRATED})
    return RewardModel(config, {name: _load_term(name, config, scorer_folder) for name in names})


def _load_term(name: str, config: params.Rewards, scorer_folder: Path) -> Term:
    if name in TERMS:
        return TERMS[name](config, scorer_folder)
    module, _, function = name.partition(":")
    try:
        return _as_term(name, getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"rewards.weights: {name!r} is no reward term ({error}); there are {', '.join(sorted(TERMS))}, and any "
            "function as module:function"
        ) from None


def _as_term(name: str, function: Callable) -> Term:
    """Return a user's function as a term: as it is, or wrapped if it has TRL's form.

    Raises:
        UserError: If one in TRL's form asks for more than prompts and completions.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # not callable, or a built-in that does not say what it takes
        return function
    if "completions" not in signature.parameters:
        return function
    try:
        signature.bind(prompts=[], completions=[])
    except TypeError as error:
        raise UserError(
            f"rewards.weights: {name!r} cannot be called ({error}); a reward function in TRL's form is given prompts and "
            "completions alone, so end its arguments with **kwargs and give the others defaults"
        ) from None
    return TrlReward(function)


def with_reference(model: RewardModel, stored: Mapping[str, Mapping[str, float]]) -> RewardModel:
    """Return the model with stored reference statistics."""
    return replace(model, reference=calibration.stored_statistics(stored))
