"""How much of a gain in score goes with length and template words alone."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gpro_empathy import text_measures
from gpro_empathy.analysis.results import Explained

# Words of advice and of speaking to somebody: an answer may gain by having more of them, whatever
# it says with them.
MODAL_WORDS = frozenset("can could consider may maybe might ought perhaps should try would".split())
SECOND_PERSON = frozenset("you you'd you'll you're you've your yours yourself".split())
# Relative to the largest singular value; smaller ones are rounding.
_RANK_TOLERANCE = 1e-9


def covariates(rows: pd.DataFrame) -> np.ndarray:
    """Return what a template moves in each answer, shape (B, 4).

    These are the words of the answer, the shares of them in MODAL_WORDS and in SECOND_PERSON, and 1
    where the answer ends with a question mark, else 0.
    """
    words_B = [text_measures.words(answer) for answer in rows["answer"]]
    return np.column_stack(
        [
            rows["answer_words"].astype(float),
            [_share(words, MODAL_WORDS) for words in words_B],
            [_share(words, SECOND_PERSON) for words in words_B],
            rows["answer"].str.rstrip().str.endswith("?").astype(float),
        ]
    )


def _share(words: Sequence[str], named: frozenset[str]) -> float:
    return sum(word in named for word in words) / max(len(words), 1)


def explained(start: pd.DataFrame, tuned: pd.DataFrame, metric: str) -> Explained:
    """Return which part of a metric's mean difference the covariates explain.

    `difference` is the raw difference of the means, tuned less starting policy, over responses;
    `adjusted` the coefficient of the policy in a least-squares fit of the metric on policy and
    covariates over the responses of both; `share` is 1 - adjusted / difference. It is negative
    where the adjusted difference is the larger one, and above 1 where its sign is the other one. It
    is None where the raw difference is below its own standard error (Welch's, over responses), as a
    ratio to noise says nothing. It and `adjusted` are None where the covariates alone tell the
    policies apart.

    A share describes; what else changed with the covariates is counted as theirs.

    Source:
        MacKinnon, Warsi & Dwyer (1995), A simulation study of mediated effect measures: the
        proportion mediated, which needs some 500 responses to be accurate.
    """
    start_B, tuned_B = (rows[metric].to_numpy(dtype=np.float64) for rows in (start, tuned))
    difference = float(tuned_B.mean() - start_B.mean())
    error = np.sqrt(sum(score_B.var(ddof=1) / len(score_B) for score_B in (start_B, tuned_B)))
    covariate_BC = np.concatenate([covariates(start), covariates(tuned)])
    policy_B = np.repeat([0.0, 1.0], [len(start_B), len(tuned_B)])
    adjusted = _coefficient(policy_B, covariate_BC, np.concatenate([start_B, tuned_B]))
    told = adjusted is not None and difference != 0 and abs(difference) >= error
    return {
        "difference": difference,
        "adjusted": adjusted,
        "share": 1 - adjusted / difference if told else None,
    }


def _coefficient(policy_B: np.ndarray, covariate_BC: np.ndarray, score_B: np.ndarray) -> float | None:
    """Return the coefficient of the policy; None where the covariates determine the policy."""
    spread_C = covariate_BC.std(axis=0)
    scaled_BC = (covariate_BC - covariate_BC.mean(axis=0)) / np.where(spread_C > 0, spread_C, 1)
    others = np.column_stack([np.ones(len(score_B)), scaled_BC])
    # What of the policy the others leave: the score's slope on it is the coefficient (the theorem
    # of Frisch and Waugh).
    left_B = policy_B - others @ np.linalg.lstsq(others, policy_B, rcond=_RANK_TOLERANCE)[0]
    if left_B @ left_B <= _RANK_TOLERANCE * len(score_B):
        return None
    return float(left_B @ score_B / (left_B @ left_B))
