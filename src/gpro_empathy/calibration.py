"""From raw reward scores to GRPO's advantages: calibrate to [0, 1], combine, compare in the group.

Training and analysis both score by these functions. In training TRL computes the advantages; those
of the analysis are computed here, and a test compares the two for every setting. Shapes: _B
samples.
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

# Terms whose raw unit is not [0, 1] on a scale of its own meaning: they are calibrated before they
# are combined.
CALIBRATED = (
    "semantic_similarity",
    "empathy",
    "relative_empathy",
    "approach_match",
    "likelihood",
    "reader_sense",
    "relative_reader_sense",
    "reader_empathy",
    "relative_reader_empathy",
)
# Before the name of a score that enters against what is usual for the answer's approach.
RELATIVE = "relative_"
# Those among them that are always scored, so that runs that leave one out can be compared.
ALWAYS_SCORED = ("semantic_similarity", "empathy")
# A standard deviation below this is no spread: the scores then carry no signal and all map to 0.5.
SMALLEST_SD = 1e-6
# Responses of the starting policy that the reference statistics are taken of, one per prompt.
REFERENCE_RESPONSES = 48
# Below this the scores of a group or batch differ by rounding alone, and none has an advantage.
_NO_SPREAD = 1e-9

# Mean and standard deviation by term, in the term's raw unit.
Statistics = Mapping[str, tuple[float, float]]


def calibrate(raw_B: np.ndarray, *, mean: float, sd: float, temperature: float) -> np.ndarray:
    """Return sigmoid(((raw - mean) / sd) / temperature), the calibrated scores in [0, 1].

    Args:
        raw_B: Raw scores of a batch, shape (B,), in the unit of the reward term.
        mean, sd: Statistics to standardise with, in the same unit: of this batch or of a reference
            sample.
        temperature: T > 0; a small T sharpens the differences between scores, a large one flattens
            them.

    Raises:
        ValueError: If a score is not finite, sd is negative or temperature is not positive.

    Source:
        The calibration of the published design, there with T fixed at 0.6 and batch statistics.
    """
    raw_B = np.asarray(raw_B, dtype=np.float64)
    if not np.isfinite(raw_B).all():
        raise ValueError(
            f"raw scores must be finite, got {raw_B[~np.isfinite(raw_B)][0]} at index "
            f"{int(np.flatnonzero(~np.isfinite(raw_B))[0])}"
        )
    if sd < 0 or not np.isfinite([mean, sd]).all():
        raise ValueError(f"need a finite mean and sd >= 0, got {mean} and {sd}")
    if not temperature > 0:
        raise ValueError(f"need temperature > 0, got {temperature}")
    if sd < SMALLEST_SD:
        return np.full(raw_B.shape, 0.5)
    # Beyond 60 the sigmoid is 0 or 1 in double precision, and exp would overflow far beyond it.
    z_B = np.clip((raw_B - mean) / sd / temperature, -60.0, 60.0)
    return 1.0 / (1.0 + np.exp(-z_B))


def batch_statistics(raw_B: np.ndarray) -> tuple[float, float]:
    """Return mean and population standard deviation (ddof 0) of a batch, shape (B,), B >= 1."""
    raw_B = np.asarray(raw_B, dtype=np.float64)
    if raw_B.size == 0:
        raise ValueError("need at least one score")
    return float(raw_B.mean()), float(raw_B.std())


def statistics_json(statistics: Statistics) -> dict[str, dict[str, float]]:
    """Return statistics as they are stored: {"<term>": {"mean": ..., "sd": ...}}."""
    return {term: {"mean": mean, "sd": sd} for term, (mean, sd) in statistics.items()}


def stored_statistics(stored: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Return the statistics that `statistics_json` stored."""
    return {term: (values["mean"], values["sd"]) for term, values in stored.items()}


def calibrated(
    raw: Mapping[str, np.ndarray], temperature: float, reference: Statistics | None = None
) -> dict[str, np.ndarray]:
    """Return the scores of one batch by term, in [0, 1], shape (B,) each.

    Terms that are not in CALIBRATED stay as they are.

    Args:
        raw: Raw scores by term, shape (B,) each.
        reference: Frozen statistics to calibrate against; None takes those of this batch.

    Raises:
        KeyError: If the reference lacks a calibrated term.
        ValueError: As `calibrate`.
    """
    scores = {}
    for term, raw_B in raw.items():
        if term not in CALIBRATED:
            scores[term] = raw_B
            continue
        if reference is not None and term not in reference:
            raise KeyError(f"no reference statistics for reward term {term}")
        mean, sd = batch_statistics(raw_B) if reference is None else reference[term]
        scores[term] = calibrate(raw_B, mean=mean, sd=sd, temperature=temperature)
    return scores


def combined(scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return the weighted mean of the terms that have a weight, shape (B,)."""
    return sum(weight * scores[term] for term, weight in weights.items()) / sum(weights.values())


def advantages(
    scores: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    group_B: Sequence[Hashable],
    batch_B: Sequence[Hashable],
    *,
    aggregation: str,
    scale_rewards: str,
) -> np.ndarray:
    """Return the advantage of every sample, shape (B,); without spread to divide by it is 0.

    `sum_then_normalize` compares the combined score with its group's mean and divides by the
    standard deviation that `scale_rewards` names: of the `group`, of the `batch`, or `none`.
    `normalize_then_sum` standardises each term within the group and their weighted mean over the
    batch, whatever `scale_rewards` is.

    TRL divides by the sample standard deviation plus 1e-4, and this by the population's alone. So
    TRL's advantages are smaller, by a factor that groups of one size share and, where a spread is
    near 1e-4, by more.

    Args:
        scores: What `calibrated` returns, shape (B,) each.
        group_B, batch_B: Names of each sample's group (the responses to one prompt) and batch.

    Raises:
        ValueError: If `aggregation` or `scale_rewards` is unknown.

    Source:
        Shao et al. (2024), DeepSeekMath, section 4.1.2, outcome supervision; for the batch and for
        terms normalised one by one, TRL 1.14.2, GRPOTrainer._generate_and_score_completions.
    """
    if aggregation == "normalize_then_sum":
        standardised = {
            term: _divided(_deviation(scores[term], group_B), _spread(scores[term], group_B)) for term in weights
        }
        total_B = combined(standardised, weights)
        return _divided(_deviation(total_B, batch_B), _spread(total_B, batch_B))
    if aggregation != "sum_then_normalize":
        raise ValueError(f"unknown aggregation {aggregation!r}")
    total_B = combined(scores, weights)
    deviation_B = _deviation(total_B, group_B)
    if scale_rewards == "none":
        return deviation_B
    if scale_rewards not in ("group", "batch"):
        raise ValueError(f"unknown scale_rewards {scale_rewards!r}")
    return _divided(deviation_B, _spread(total_B, group_B if scale_rewards == "group" else batch_B))


def _deviation(score_B: np.ndarray, part_B: Sequence[Hashable]) -> np.ndarray:
    return score_B - pd.Series(score_B).groupby(np.asarray(part_B)).transform("mean").to_numpy()


def _spread(score_B: np.ndarray, part_B: Sequence[Hashable]) -> np.ndarray:
    parts = pd.Series(score_B).groupby(np.asarray(part_B))
    return parts.transform(lambda values: values.std(ddof=0)).to_numpy()


def _divided(deviation_B: np.ndarray, sd_B: np.ndarray) -> np.ndarray:
    return np.divide(deviation_B, sd_B, out=np.zeros_like(deviation_B), where=sd_B > _NO_SPREAD)
