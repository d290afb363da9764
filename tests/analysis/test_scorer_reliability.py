import numpy as np
import pytest

from gpro_empathy.analysis import scorer_reliability
from gpro_empathy.data.dialogue import Turn


def turn(i, empathy, words=1, polarity=1.0, conversation=None):
    return Turn(conversation or f"c{i}", i, " ".join(["word"] * words), (), 1.0, polarity, empathy)


def calibration(turns, predicted):
    return scorer_reliability.calibration(turns, np.array(predicted, dtype=float), np.random.default_rng(0))


def rows(found, kind):
    return [
        (row["group"], row["turns"], round(row["bias"]["estimate"], 6), round(row["mae"], 6)) for row in found[kind]
    ]


def test_errors_by_level_length_and_polarity_are_those_worked_out_by_hand():
    turns = [
        turn(0, 0.0, words=2, polarity=0.0), turn(1, 0.3333, words=3, polarity=0.3333), turn(2, 2.5, words=5, polarity=2.0),
        turn(3, 3.0, words=8, polarity=1.6667), turn(4, 3.0, words=9, polarity=None), turn(5, None, words=30),
        turn(6, 3.3333, words=9, polarity=2.0),
    ]  # fmt: skip
    found = calibration(turns, [1.0, 1.3333, 2.0, 3.5, 2.5, 9.0, 3.3333])
    assert rows(found, "by_label") == [("0", 2, 1.0, 1.0), ("3", 4, -0.125, 0.375)]
    assert rows(found, "by_words") == [("2-3", 2, 1.0, 1.0), ("5-8", 2, 0.0, 0.5), ("9-9", 2, -0.25, 0.25)]
    assert rows(found, "by_polarity") == [("0", 2, 1.0, 1.0), ("2", 3, 0.0, 0.333333)]


def test_turns_of_one_length_are_one_group():
    assert rows(calibration([turn(i, float(i)) for i in range(4)], range(4)), "by_words") == [("1-1", 4, 0.0, 0.0)]


def test_slope_is_of_the_label_on_the_prediction():
    labels = np.linspace(0, 5, 30)
    found = calibration([turn(i, float(label)) for i, label in enumerate(labels)], 2 + (labels - 2) / 2)
    assert found["slope"] == pytest.approx({"estimate": 2.0, "low": 2.0, "high": 2.0})


def test_reliability_has_bins_of_equally_many_turns_in_the_order_of_their_predictions():
    turns = [turn(i, float(i % 2)) for i in range(52)]
    found = calibration(turns, range(52, 0, -1))["reliability"]
    assert [row["turns"] for row in found] == [11, 11, 10, 10, 10]
    assert [row["predicted"] for row in found] == [6, 17, 27.5, 37.5, 47.5]
    assert found[2]["labelled"]["estimate"] == 0.5
    assert found[2]["labelled"]["low"] is None  # ten conversations
    assert found[0]["labelled"]["low"] is None


def test_interval_of_a_bin_is_over_conversations():
    turns = [turn(i, float(i % 3), conversation=f"c{i % 40}") for i in range(200)]
    row = calibration(turns, np.arange(200))["reliability"][0]
    assert row["labelled"]["low"] < row["labelled"]["estimate"] < row["labelled"]["high"]


def test_turns_without_any_label_have_no_numbers():
    found = calibration([turn(0, None)], [1.0])
    assert found["slope"]["estimate"] is None
    assert found["by_label"] == found["by_words"] == found["by_polarity"] == found["reliability"] == []
