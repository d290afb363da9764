"""How far automatic scores go with what raters found: correlations, AUC and the order of pairs.

Answers of all policies that were rated are taken together. Intervals resample whole stories; who
rated is taken as given.

Shapes: _A rated answers, _C stories, _R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from gpro_empathy.analysis import bootstrap, estimates, rating_estimates
from gpro_empathy.analysis.results import Estimate, ScoreValidity, ValidityEstimate

# An interval is given where no more than this share of the resamples leave a value undefined.
UNDEFINED = 0.05
# Of two answers a correlation is 1 or -1, whatever they are.
FEWEST_ANSWERS = 3
FEW_STORIES = f"fewer than {bootstrap.FEWEST_STORIES} stories"


@dataclass(frozen=True)
class RatedAnswers:
    """What raters found, each of shape (A,): mean marks, shares of raters, and the stories.

    `sensible` and `empathetic` are the shares of an answer's raters who found it so.
    """

    sense: np.ndarray
    empathy: np.ndarray
    sensible: np.ndarray
    empathetic: np.ndarray
    story: np.ndarray

    def __getitem__(self, chosen_A: np.ndarray) -> "RatedAnswers":
        """Return some of the answers."""
        return RatedAnswers(**{name: value_A[chosen_A] for name, value_A in vars(self).items()})


@dataclass(frozen=True)
class RatedPair:
    """A pair that raters decided: its story, and whether they chose the tuned policy's answer."""

    story: str
    tuned_won: bool


def validity(
    score_A: np.ndarray,
    rated: RatedAnswers,
    difference_by_pair: Sequence[tuple[RatedPair, float]],
    n_resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> ScoreValidity:
    """Compare a score with ratings.

    Args:
        score_A: The score of each rated answer, NaN where it has none: such answers are left out.
        difference_by_pair: Decided pairs with the tuned answer's score less the starting one's.
    """
    known_A = np.isfinite(score_A)
    score_A, rated = score_A[known_A], rated[known_A]
    names, story_A = np.unique(rated.story, return_inverse=True)
    resampling = _Resampling(story_A, len(names), n_resamples, confidence, rng)
    decided = [(pair, difference) for pair, difference in difference_by_pair if np.isfinite(difference)]
    return {
        "answers": len(score_A),
        "sense": _spearman(score_A, rated.sense, resampling),
        "empathy": _spearman(score_A, rated.empathy, resampling),
        "sensible": _auc(score_A, rated.sensible, resampling),
        "empathetic": _auc(score_A, rated.empathetic, resampling),
        "ordered": _ordered(decided, confidence),
    }


class _Resampling:
    """Whole stories drawn with replacement: how often each is in a resample, shape (R, C)."""

    def __init__(
        self, story_A: np.ndarray, n_stories: int, n_resamples: int, confidence: float, rng: np.random.Generator
    ) -> None:
        self.n_stories, self.confidence = n_stories, confidence
        self.member_CA = (story_A == np.arange(n_stories)[:, None]).astype(float)
        drawn = n_stories >= bootstrap.FEWEST_STORIES
        self.weight_RC = (
            rng.multinomial(n_stories, np.full(n_stories, 1 / n_stories), size=n_resamples).astype(float)
            if drawn
            else np.zeros((0, n_stories))
        )

    def estimate(self, value: float, value_R: np.ndarray) -> ValidityEstimate:
        """Return a value with the interval of `estimates.statistic`."""
        if not len(value_R):
            return _unknown(FEW_STORIES, value)
        defined_R = value_R[np.isfinite(value_R)]
        if len(defined_R) < (1 - UNDEFINED) * len(value_R):
            return _unknown("its marks or its spread are on too few stories", value)
        low, high = estimates.expanded_percentiles(defined_R, self.n_stories, self.confidence)
        return {"estimate": value, "low": float(low), "high": float(high), "reason": None}


def _spearman(score_A: np.ndarray, mark_A: np.ndarray, resampling: _Resampling) -> ValidityEstimate:
    """Estimate Spearman's correlation; ranks are those among all answers, also in a resample."""
    if len(score_A) < FEWEST_ANSWERS:
        return _unknown(f"fewer than {FEWEST_ANSWERS} answers")
    if np.ptp(score_A) == 0:
        return _unknown("the score has one value alone")
    if np.ptp(mark_A) == 0:
        return _unknown("all marks are the same")
    moment_AK = estimates.moments(scipy_stats.rankdata(score_A), scipy_stats.rankdata(mark_A))
    sum_CK, count_C = resampling.member_CA @ moment_AK, resampling.member_CA.sum(axis=1)
    count_R = resampling.weight_RC @ count_C
    value_R = estimates.correlation((resampling.weight_RC @ sum_CK) / count_R[:, None])
    value = estimates.correlation(moment_AK.mean(axis=0, keepdims=True))[0]
    return resampling.estimate(float(value), value_R)


def _auc(score_A: np.ndarray, positive_A: np.ndarray, resampling: _Resampling) -> ValidityEstimate:
    """Estimate the chance that the score puts an answer that was found so above one that was not.

    Ties count half. Where raters differ on an answer, it stands on both sides, with the share of
    its raters as the weight, and is not compared with itself.

    Source:
        Bamber (1975), The Area above the Ordinal Dominance Graph, for the AUC as this chance.
    """
    if not positive_A.any() or (positive_A == 1).all():
        return _unknown("it holds of all answers, or of none")
    if np.ptp(score_A) == 0:
        return _unknown("the score has one value alone")
    above_AA = (score_A[:, None] > score_A) + 0.5 * (score_A[:, None] == score_A)
    weight_AA = positive_A[:, None] * (1 - positive_A)
    np.fill_diagonal(weight_AA, 0)
    member_CA = resampling.member_CA
    won_CC, all_CC = (member_CA @ part_AA @ member_CA.T for part_AA in (weight_AA * above_AA, weight_AA))
    if not all_CC.sum():
        return _unknown("raters found it of one answer alone, and not all of them")
    won_R, all_R = (
        ((resampling.weight_RC @ part_CC) * resampling.weight_RC).sum(axis=1) for part_CC in (won_CC, all_CC)
    )
    value_R = np.divide(won_R, all_R, out=np.full(len(all_R), np.nan), where=all_R > 0)
    return resampling.estimate(float(won_CC.sum() / all_CC.sum()), value_R)


def _ordered(decided: Sequence[tuple[RatedPair, float]], confidence: float) -> ValidityEstimate:
    """Estimate the share of decided pairs in which the score is higher for the answer chosen."""
    if not decided:
        return _unknown("no pair was decided")
    if not any(difference for _, difference in decided):
        return _unknown("the score is the same for both answers of every pair")
    marks = rating_estimates.Marks(
        [
            (number, pair.story, "the raters", 0.5 if difference == 0 else float((difference > 0) == pair.tuned_won))
            for number, (pair, difference) in enumerate(decided)
        ]
    )
    found: Estimate = rating_estimates.share(marks, confidence)
    return {**found, "reason": FEW_STORIES if found["low"] is None else None}


def _unknown(reason: str, value: float | None = None) -> ValidityEstimate:
    return {"estimate": value, "low": None, "high": None, "reason": reason}
