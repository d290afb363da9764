"""Map raw reward scores to [0, 1], so that terms of different units can be added."""

import numpy as np

# A standard deviation below this is no spread: the scores then carry no signal and all map to 0.5.
SMALLEST_SD = 1e-6
# Responses of the starting policy that the reference statistics are taken of, one per prompt.
REFERENCE_RESPONSES = 48


def calibrate(raw_B: np.ndarray, *, mean: float, sd: float, temperature: float) -> np.ndarray:
    """Return sigmoid(((raw - mean) / sd) / temperature), the calibrated scores in [0, 1].

    Args:
        raw_B: Raw scores of a batch, shape (B,), in the unit of the reward term.
        mean, sd: Statistics to standardise with, in the same unit: of this batch or of a reference sample.
        temperature: T > 0; a small T sharpens the differences between scores, a large one flattens them.

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
