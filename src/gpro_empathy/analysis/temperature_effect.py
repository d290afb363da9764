"""How calibration temperature changes GRPO's advantages, from a training run's raw scores."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gpro_empathy import calibration, params
from gpro_empathy.analysis import effects
from gpro_empathy.analysis.results import AtTemperature, TemperatureEffect

GRID = (0.2, 0.4, 0.6, 0.8, 1.0, 1.5)
# The columns that tell the batches of a run apart, and within them the groups of responses to one
# prompt.
BATCH = ("seed", "step")
GROUP = (*BATCH, "group")
# The ways of calibrating: the columns whose values tell apart what statistics are taken of;
# None for frozen ones.
MODES = {"batch": BATCH, "prompt": GROUP, "reference": None}


@dataclass(frozen=True)
class Reward:
    """What makes advantages of raw scores, beside the temperature.

    `reference` are the statistics of the starting policy.
    """

    weights: Mapping[str, float]
    aggregation: str
    scale_rewards: str
    reference: calibration.Statistics


def score(groups: pd.DataFrame, reward: Reward, temperature: float, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Return combined score and advantage of every sample, shape (B,) each.

    Args:
        groups: One sample a row: seed, step, group, sample, and <term>_raw for each term.
        mode: A key of MODES.

    Raises:
        ValueError: As `calibration.calibrate`.
    """
    raw = {term: groups[f"{term}_raw"].to_numpy(dtype=float) for term in reward.weights}
    scores = {term: np.zeros(len(groups)) for term in raw}
    batch, reference = MODES[mode] or BATCH, None if MODES[mode] else reward.reference
    for rows in groups.groupby(list(batch)).indices.values():
        of_batch = calibration.calibrated({term: raw_B[rows] for term, raw_B in raw.items()}, temperature, reference)
        for term, score_B in of_batch.items():
            scores[term][rows] = score_B
    advantage_B = calibration.advantages(
        scores,
        reward.weights,
        *(groups.groupby(list(columns)).ngroup() for columns in (GROUP, batch)),
        aggregation=reward.aggregation,
        scale_rewards=reward.scale_rewards,
    )
    return calibration.combined(scores, reward.weights), advantage_B


def reversed_pairs(groups: pd.DataFrame, first_B: np.ndarray, second_B: np.ndarray) -> float | None:
    """Return the share of pairs of a group that two scores order oppositely; None without pairs.

    A tie in either score is no reversal: the scores of the two merely say less.
    """
    reversals, pairs = 0, 0
    for rows in groups.groupby(list(GROUP)).indices.values():
        left, right = np.triu_indices(len(rows), k=1)
        first, second = first_B[rows], second_B[rows]
        reversals += int(((first[left] - first[right]) * (second[left] - second[right]) < 0).sum())
        pairs += len(left)
    return reversals / pairs if pairs else None


def effect(
    groups: pd.DataFrame, reference: calibration.Statistics, rewards: params.Rewards, scale_rewards: str
) -> TemperatureEffect:
    """Measure how far advantages depend on T, in each way of calibrating.

    Modes: `batch` (statistics of the step's batch), `prompt` (of one prompt's group alone, which is
    what a batch of one prompt amounts to) and `reference` (frozen). For each T: the correlation of
    the advantages with those at the configured T, the share of pairs within a group whose order T
    reverses, and the mean spread of the combined score within a group. If the reward has none of
    the calibrated terms, these are looked at alone, with equal weights.

    Args:
        groups: One sample a row: seed, step, group, sample, and <term>_raw for each term.
        reference: Statistics of the starting policy.
        scale_rewards: As in train_grpo.

    Raises:
        ValueError: If a column is missing or a score is not finite.
    """
    weights = rewards.weights
    if not set(calibration.CALIBRATED) & set(weights):
        weights = dict.fromkeys(calibration.ALWAYS_SCORED, 1.0)
    for column in (*GROUP, "sample", *(f"{term}_raw" for term in weights)):
        if column not in groups.columns:
            raise ValueError(f"column {column!r} is missing")
    reward = Reward(weights, rewards.aggregation, scale_rewards, reference)
    configured = rewards.calibration_temperature
    at_configured = {mode: score(groups, reward, configured, mode)[1] for mode in MODES}
    return {
        "configured": configured,
        "calibration": rewards.calibration,
        "modes": {
            mode: [_against(groups, reward, temperature, mode, advantage_B) for temperature in GRID]
            for mode, advantage_B in at_configured.items()
        },
        "batch_reference_correlation": effects.pearson(at_configured["batch"], at_configured["reference"]),
        "samples": len(groups),
        "groups": int(groups.groupby(list(GROUP)).ngroups),
    }


def _against(
    groups: pd.DataFrame, reward: Reward, temperature: float, mode: str, configured_B: np.ndarray
) -> AtTemperature:
    score_B, advantage_B = score(groups, reward, temperature, mode)
    spread = pd.Series(score_B, index=groups.index).groupby([groups[column] for column in GROUP]).std(ddof=0)
    return {
        "temperature": temperature,
        "correlation": effects.pearson(advantage_B, configured_B),
        "reversed_pairs": reversed_pairs(groups, advantage_B, configured_B),
        "group_sd": float(spread.mean()),
    }
