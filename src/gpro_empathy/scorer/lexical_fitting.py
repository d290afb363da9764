"""Train the held-out scorer: ridge regression, its penalty cross-validated over whole stories."""

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError
from gpro_empathy.labels import LABELS
from gpro_empathy.scorer import fitting
from gpro_empathy.scorer.lexical_features import FEWEST_TEXTS, Features, Linear
from gpro_empathy.scorer.lexical_scorer import LexicalScorer

# Candidates, on features whose vectors have about length 1, and the parts of the cross-validation.
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
FOLDS = 5


def train(turns: Sequence[Turn], progress: Callable[[str], None] = print) -> tuple[LexicalScorer, dict]:
    """Train a scorer on turns that carry a label; return it and how it was trained, for `save`.

    Nothing in it is random. A label that no turn carries is not learned: its values are NaN.

    Raises:
        UserError: If the labels cannot be learned, see `fitting.labelled`, or a label is known of
            one story alone.
    """
    turns, targets_B3 = fitting.labelled(turns)
    texts, stories_B = [turn.text for turn in turns], np.array([turn.story for turn in turns])
    errors_P3 = _errors(texts, targets_B3, stories_B)
    features = _features(texts)
    features_BN = features.of(texts)
    weights_3N, intercept_3 = np.zeros((len(LABELS), features_BN.shape[1])), np.full(len(LABELS), np.nan)
    penalties = {}
    for label, name in enumerate(LABELS):
        known_B = ~np.isnan(targets_B3[:, label])
        if not known_B.any():
            continue
        if len(set(stories_B[known_B])) < 2:
            raise UserError(
                f"train_scorer: {name} is known in one story alone of those of the held-out scorer, and its penalty is "
                "chosen over stories; raise train_scorer.audit_fraction"
            )
        penalties[name] = PENALTIES[int(errors_P3[:, label].argmin())]
        model = _ridge(penalties[name]).fit(features_BN[known_B], targets_B3[known_B, label])
        weights_3N[label], intercept_3[label] = model.coef_, model.intercept_
    progress(f"held-out scorer: {features_BN.shape[1]} features, penalties {penalties}")
    training = {
        "turns": len(turns),
        "conversations": len({turn.conversation for turn in turns}),
        "stories": len(set(stories_B)),
        "features": features_BN.shape[1],
        "penalties": penalties,
    }
    return LexicalScorer(features, Linear(weights_3N, intercept_3)), {"training": training}


def _errors(texts: Sequence[str], targets_B3: np.ndarray, stories_B: np.ndarray) -> np.ndarray:
    """Return the summed squared error of each penalty on stories left out, shape (P, 3).

    The stories are those that know the label, so that a label of few stories is left out of some
    and learned from others. Terms and their weights are learned anew without what is left out.
    """
    errors_P3 = np.zeros((len(PENALTIES), len(LABELS)))
    known_B3 = ~np.isnan(targets_B3)
    for known_B in np.unique(known_B3, axis=1).T:
        same_labels = [label for label in range(len(LABELS)) if (known_B3[:, label] == known_B).all()]
        rows = np.flatnonzero(known_B)
        count = min(FOLDS, len(set(stories_B[rows])))
        if count < 2:
            continue
        for kept, left in GroupKFold(count).split(rows, groups=stories_B[rows]):
            features = _features([texts[i] for i in rows[kept]])
            kept_BN, left_BN = (features.of([texts[i] for i in part]) for part in (rows[kept], rows[left]))
            for label in same_labels:
                wanted_B = targets_B3[rows[left], label]
                for row, penalty in enumerate(PENALTIES):
                    model = _ridge(penalty).fit(kept_BN, targets_B3[rows[kept], label])
                    errors_P3[row, label] += ((model.predict(left_BN) - wanted_B) ** 2).sum()
    return errors_P3


def _features(texts: Sequence[str]) -> Features:
    try:
        return Features.learn(texts)
    except ValueError:  # after pruning, no terms remain
        raise UserError(
            f"train_scorer: no word stands in {FEWEST_TEXTS} of {len(texts)} training turns of the held-out scorer; "
            "raise train_scorer.audit_fraction, or give more turns"
        ) from None


def _ridge(penalty: float) -> Ridge:
    # Its iterations end where another processor's rounding no longer shows.
    return Ridge(alpha=penalty, solver="lsqr", tol=1e-8)
