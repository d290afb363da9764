"""How far raters agree: Krippendorff's alpha, 1 for one mind and 0 for chance.

It is of any number of raters, each of whom may have rated some of the items alone, and for marks
whose order counts (ordinal) as for choices (nominal).

Source:
    Krippendorff (2019), Content Analysis, 4th edition, as the package `krippendorff` computes it.
"""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import krippendorff
import numpy as np

from gpro_empathy.analysis.results import Alpha

Level = Literal["ordinal", "nominal"]


def among(values: Mapping[Hashable, Sequence], domain: Sequence, level: Level) -> Alpha:
    """Return alpha among raters.

    Args:
        values: What each rater of an item gave, by item.
        domain: What can be given, in order.
    """
    return _alpha(list(values.values()), domain, level, len([1 for given in values.values() if len(given) > 1]))


def between(
    one: Mapping[Hashable, Sequence], other: Mapping[Hashable, Sequence], domain: Sequence, level: Level
) -> Alpha:
    """Return alpha between raters of one kind and raters of another, over what both rated.

    Every value of the one kind is paired with every value of the other for the same item, and alpha
    is taken over these pairs: how far a rater of one kind can stand for one of the other. How far
    raters of one kind agree among themselves does not enter.
    """
    both = [item for item in one if item in other]
    pairs = [pair for item in both for pair in itertools.product(one[item], other[item])]
    return _alpha(pairs, domain, level, len(both))


def _alpha(units: Sequence[Sequence], domain: Sequence, level: Level, items: int) -> Alpha:
    counts_UV = np.array([[list(given).count(value) for value in domain] for given in units if len(given) > 1])
    if not len(counts_UV):
        return {"items": 0, "alpha": None, "reason": "nothing was rated twice"}
    if (counts_UV.sum(axis=0) > 0).sum() < 2:
        return {"items": items, "alpha": None, "reason": "one value alone was given"}
    alpha = krippendorff.alpha(value_counts=counts_UV, value_domain=list(domain), level_of_measurement=level)
    return {"items": items, "alpha": float(alpha), "reason": None}
