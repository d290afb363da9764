from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scipy import stats

from gpro_empathy.analysis import split_leak
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.labels import LABELS


def turns(lengths, name="c", per_story=1):
    """Make conversations of these lengths, so many of them on each story."""
    return [
        Turn(f"{name}{c}", t, "x", (), 1.0, 1.0, 1.0, f"{name}-story{c // per_story}")
        for c, n in enumerate(lengths)
        for t in range(n)
    ]


@effort(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
    st.integers(0, 9),
)
def test_leaking_scorer_learns_from_as_many_turns_and_from_none_that_is_held_out(train, test, seed):
    train, test = turns(train, "a"), turns(test, "b")
    leaking, held_out = split_leak.split(train, test, np.random.default_rng(seed))
    keys = {turn.key for turn in leaking}
    assert len(leaking) == len(keys) == len(train)
    assert not keys & {turn.key for turn in held_out}
    assert {turn.conversation for turn in held_out} == {turn.conversation for turn in test}
    seen = sum(len([t for t in test if t.conversation == c]) // 2 for c in {turn.conversation for turn in test})
    assert len(held_out) == len(test) - seen
    assert sum(turn.conversation.startswith("b") for turn in leaking) == min(seen, len(train))


def test_stories_are_halved_and_not_conversations():
    test = turns([1, 1, 1, 1], "b", per_story=2)
    leaking, held_out = split_leak.split(turns([8], "a"), test, np.random.default_rng(0))
    # Of each story one of two conversations, a turn each, is learned from.
    assert sorted(turn.story for turn in held_out) == ["b-story0", "b-story1"]
    assert sum(turn.story.startswith("b") for turn in leaking) == 2
    assert split_leak.is_measurable(turns([8], "a"), test)
    assert not split_leak.is_measurable(turns([3, 3], "b", per_story=2)[:3], test)


def predictions(seed=0, conversations=24, n=6):
    """Make labels of conversations with a mood, and predictions that do not and do know it."""
    rng = np.random.default_rng(seed)
    conversation = np.repeat(np.arange(conversations), n)
    mood = rng.normal(0, 0.7, (conversations, 3))[conversation]
    own = rng.normal(0, 0.7, (len(conversation), 3))
    noise = rng.normal(0, 0.5, own.shape)
    return own + mood, own + noise, own + mood + noise, conversation


def test_correlations_and_their_difference_agree_with_scipy():
    labels, grouped, leaking, conversation = predictions()
    found = split_leak.compare(labels, grouped, leaking, conversation, np.random.default_rng(0))
    oracle = [[stats.pearsonr(part[:, k], labels[:, k]).statistic for k in range(3)] for part in (grouped, leaking)]
    for k, name in enumerate(LABELS):
        row = found["labels"][name]
        assert [row["grouped"], row["by_turn"]] == pytest.approx([oracle[0][k], oracle[1][k]])
        assert row["difference"]["estimate"] == pytest.approx(oracle[1][k] - oracle[0][k])
    assert found["mean"]["difference"]["estimate"] == pytest.approx(np.mean(oracle[1]) - np.mean(oracle[0]))
    assert found["mean"]["difference"]["low"] > 0


def test_equal_predictions_leave_no_difference():
    labels, grouped, _, conversation = predictions()
    found = split_leak.compare(labels, grouped, grouped, conversation, np.random.default_rng(0))
    assert found["mean"]["difference"] == pytest.approx({"estimate": 0, "low": 0, "high": 0}, abs=1e-12)


def test_predictions_without_spread_have_no_correlation():
    labels, grouped, _, conversation = predictions()
    found = split_leak.compare(labels, grouped, np.ones_like(grouped), conversation, np.random.default_rng(0))
    assert found["mean"]["by_turn"] is None
    assert set(found["mean"]["difference"].values()) == {None}


@pytest.mark.parametrize(
    ("train", "test"),
    [(turns([3]), turns([3])), (turns([3], "a"), turns([1, 1]))],
    ids=["split by turn", "single turns"],
)
def test_leak_is_not_measured_where_it_cannot_be(train, test):
    assert not split_leak.is_measurable(train, test)
    assert split_leak.is_measurable(turns([3], "a"), turns([1, 2]))


def test_held_out_turns_carry_every_label():
    test = [replace(turn, polarity=None) if turn.turn % 2 else turn for turn in turns([6] * 4, "b")]
    leaking, held_out = split_leak.split(turns([9]), test, np.random.default_rng(0))
    _, unfiltered = split_leak.split(turns([9]), turns([6] * 4, "b"), np.random.default_rng(0))
    assert held_out == [turn for turn in unfiltered if not turn.turn % 2]
    assert any(turn.polarity is None for turn in leaking)


def test_report_holds_the_sizes_and_the_comparison_of_the_held_out_turns():
    held_out = [Turn(f"b{c}", t, "x", (), float(t), 0.5 * t, float(c)) for c in range(4) for t in range(3)]
    label_B3 = np.array([[turn.emotion, turn.polarity, turn.empathy] for turn in held_out])
    report = split_leak.report(turns([7]), held_out, -label_B3, label_B3, np.random.default_rng(0))
    assert (report["train_turns"], report["held_out_turns"], report["held_out_conversations"]) == (7, 12, 4)
    assert report["held_out_stories"] == 4
    assert (report["mean"]["grouped"], report["mean"]["by_turn"]) == pytest.approx((-1.0, 1.0))
