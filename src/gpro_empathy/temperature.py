"""What the calibration temperature does to GRPO's advantages, from the raw scores of a training run."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from gpro_empathy import calibration

GRID = (0.2, 0.4, 0.6, 0.8, 1.0, 1.5)
TERMS = ("empathy", "semantic_similarity")


def combined_scores(
    groups: pd.DataFrame, weights: Mapping[str, float], temperature: float, reference: Mapping[str, dict] | None
) -> np.ndarray:
    """Return the weighted mean of the calibrated terms for every sample, shape (B,).

    Args:
        groups: One sample a row: step, group, sample, and <term>_raw for each term of `weights`.
        reference: Mean and sd of each term (reference calibration), or None for the statistics of each step's batch.
    """
    total_B = np.zeros(len(groups))
    for term, weight in weights.items():
        raw_B = groups[f"{term}_raw"].to_numpy(dtype=float)
        for rows in groups.groupby("step").indices.values():
            mean, sd = calibration.batch_statistics(raw_B[rows])
            if reference is not None:
                mean, sd = reference[term]["mean"], reference[term]["sd"]
            total_B[rows] += weight * calibration.calibrate(raw_B[rows], mean=mean, sd=sd, temperature=temperature)
    return total_B / sum(weights.values())


def advantages(groups: pd.DataFrame, score_B: np.ndarray) -> np.ndarray:
    """Standardise scores within their group, shape (B,); a group without spread gets zeros.

    Source:
        Shao et al. (2024), section 4.1.2, outcome supervision.
    """
    score = pd.Series(score_B, index=groups.index).groupby([groups["step"], groups["group"]])
    deviation_B = score_B - score.transform("mean").to_numpy()
    sd_B = score.transform(lambda values: values.std(ddof=0)).to_numpy()
    return np.divide(deviation_B, sd_B, out=np.zeros_like(deviation_B), where=sd_B > 1e-9)


def effect(
    groups: pd.DataFrame,
    reference: Mapping[str, dict],
    weights: Mapping[str, float],
    configured: float,
) -> dict:
    """Measure how far advantages depend on T, in batch and in reference calibration.

    For each T: the correlation of the advantages with those at the configured T, and the mean spread of the combined
    score within a group, which standardisation removes. Terms that are not calibrated are left out; if the reward has
    none of the two calibrated ones, both count equally.

    Raises:
        ValueError: If a column is missing or a score is not finite.
    """
    used = {term: weights[term] for term in TERMS if term in weights} or dict.fromkeys(TERMS, 1.0)
    for column in ("step", "group", "sample", *(f"{term}_raw" for term in used)):
        if column not in groups.columns:
            raise ValueError(f"column {column!r} is missing")
    modes = {}
    at_configured = {}
    for mode, statistics in (("batch", None), ("reference", reference)):
        base_B = advantages(groups, combined_scores(groups, used, configured, statistics))
        at_configured[mode] = base_B
        modes[mode] = [
            _at_temperature(groups, combined_scores(groups, used, temperature, statistics), base_B, temperature)
            for temperature in GRID
        ]
    return {
        "configured": configured,
        "modes": modes,
        "batch_reference_correlation": _correlation(at_configured["batch"], at_configured["reference"]),
        "samples": len(groups),
        "groups": int(groups.groupby(["step", "group"]).ngroups),
    }


def _at_temperature(groups: pd.DataFrame, score_B: np.ndarray, base_B: np.ndarray, temperature: float) -> dict:
    spread = pd.Series(score_B, index=groups.index).groupby([groups["step"], groups["group"]]).std(ddof=0)
    return {
        "temperature": temperature,
        "correlation": _correlation(advantages(groups, score_B), base_B),
        "group_sd": float(spread.mean()),
    }


def _correlation(one_B: np.ndarray, other_B: np.ndarray) -> float | None:
    if one_B.std() == 0 or other_B.std() == 0:
        return None
    return float(np.corrcoef(one_B, other_B)[0, 1])
