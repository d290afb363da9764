"""The approach model: whether an answer does what the demonstrations do with such a message.

A demonstration names the approach of its answer, such as "share the sadness". Two linear models,
multinomial logistic regressions, learn from the demonstrations which approach a message gets, and
which one an answer takes. An answer that would suit another kind of message, such as sorrow at a
joke, then shows. Shapes: _B messages or answers, _K approaches.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from gpro_empathy import files, response_format
from gpro_empathy.files import UserError
from gpro_empathy.scorer import empathy_scorer, lexical_features, windows
from gpro_empathy.scorer.lexical_features import Features, Linear

KIND, FORMAT = "approach", "approach-1"
EXPECTED = {"kind": KIND, "format": FORMAT, "normalisation": windows.NORMALISATION}
SETTINGS = empathy_scorer.SETTINGS
# An approach of fewer demonstrations is not learned.
FEWEST_DEMONSTRATIONS = 5
# Inverse of the L2 penalty (scikit-learn's C), on features whose vectors have about length 1.
# Between 1 and 8 it makes no difference to validation demonstrations and readings.
INVERSE_PENALTY = 2.0
_ITERATIONS = 1000


@dataclass(frozen=True)
class ApproachModel:
    """Log-odds of each approach, of a message and of an answer."""

    features: Features
    names: tuple[str, ...]
    message: Linear
    answer: Linear

    def match(self, utterances: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Return the log probability that message and answer are of one approach, shape (B,), nats.

        It is log sum_k p(k | message) p(k | answer), and at most 0.
        """
        messages = list(dict.fromkeys(utterances))  # a message once, however many answers it has
        of_message = dict(zip(messages, self.log_probabilities("message", messages), strict=True))
        message_BK = np.array([of_message[utterance] for utterance in utterances])
        return logsumexp(message_BK + self.log_probabilities("answer", answers), axis=1)

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
    approaches = [response_format.approach(row["response"]) for row in demonstrations]
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
    answers = [response_format.parse_response(demonstrations[i]["response"]).answer for i in used]
    try:
        features = Features.learn([*messages, *answers])
    except ValueError:  # no term is left
        raise UserError(f"train_reader: no word stands in two of the {len(used)} demonstrations; {remedy}") from None
    names, approach_B = np.unique([approaches[i] for i in used], return_inverse=True)
    message, answer = (_fitted(features.of(texts), approach_B) for texts in (messages, answers))
    progress(f"approach model: {len(names)} approaches from {len(used)} demonstrations")
    return ApproachModel(features, tuple(map(str, names)), message, answer)


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
    approach_B = np.array([response_format.approach(row["response"]) for row in demonstrations])
    texts = {
        "message": [row["utterance"] for row in demonstrations],
        "answer": [response_format.parse_response(row["response"]).answer for row in demonstrations],
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
        files.write_json(temporary / SETTINGS, EXPECTED | {"approaches": list(model.names)})
        lexical_features.store(temporary, model.features, {"message": model.message, "answer": model.answer})
        files.write_text(temporary / "README.md", card)


def load(folder: Path) -> ApproachModel:
    """Load a model that `save` wrote.

    Raises:
        UserError: If the folder is no model of this format, or a file is missing or damaged.
    """
    stored = empathy_scorer.check(folder / SETTINGS, EXPECTED)
    remedy = f"delete {folder} and train it anew with `dvc repro`"
    names = stored.get("approaches")
    if not (isinstance(names, list) and len(set(map(str, names))) == len(names) > 1):
        raise UserError(f"{folder / SETTINGS}: approaches is no list of two or more names; {remedy}")
    sizes = dict.fromkeys(("message", "answer"), len(names))
    features, models = lexical_features.restore(folder, sizes, remedy)
    return ApproachModel(features, tuple(names), **models)
