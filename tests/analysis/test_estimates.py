import numpy as np
import pytest
from scipy import stats

from gpro_empathy.analysis import bootstrap, estimates

MOMENTS = {"correlation": estimates.correlation, "slope": estimates.slope}


def made(conversations=20, turns=5, seed=0, slope=0.5):
    """Make pairs whose noise is partly that of their conversation."""
    rng = np.random.default_rng(seed)
    conversation = np.repeat(np.arange(conversations), turns)
    x = rng.normal(2, 1, len(conversation))
    y = slope * x + rng.normal(0, 0.5, conversations)[conversation] + rng.normal(0, 0.5, len(x))
    return x, y, conversation


def rng():
    return np.random.default_rng(1)


@pytest.mark.parametrize("name", MOMENTS)
def test_estimates_agree_with_scipy(name):
    x, y, conversation = made()
    found = estimates.statistic(MOMENTS[name], estimates.moments(x, y), conversation, rng())
    oracle = stats.linregress(x, y)
    assert found["estimate"] == pytest.approx({"correlation": oracle.rvalue, "slope": oracle.slope}[name])
    assert found["low"] < found["estimate"] < found["high"]


def test_values_far_from_zero_lose_no_digits():
    x, y, conversation = made()
    near, far = (
        estimates.statistic(estimates.slope, estimates.moments(x + shift, y - shift), conversation, rng())
        for shift in (0, 1e6)
    )
    assert far == pytest.approx(near, rel=1e-6)


@pytest.mark.parametrize("name", MOMENTS)
def test_saying_everything_twice_in_a_conversation_tells_nothing_new(name):
    x, y, conversation = made()
    once = estimates.statistic(MOMENTS[name], estimates.moments(x, y), conversation, rng())
    twice = estimates.statistic(
        MOMENTS[name], estimates.moments(np.tile(x, 2), np.tile(y, 2)), np.tile(conversation, 2), rng()
    )
    assert twice == pytest.approx(once)


def test_slope_is_covered_at_the_stated_rate(monkeypatch):
    monkeypatch.setattr(estimates, "N_RESAMPLES", 400)
    held = 0
    for seed in range(400):
        x, y, conversation = made(seed=seed)
        found = estimates.statistic(estimates.slope, estimates.moments(x, y), conversation, np.random.default_rng(seed))
        held += found["low"] <= 0.5 <= found["high"]
    assert 0.92 <= held / 400 <= 0.98


def test_constant_value_has_an_interval_of_no_width():
    assert estimates.mean(np.full(40, 0.3), np.arange(40) // 2, rng()) == pytest.approx(
        {"estimate": 0.3, "low": 0.3, "high": 0.3}
    )


@pytest.mark.parametrize("conversations", [1, bootstrap.FEWEST_STORIES - 1])
def test_few_conversations_give_an_estimate_without_an_interval(conversations):
    x, y, conversation = made(conversations)
    for found in (
        estimates.mean(x, conversation, rng()),
        estimates.statistic(estimates.slope, estimates.moments(x, y), conversation, rng()),
    ):
        assert found["estimate"] is not None
        assert (found["low"], found["high"]) == (None, None)


@pytest.mark.parametrize("name", MOMENTS)
def test_what_has_no_spread_has_no_estimate(name):
    found = estimates.statistic(MOMENTS[name], estimates.moments(np.ones(30), np.arange(30)), np.arange(30), rng())
    assert set(found.values()) == {None}


def test_nothing_has_no_estimate():
    empty = np.array([])
    assert set(estimates.mean(empty, empty, rng()).values()) == {None}
    found = estimates.statistic(estimates.slope, estimates.moments(empty, empty), empty, rng())
    assert set(found.values()) == {None}


@pytest.mark.parametrize(
    ("low", "high", "side"), [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.1, 0), (None, None, None)]
)
def test_side_is_the_one_on_which_the_whole_interval_lies(low, high, side):
    assert estimates.side({"estimate": 0.0, "low": low, "high": high}, 0) == side
