"""How a policy spreads its stated intensities over the levels."""

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from gpro_empathy.analysis.results import StatedSpread

# A level counts as used from this share of the well-formed responses on: fewer may be slips.
USED_FROM = 0.02


def spread(rows: pd.DataFrame) -> StatedSpread:
    """Measure the spread of the intensities that the well-formed responses state.

    Returns how many `levels` are used, the entropy in `bits`, the `commonest` level with its
    `largest_share`, and Spearman's correlation with the emotion label of the turn, over the
    responses whose turn has one; None without spread. All are None of no well-formed response.

    Args:
        rows: Responses of one policy and training seed, of `response_table.responses`.
    """
    stated = rows[rows["well_formed"].astype(bool) & rows["stated_intensity"].notna()]
    if stated.empty:
        return {"levels": None, "bits": None, "commonest": None, "largest_share": None, "spearman": None}
    # Of equally common levels the lower one, so that the order of the rows decides nothing.
    shares = stated["stated_intensity"].value_counts(normalize=True).sort_index()
    return {
        "levels": float((shares >= USED_FROM).sum()),
        "bits": entropy_bits(shares.to_numpy()),
        "commonest": float(shares.idxmax()),
        "largest_share": float(shares.max()),
        "spearman": _spearman(stated[stated["emotion"].notna()]),
    }


def entropy_bits(share: np.ndarray) -> float:
    """Return Shannon's entropy of shares that sum to 1."""
    # What rounds to a negative zero is none.
    return float(abs(scipy_stats.entropy(share, base=2)))


def _spearman(stated: pd.DataFrame) -> float | None:
    columns = stated[["stated_intensity", "emotion"]]
    if len(columns) < 3 or (columns.nunique() < 2).any():
        return None
    return float(scipy_stats.spearmanr(columns["stated_intensity"], columns["emotion"]).statistic)


def states_commonest(table: pd.DataFrame) -> pd.Series:
    """Return 1 for a response that states the commonest level of its policy, else 0.

    Its mean rises where a policy falls back on one level, whichever that is. The commonest level is
    that of the training seed, and 0 stands for responses that state none.
    """
    commonest = table["stated_intensity"].groupby([table["model"], table["seed"]]).transform(_mode)
    return (table["stated_intensity"] == commonest).astype(float)


def _mode(stated: pd.Series) -> float:
    return stated.mode().min()
