import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scipy import stats

from gpro_empathy.analysis import split_leak
from gpro_empathy.data.dialogue import LABELS, Turn
from gpro_empathy.scorer import fitting


def turns(lengths, name="c"):
    return [Turn(f"{name}{c}", t, "x", (), 1.0, 1.0, 1.0) for c, n in enumerate(lengths) for t in range(n)]


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


def predictions(seed=0, conversations=24, n=6):
    """Make labels of conversations with a mood, predictions that do not know it, and predictions that do."""
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
def test_leak_is_not_measured_where_it_cannot_be(settings, train, test):
    assert split_leak.measure(None, train, test, settings.train_scorer) is None


def test_scorer_that_saw_the_conversations_is_told_from_one_that_did_not(settings):
    """Each conversation has a word of its own, which tells all its labels."""
    torch.set_num_threads(1)
    rng, words = (
        np.random.default_rng(0),
        "dog dam mine flood fire bus farm school ship bridge storm well lamp gate hill road".split(),
    )
    made = []
    for c, word in enumerate(words):
        labels = rng.uniform(0, 2, 3)
        made += [Turn(f"c{c}", t, word, (), *map(float, labels + rng.normal(0, 0.05, 3))) for t in range(4)]
    config = settings.train_scorer.model_copy(
        update={
            "encoder": "random", "epochs": 120, "batch_size": 8, "learning_rate": 1e-2, "lora_dropout": 0.0, "lora_rank": 8,
            "max_tokens": 8, "layers": 2,
        }
    )  # fmt: skip
    train, test = made[:16], made[16:]
    model = fitting.train(train, config, seed=0, progress=lambda line: None)
    found = split_leak.measure(model, [*train, *turns([8] * 4, "x")], test, config)
    assert (found["train_turns"], found["held_out_turns"], found["held_out_conversations"]) == (48, 24, 12)
    assert found["mean"]["by_turn"] > 0.8
    assert found["mean"]["difference"]["low"] > 0
