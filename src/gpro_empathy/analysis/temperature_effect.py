"""What the calibration temperature does to GRPO's advantages, from the raw scores of a training run."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from gpro_empathy import calibration

GRID = (0.2, 0.4, 0.6, 0.8, 1.0, 1.5)
TERMS = ("empathy", "semantic_similarity")
# The columns that tell the batches of a run apart, and within them the groups of responses to one prompt.
BATCH = ("seed", "step")
GROUP = (*BATCH, "group")


def combined_scores(
    groups: pd.DataFrame,
    weights: Mapping[str, float],
    temperature: float,
    reference: Mapping[str, dict] | None,
    batch: Sequence[str] = BATCH,
) -> np.ndarray:
    """Return the reward of every sample, shape (B,): the weighted mean of its terms, those of TERMS calibrated.

    Args:
        groups: One sample a row: seed, step, group, sample, and <term>_raw for each term of `weights`.
        reference: Mean and sd of each calibrated term (reference calibration), or None for the statistics of each batch.
        batch: The columns whose values tell batches apart.
    """
    total_B = np.zeros(len(groups))
    for term, weight in weights.items():
        raw_B = groups[f"{term}_raw"].to_numpy(dtype=float)
        if term not in TERMS:
            total_B += weight * raw_B  # a share as it is, whatever T
            continue
        for rows in groups.groupby(list(batch)).indices.values():
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
    score = pd.Series(score_B, index=groups.index).groupby([groups[column] for column in GROUP])
    deviation_B = score_B - score.transform("mean").to_numpy()
    sd_B = score.transform(lambda values: values.std(ddof=0)).to_numpy()
    return np.divide(deviation_B, sd_B, out=np.zeros_like(deviation_B), where=sd_B > 1e-9)


def reversed_pairs(groups: pd.DataFrame, one_B: np.ndarray, other_B: np.ndarray) -> float | None:
    """Return the share of pairs of a group that the two scores order in opposite ways; None without pairs.

    A tie in either score is no reversal: the scores of the two merely say less.
    """
    reversals, pairs = 0, 0
    for rows in groups.groupby(list(GROUP)).indices.values():
        first, second = np.triu_indices(len(rows), k=1)
        one, other = one_B[rows], other_B[rows]
        reversals += int(((one[first] - one[second]) * (other[first] - other[second]) < 0).sum())
        pairs += len(first)
    return reversals / pairs if pairs else None


def effect(
    groups: pd.DataFrame,
    reference: Mapping[str, dict],
    weights: Mapping[str, float],
    configured: float,
) -> dict:
    """Measure how far advantages depend on T, in each way of calibrating.

    Modes: `batch` (statistics of the step's batch), `prompt` (of one prompt's group alone, which is what a batch of
    one prompt amounts to) and `reference` (frozen). For each T: the correlation of the advantages with those at the
    configured T, the share of pairs within a group whose order T reverses, and the mean spread of the combined score
    within a group, which standardisation removes. Terms that are not calibrated count as they are. If the reward has
    none of the two calibrated ones, these are looked at alone, with equal weights.

    Raises:
        ValueError: If a column is missing or a score is not finite.
    """
    used = dict(weights) if set(TERMS) & set(weights) else dict.fromkeys(TERMS, 1.0)
    for column in (*GROUP, "sample", *(f"{term}_raw" for term in used)):
        if column not in groups.columns:
            raise ValueError(f"column {column!r} is missing")
    modes, at_configured = {}, {}
    for mode, statistics, batch in (("batch", None, BATCH), ("prompt", None, GROUP), ("reference", reference, BATCH)):
        base_B = combined_scores(groups, used, configured, statistics, batch)
        at_configured[mode] = advantages(groups, base_B)
        modes[mode] = [
            {
                "temperature": temperature,
                **_against(groups, combined_scores(groups, used, temperature, statistics, batch), base_B),
            }
            for temperature in GRID
        ]
    return {
        "configured": configured,
        "modes": modes,
        "batch_reference_correlation": _correlation(at_configured["batch"], at_configured["reference"]),
        "samples": len(groups),
        "groups": int(groups.groupby(list(GROUP)).ngroups),
    }


def _against(groups: pd.DataFrame, score_B: np.ndarray, base_B: np.ndarray) -> dict:
    spread = pd.Series(score_B, index=groups.index).groupby([groups[column] for column in GROUP]).std(ddof=0)
    return {
        "correlation": _correlation(advantages(groups, score_B), advantages(groups, base_B)),
        "reversed_pairs": reversed_pairs(groups, score_B, base_B),
        "group_sd": float(spread.mean()),
    }


def _correlation(one_B: np.ndarray, other_B: np.ndarray) -> float | None:
    if one_B.std() == 0 or other_B.std() == 0:
        return None
    return float(np.corrcoef(one_B, other_B)[0, 1])
