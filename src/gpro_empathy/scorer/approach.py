"""The approach model: whether an answer does what the demonstrations do with such a message.

A demonstration names the approach of its answer, such as "share the sadness". Two linear models,
multinomial logistic regressions, learn from the demonstrations which approach a message gets, and
which one an answer takes. An answer that would suit another kind of message, such as sorrow at a
joke, then shows. Shapes: _B messages or answers, _K approaches.

The model also knows what other scores are by approach. An answer to grief looks more empathetic
than one to a joke, so that who is paid by such a score alone answers every message as if it were
grief; against what is usual for its approach, an answer gains by how it is worded.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from gpro_empathy import files, response_format
from gpro_empathy.files import UserError
from gpro_empathy.labels import EMPATHETIC, EMPATHY, HIGHEST, SENSE
from gpro_empathy.scorer import empathy_scorer, lexical_features, windows
from gpro_empathy.scorer.empathy_scorer import Rater
from gpro_empathy.scorer.lexical_features import Features, Linear

KIND, FORMAT = "approach", "approach-1"
EXPECTED = {"kind": KIND, "format": FORMAT, "normalisation": windows.NORMALISATION}
SETTINGS = empathy_scorer.SETTINGS
# An approach of fewer demonstrations is not learned.
FEWEST_DEMONSTRATIONS = 5
# Demonstrations of an approach over which other scores are averaged, evenly spaced.
MOST_DEMONSTRATIONS = 100
# Those scores, by the names of their reward terms.
USUAL = ("empathy", "reader_sense", "reader_empathy")
# Inverse of the L2 penalty (scikit-learn's C), on features whose vectors have about length 1.
# Between 1 and 8 it makes no difference to validation demonstrations and readings.
INVERSE_PENALTY = 2.0
_ITERATIONS = 1000


@dataclass(frozen=True)
class ApproachModel:
    """Log-odds of each approach, of a message and of an answer.

    `counts_K` are the demonstrations of each approach. `usual` has the mean of other scores over
    demonstrations of each approach, shape (K,), by the score's name.
    """

    features: Features
    names: tuple[str, ...]
    message: Linear
    answer: Linear
    counts_K: np.ndarray
    usual: Mapping[str, np.ndarray] = field(default_factory=dict)

    def match(self, utterances: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Return how much more often than by chance a message gets such an answer, shape (B,).

        It is log sum_k p(k | message) p(k | answer) / p(k), in nats: 0 is chance, which keeps a
        common approach from being worth more than a rare one.
        """
        messages = list(dict.fromkeys(utterances))  # a message once, however many answers it has
        of_message = dict(zip(messages, self.log_probabilities("message", messages), strict=True))
        message_BK = np.array([of_message[utterance] for utterance in utterances])
        log_share_K = np.log(self.counts_K / self.counts_K.sum())
        return logsumexp(message_BK + self.log_probabilities("answer", answers) - log_share_K, axis=1)

    def usual_score(self, name: str, answers: Sequence[str]) -> np.ndarray:
        """Return what a score usually is for answers of these approaches, shape (B,), its unit."""
        return np.exp(self.log_probabilities("answer", answers)) @ self.usual[name]

    def log_probabilities(self, what: str, texts: Sequence[str]) -> np.ndarray:
        """Return the log probability of each approach (nats), shape (B, K).

        Args:
            what: What the texts are: "message" or "answer".
        """
        odds_BK = getattr(self, what)(self.features.of(texts))
        return odds_BK - logsumexp(odds_BK, axis=1, keepdims=True)


def train(demonstrations: Sequence[Mapping[str, str]], progress: Callable[[str], None] = print) -> ApproachModel:
    """Train the model on demonstrations: utterance and response.

    Nothing in it is random.

    Raises:
        UserError: If fewer than two approaches have enough demonstrations, or no word stands in two
            of them.
    """
    responses = [response_format.parse_response(row["response"]) for row in demonstrations]
    approaches = [response.stated_approach for response in responses]
    counts = Counter(approaches)
    used = [i for i, name in enumerate(approaches) if counts[name] >= FEWEST_DEMONSTRATIONS]
    remedy = "give more demonstrations of each approach in demonstrations.jsonl of prepare.embedded_folder"
    if len({approaches[i] for i in used}) < 2:
        raise UserError(
            f"train_reader: fewer than two approaches have {FEWEST_DEMONSTRATIONS} of the {len(demonstrations)} training "
            f"demonstrations; {remedy}"
        )
    if len(used) < len(demonstrations):
        progress(
            f"approach model: {len(demonstrations) - len(used)} demonstrations have an approach of their own, not learned"
        )
    messages = [demonstrations[i]["utterance"] for i in used]
    answers = [responses[i].answer for i in used]
    try:
        features = Features.learn([*messages, *answers])
    except ValueError:  # no term is left
        raise UserError(f"train_reader: no word stands in two of the {len(used)} demonstrations; {remedy}") from None
    names, approach_B = np.unique([approaches[i] for i in used], return_inverse=True)
    message, answer = (_fitted(features.of(texts), approach_B) for texts in (messages, answers))
    progress(f"approach model: {len(names)} approaches from {len(used)} demonstrations")
    return ApproachModel(features, tuple(map(str, names)), message, answer, np.bincount(approach_B))


def with_usual(
    model: ApproachModel, demonstrations: Sequence[Mapping[str, str]], scorer: Rater, reader: Rater
) -> ApproachModel:
    """Return the model with the mean scores of demonstrations of each approach.

    Args:
        scorer: The reward's empathy scorer.
        reader: The reader model.
    """
    responses = [response_format.parse_response(row["response"]) for row in demonstrations]
    approaches = np.array([response.stated_approach for response in responses])
    sampled = [_evenly(np.flatnonzero(approaches == name)) for name in model.names]
    answers = [responses[i].answer for i in np.concatenate(sampled)]
    messages = [(demonstrations[i]["utterance"],) for i in np.concatenate(sampled)]
    marks_B2 = reader.score(answers, messages)
    empathy_B = scorer.score(answers, messages)[:, EMPATHY]
    scores = (empathy_B, marks_B2[:, SENSE] / HIGHEST["sense"], marks_B2[:, EMPATHETIC] / HIGHEST["empathetic"])
    ends = np.cumsum([len(of_approach) for of_approach in sampled])[:-1]
    means = [np.array([part.mean() for part in np.split(score_B, ends)]) for score_B in scores]
    return replace(model, usual=dict(zip(USUAL, means, strict=True)))


def _evenly(rows: np.ndarray) -> np.ndarray:
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), MOST_DEMONSTRATIONS))
    return rows[np.round(chosen).astype(int)]


def _fitted(features_BN, approach_B: np.ndarray) -> Linear:
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=_ITERATIONS, tol=1e-6).fit(features_BN, approach_B)
    if len(model.classes_) > 2:
        return Linear(model.coef_, model.intercept_)
    # Of two classes scikit-learn keeps the log-odds of the second alone.
    weights_1N, intercept_1 = model.coef_, model.intercept_
    return Linear(np.concatenate([np.zeros_like(weights_1N), weights_1N]), np.concatenate([[0.0], intercept_1]))


def accuracy(model: ApproachModel, demonstrations: Sequence[Mapping[str, str]]) -> dict | None:
    """Return in which shares of demonstrations the model finds the approach; None without any.

    `message` is from the message alone, `answer` from the answer alone. Those whose approach the
    model does not know count as missed.
    """
    if not demonstrations:
        return None
    responses = [response_format.parse_response(row["response"]) for row in demonstrations]
    approach_B = np.array([response.stated_approach for response in responses])
    texts = {
        "message": [row["utterance"] for row in demonstrations],
        "answer": [response.answer for response in responses],
    }
    found = {
        what: np.array(model.names)[model.log_probabilities(what, of_each).argmax(1)] for what, of_each in texts.items()
    }
    return {"demonstrations": len(approach_B)} | {
        what: float((name_B == approach_B).mean()) for what, name_B in found.items()
    }


def save(model: ApproachModel, folder: Path, card: str) -> None:
    """Save a model and its card to `folder`, atomically."""
    with files.atomic_path(folder) as temporary:
        temporary.mkdir()
        files.write_json(temporary / SETTINGS, EXPECTED | _stated(model))
        lexical_features.store(temporary, model.features, {"message": model.message, "answer": model.answer})
        files.write_text(temporary / "README.md", card)


def _stated(model: ApproachModel) -> dict:
    usual = {name: list(map(float, value_K)) for name, value_K in model.usual.items()}
    return {"approaches": dict(zip(model.names, map(int, model.counts_K), strict=True)), "usual": usual}


def load(folder: Path) -> ApproachModel:
    """Load a model that `save` wrote.

    Raises:
        UserError: If the folder is no model of this format, or a file is missing or damaged.
    """
    stored = empathy_scorer.check(folder / SETTINGS, EXPECTED)
    remedy = f"delete {folder} and train it anew with `dvc repro`"
    counts, usual = stored.get("approaches"), stored.get("usual")
    fit = isinstance(counts, dict) and isinstance(usual, dict) and set(usual) == set(USUAL)
    if not (fit and all(isinstance(value_K, list) and len(value_K) == len(counts) for value_K in usual.values())):
        raise UserError(f"{folder / SETTINGS}: has not {', '.join(USUAL)} for each of its approaches; {remedy}")
    sizes = dict.fromkeys(("message", "answer"), len(counts))
    features, models = lexical_features.restore(folder, sizes, remedy)
    return ApproachModel(
        features,
        tuple(counts),
        **models,
        counts_K=np.array(list(counts.values())),
        usual={name: np.array(value_K) for name, value_K in usual.items()},
    )
