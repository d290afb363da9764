import math

import numpy as np
import pytest
from scipy import stats

from gpro_empathy.analysis.rating_power import detectable_win_rate, pairs_needed


def test_pairs_for_a_win_rate_of_three_in_five_worked_by_hand():
    # (1.95996 * 0.5 + 0.84162 * sqrt(0.24))^2 / 0.1^2 = 193.85
    assert pairs_needed(0.6) == 194
    # Half of the pairs tied: (1.95996 sqrt(0.5) + 0.84162 sqrt(0.5 - 0.04))^2 / 0.2^2 = 95.76
    assert pairs_needed(0.6, ties=0.5) == 96
    assert pairs_needed(0.4) == pairs_needed(0.6)
    assert pairs_needed(0.6, design_effect=2.0) == 388


def test_a_variance_from_few_raters_takes_more_pairs():
    # Student's quantiles at 5 degrees: (2.57058 * 0.5 + 0.91954 * sqrt(0.24))^2 / 0.1^2 = 301.3
    assert pairs_needed(0.6, degrees_of_freedom=5) == 302
    assert detectable_win_rate(302, degrees_of_freedom=5) == pytest.approx(0.6, abs=0.001)
    assert detectable_win_rate(4, degrees_of_freedom=5) is None


@pytest.mark.parametrize(("win_rate", "ties"), [(0.6, 0.0), (0.6, 0.4), (0.35, 0.2), (0.75, 0.3)])
def test_so_many_pairs_find_the_preference_with_the_stated_power(win_rate, ties):
    pairs = pairs_needed(win_rate, ties)
    wins = win_rate - ties / 2
    drawn_R3 = np.random.default_rng(3).multinomial(pairs, [wins, ties, 1 - wins - ties], size=20_000)
    z_R = (drawn_R3[:, 0] - drawn_R3[:, 2]) / np.sqrt(drawn_R3[:, 0] + drawn_R3[:, 2])
    assert np.mean(np.abs(z_R) > stats.norm.ppf(0.975)) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("ties", "effect", "power"), [(0.0, 1.0, 0.8), (0.4, 1.7, 0.9), (0.2, 1.0, 0.5)])
def test_smallest_win_rate_is_the_inverse_of_the_pairs(ties, effect, power):
    pairs = pairs_needed(0.62, ties, effect, 0.9, power)
    found = detectable_win_rate(pairs, ties, effect, 0.9, power)
    assert found <= 0.62
    assert pairs_needed(found, ties, effect, 0.9, power) in (pairs, pairs + 1)
    assert math.isclose(found, 0.62, abs_tol=0.01)


def test_few_pairs_show_nothing_even_if_all_are_won():
    # All of n decided pairs won: z = sqrt(n), which must reach 1.96.
    assert detectable_win_rate(3) is None
    assert detectable_win_rate(4) == pytest.approx(0.98, abs=0.02)
    assert detectable_win_rate(0) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"win_rate": 0.5}, r"one half\b.*\b0\.5"),
        ({"win_rate": 1.2}, r"\[0, 1\].*\b1\.2"),
        ({"win_rate": 0.9, "ties": 0.5}, r"\b0\.9\b.*\b0\.5\b.*\btied"),
        ({"win_rate": 0.6, "ties": 1.0}, r"\bties\b.*\b1\.0"),
        ({"win_rate": 0.6, "design_effect": 0.0}, r"design effect\b.*\b0\.0"),
        ({"win_rate": 0.6, "power": 1.0}, r"\bpower\b.*\b1\.0"),
        ({"win_rate": 0.6, "confidence": 95}, r"\bconfidence\b.*\b95"),
    ],
)
def test_refuses_what_is_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        pairs_needed(**arguments)


def test_every_decided_pair_may_be_won():
    # How many are decided is still chance:
    # (1.95996 sqrt(0.4) + 0.84162 sqrt(0.4 - 0.4^2))^2 / 0.4^2 = 17.05
    assert pairs_needed(0.7, ties=0.6) == pairs_needed(0.3, ties=0.6) == 18
