"""How many pairs show that raters prefer one policy, and what a number of them can show.

A choice counts 1 for the tuned policy, one half for a tie and 0 for the starting one; the win rate
is the mean. With a share t of ties, of which a half counts as won, a win rate W has the variance
W (1 - W) - t / 4 over pairs, and (1 - t) / 4 where neither policy is preferred.
"""

import math

from scipy import optimize

from gpro_empathy.analysis import effects


def pairs_needed(
    win_rate: float,
    ties: float = 0.0,
    design_effect: float = 1.0,
    confidence: float = 0.95,
    power: float = effects.POWER,
    degrees_of_freedom: float = math.inf,
) -> int:
    """Return how many pairs must be rated to tell a win rate from one half.

    Args:
        win_rate: Wins plus half of the ties, as a share of the pairs, in [0, 1] and not one half.
        ties: Share of the pairs of which both answers, or neither, are chosen, in [0, 1).
        design_effect: How many times the variance of the win rate is that of independent pairs:
            above 1 where pairs on one story, or by one rater, are alike; above 0.
        confidence: Of the two-sided interval that must exclude one half, in (0, 1).
        power: The probability that it does, in (0, 1).
        degrees_of_freedom: Of the variance, where it is estimated from few raters or stories.

    Raises:
        ValueError: If an argument is out of its range, or so many ties leave no such win rate.

    Source:
        Connor (1987), Sample Size for Testing Differences in Proportions for the Paired-Sample
        Design, Biometrics 43: with psi = 1 - ties and delta = 2 win_rate - 1. The design effect is
        that of Kish (1965), Survey Sampling.
    """
    _check(ties, design_effect, confidence, power)
    if not 0 <= win_rate <= 1 or win_rate == 0.5:
        raise ValueError(f"need a win rate in [0, 1] that is not one half, got {win_rate}")
    # One half is no number in binary: without the slack, 0.7 of 0.6 decided would be refused.
    if abs(2 * win_rate - 1) > 1 - ties + 1e-12:
        raise ValueError(f"a win rate of {win_rate} is not to be had with {ties} of the pairs tied")
    return math.ceil(
        _pairs(abs(2 * win_rate - 1), 1 - ties, design_effect, confidence, power, degrees_of_freedom) - 1e-9
    )


def detectable_win_rate(
    pairs: int,
    ties: float = 0.0,
    design_effect: float = 1.0,
    confidence: float = 0.95,
    power: float = effects.POWER,
    degrees_of_freedom: float = math.inf,
) -> float | None:
    """Return the smallest win rate above one half that so many pairs tell from it.

    Its mirror below one half is told as well. None if the pairs are too few even where every
    decided one is won. The other arguments are those of `pairs_needed`, whose inverse this is.

    Raises:
        ValueError: If an argument is out of its range.
    """
    _check(ties, design_effect, confidence, power)
    decided = 1 - ties
    if pairs < 1 or _pairs(decided, decided, design_effect, confidence, power, degrees_of_freedom) > pairs:
        return None

    def lacking(delta: float) -> float:
        return _pairs(delta, decided, design_effect, confidence, power, degrees_of_freedom) - pairs

    smallest = 1e-6
    return float((1 + optimize.brentq(lacking, smallest, decided)) / 2) if lacking(smallest) > 0 else 0.5


def _check(ties: float, design_effect: float, confidence: float, power: float) -> None:
    if not 0 <= ties < 1:
        raise ValueError(f"need a share of ties in [0, 1), got {ties}")
    if not design_effect > 0:
        raise ValueError(f"need a design effect above 0, got {design_effect}")
    for name, value in (("confidence", confidence), ("power", power)):
        if not 0 < value < 1:
            raise ValueError(f"need a {name} in (0, 1), got {value}")


def _pairs(
    delta: float, decided: float, design_effect: float, confidence: float, power: float, degrees_of_freedom: float
) -> float:
    """Return Connor's number of pairs, with Student's quantiles, times the design effect."""
    two_sided, one_sided = (
        effects.quantile(probability, degrees_of_freedom) for probability in ((1 + confidence) / 2, power)
    )
    spread = two_sided * math.sqrt(decided) + one_sided * math.sqrt(max(decided - delta**2, 0.0))
    return design_effect * (spread / delta) ** 2
