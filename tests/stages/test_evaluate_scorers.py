"""What the stage computes with scorers in hand: predictions, and the leak of a split by turn."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gpro_empathy.analysis import stock_phrases
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.scorer import fitting
from gpro_empathy.stages import evaluate_scorers
from made_up import WordCounter


def turns(n, name="c"):
    return [Turn(name, i, "so what", ("hello",) * i, 1.0, 1.0, 1.0) for i in range(n)]


def test_predictions_are_of_each_split_and_of_the_test_turns_with_every_ending():
    predicted = evaluate_scorers.predict(WordCounter(), {"validation": turns(2), "test": turns(3)})
    assert predicted.validation_B3[:, 2] == pytest.approx([0.2, 1.2])
    assert predicted.test_B3[:, 2] == pytest.approx([0.2, 1.2, 2.2])
    assert list(predicted.with_ending_B) == list(stock_phrases.ENDINGS)
    assert predicted.with_ending_B["I'm so sorry to hear that."] == pytest.approx([1.3, 2.3, 3.3])
    assert predicted.with_ending_B["The shop opens early."] == pytest.approx([0.6, 1.6, 2.6])


def test_leak_is_not_measured_where_it_cannot_be(settings):
    assert evaluate_scorers.measure_leak(None, turns(3), turns(3), settings.train_scorer) is None


def test_leak_is_not_measured_without_a_turn_that_carries_every_label(settings):
    test = [replace(turn, emotion=None) for turn in turns(4)]
    assert evaluate_scorers.measure_leak(None, turns(4, "d"), test, settings.train_scorer) is None


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
    others = [turn for c in range(4) for turn in turns(8, f"x{c}")]
    found = evaluate_scorers.measure_leak(model, [*train, *others], test, config)
    assert (found["train_turns"], found["held_out_turns"], found["held_out_stories"]) == (48, 24, 12)
    assert found["mean"]["by_turn"] > 0.8
    assert found["mean"]["difference"]["low"] > 0
