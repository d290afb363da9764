"""Reward terms, from (utterances, answers) to raw scores, and their calibrated combination.

A term is a function or object called with `Response`s and the user's utterances, and returns one
raw score each, in its own unit. Functions of the user's own become terms by `user_rewards`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpro_empathy import calibration, params, text_measures, user_rewards
from gpro_empathy.files import UserError
from gpro_empathy.labels import EMPATHETIC, EMPATHY, HIGHEST, MARKS, POLARITY, SENSE
from gpro_empathy.response_format import Response

# The folders of the models that terms need, in the folder that `load` is given.
NEEDED = ("scorer", "reader", "approach")

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
    """The Empathy label that a trained scorer gives the answer; label units (0 to 5).

    The answer is scored as a reply if the scorer reads context.
    """

    scorer: object

    def __call__(self, utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
        contexts = [(utterance,) for utterance in utterances]
        scores_B3 = self.scorer.score([response.answer for response in responses], contexts)
        return scores_B3[:, EMPATHY]


@dataclass(frozen=True)
class PolarityMatch:
    """1 minus half the distance of the answer's polarity from the message's, by a trained scorer.

    In [0, 1], as the label goes from 0 (positive) to 2 (negative): thanks for a kind word are no
    answer to grief, however empathetic they sound by themselves. The answer is scored as a reply if
    the scorer reads context, and the message as the first turn.
    """

    scorer: object

    def __call__(self, utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
        contexts = [(utterance,) for utterance in utterances]
        answer_B = self.scorer.score([response.answer for response in responses], contexts)[:, POLARITY]
        messages = list(dict.fromkeys(utterances))  # a message once, however many answers it has
        polarity = dict(zip(messages, self.scorer.score(messages, [()] * len(messages))[:, POLARITY], strict=True))
        message_B = np.array([polarity[utterance] for utterance in utterances])
        return 1.0 - np.clip(np.abs(answer_B - message_B) / 2, 0.0, 1.0)


@dataclass(frozen=True)
class Read:
    """One mark that a reader would give the answer, as a share of the highest.

    The reader model learned from readings of answers, so that 0 to 1 is what it aims at and no
    bound.
    """

    reader: object
    mark: int

    def __call__(self, utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
        contexts = [(utterance,) for utterance in utterances]
        marks_B2 = self.reader.score([response.answer for response in responses], contexts)
        return marks_B2[:, self.mark] / HIGHEST[MARKS[self.mark]]


@dataclass(frozen=True)
class ApproachMatch:
    """How much more often than by chance (log, nats) a message gets an answer of this approach."""

    model: object

    def __call__(self, utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
        return self.model.match(utterances, [response.answer for response in responses])


@dataclass(frozen=True)
class Relative:
    """Another term, less what is usual for answers of this approach; in the term's unit.

    What an approach looks like then counts for nothing, and how the answer is worded for all.
    """

    term: Term
    name: str
    model: object

    def __call__(self, utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
        answers = [response.answer for response in responses]
        return self.term(utterances, responses) - self.model.usual_score(self.name, answers)


@dataclass(frozen=True)
class SemanticSimilarity:
    """Similarity of the answer to the user's message, clipped to [0, 1].

    A sentence-transformers model measures it. A bi-encoder gives the cosine of the two embeddings
    (Reimers & Gurevych 2019), a cross-encoder a score of the pair.
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


class Remembering:
    """A scorer that keeps what it said last, as several terms ask for the same answers in turn."""

    def __init__(self, scorer: object) -> None:
        self._scorer = scorer
        self._last: tuple[tuple, np.ndarray] | None = None

    def score(self, texts: Sequence[str], contexts: Sequence[Sequence[str]]) -> np.ndarray:
        """Return the scorer's labels of texts, each after its context."""
        asked = (tuple(texts), tuple(map(tuple, contexts)))
        if self._last is None or self._last[0] != asked:
            self._last = asked, self._scorer.score(texts, contexts)
        return self._last[1]


class _Models:
    """The models of the reward, each loaded once, by the first term that asks for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def scorer(self) -> object:
        from gpro_empathy.scorer import empathy_scorer

        return Remembering(empathy_scorer.load(self._folder / "scorer"))

    @cached_property
    def reader(self) -> object:
        from gpro_empathy.scorer import empathy_scorer

        reader = empathy_scorer.load(self._folder / "reader", MARKS)
        reader.merge_adapter()
        return Remembering(reader)

    @cached_property
    def approach(self) -> object:
        from gpro_empathy.scorer import approach

        return approach.load(self._folder / "approach")


class StartingPolicy(NamedTuple):
    """What GRPO starts from: settings, the converted policy and the adapter of the warm start."""

    config: params.Policy
    folder: Path
    adapter: Path | None


def _load_likelihood(config: params.Rewards, models: _Models, start: StartingPolicy | None) -> Term:
    from gpro_empathy.policy import likelihood

    if start is None:
        raise ValueError("the term likelihood needs the starting policy")
    return likelihood.load(*start)


def _load_relative(name: str, config: params.Rewards, models: _Models, start: StartingPolicy | None) -> Term:
    return Relative(TERMS[name](config, models, start), name, models.approach)


TERMS: dict[str, Callable[[params.Rewards, _Models, StartingPolicy | None], Term]] = {
    "semantic_similarity": lambda config, models, start: load_similarity(config),
    "empathy": lambda config, models, start: Empathy(models.scorer),
    "polarity_match": lambda config, models, start: PolarityMatch(models.scorer),
    "reader_sense": lambda config, models, start: Read(models.reader, SENSE),
    "reader_empathy": lambda config, models, start: Read(models.reader, EMPATHETIC),
    "approach_match": lambda config, models, start: ApproachMatch(models.approach),
    "likelihood": _load_likelihood,
    "well_formed": lambda config, models, start: well_formed,
    "length": lambda config, models, start: Length(config.free_words, config.limit_words),
    "repetition": lambda config, models, start: repetition,
    "overlap": lambda config, models, start: overlap,
}
# The scores that the approach model knows for each approach, and that may enter against it.
TERMS |= {
    name: partial(_load_relative, name.removeprefix(calibration.RELATIVE))
    for name in calibration.CALIBRATED
    if name.startswith(calibration.RELATIVE)
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

    `reference` holds (mean, sd) of each calibrated term on responses of the starting policy, in raw
    units.
    """

    config: params.Rewards
    terms: Mapping[str, Term]
    reference: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def raw(self, utterances: Sequence[str], responses: Sequence[Response]) -> dict[str, np.ndarray]:
        """Return the raw scores by term, shape (B,) each.

        Raises:
            UserError: As `user_rewards.checked`, naming term and sample.
        """
        return {
            name: user_rewards.checked(name, term(utterances, responses), responses)
            for name, term in self.terms.items()
        }

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


def load(config: params.Rewards, models: Path, start: StartingPolicy | None = None) -> RewardModel:
    """Load the configured terms, without reference statistics.

    Args:
        models: Folder of the models that terms need: scorer, reader and approach.
        start: What the term `likelihood` is taken under; no other term needs it.

    Raises:
        UserError: If a term is unknown or its trial fails, or a model that it needs cannot be
            loaded.
    """
    terms = load_user_terms(config)  # first, as what is wrong with one shows before models are loaded
    names = {*config.weights, *calibration.ALWAYS_SCORED} & TERMS.keys()
    loaded = _Models(models)
    terms |= {name: TERMS[name](config, loaded, start) for name in sorted(names)}
    return RewardModel(config, {name: terms[name] for name in sorted(terms)})


def load_user_terms(config: params.Rewards) -> dict[str, Term]:
    """Load and try the terms that are not the project's own.

    Raises:
        UserError: If one is unknown or its trial fails.
    """
    return {name: user_rewards.load(name, sorted(TERMS)) for name in sorted(config.weights) if name not in TERMS}


def with_reference(model: RewardModel, stored: Mapping[str, Mapping[str, float]]) -> RewardModel:
    """Return the model with stored reference statistics."""
    return replace(model, reference=calibration.stored_statistics(stored))
