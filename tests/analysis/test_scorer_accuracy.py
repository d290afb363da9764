from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from gpro_empathy.analysis import scorer_accuracy, stock_phrases
from gpro_empathy.analysis.scorer_accuracy import Predictions
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.labels import LABELS

TURNS = [
    Turn(f"c{i // 2}", i % 2, "so what", (), *map(float, row))
    for i, row in enumerate(np.random.default_rng(0).integers([0, 0, 0], [6, 3, 6], (8, 3)))
]


def predictions(turns, seed=1):
    labels_B3 = np.array([[getattr(turn, name) or 0.0 for name in LABELS] for turn in turns])
    return labels_B3 + np.random.default_rng(seed).normal(0, 0.7, labels_B3.shape)


def test_correlation_and_error_agree_with_scipy_over_the_labelled_turns():
    turns = [replace(turn, empathy=None) if i in (1, 4) else turn for i, turn in enumerate(TURNS)]
    predicted_B3 = predictions(turns)
    found = scorer_accuracy.evaluate(turns, predicted_B3)
    pearsons = []
    for column, name in enumerate(LABELS):
        known = [i for i in range(8) if getattr(turns[i], name) is not None]
        label = [getattr(turns[i], name) for i in known]
        pearsons.append(stats.pearsonr(label, predicted_B3[known, column]).statistic)
        assert found[name]["pearson"] == pytest.approx(pearsons[-1])
        assert found[name]["mae"] == pytest.approx(np.abs(np.array(label) - predicted_B3[known, column]).mean())
    assert found["turns"] == 8
    assert found["mean_pearson"] == pytest.approx(np.mean(pearsons))


@pytest.mark.parametrize("labels", [[None] * 3, [1.0, None, 2.0], [1.0, 1.0, 1.0]])
def test_correlation_is_none_where_it_is_not_defined(labels):
    turns = [Turn("a", i, "x", (), float(i), 1.0 * (i % 2), label) for i, label in enumerate(labels)]
    found = scorer_accuracy.evaluate(turns, predictions(turns))
    assert found["empathy"]["pearson"] is None
    assert found["mean_pearson"] is None
    assert found["emotion"]["pearson"] is not None


def test_label_that_the_scorer_has_not_learned_has_no_numbers():
    predicted_B3 = predictions(TURNS)
    predicted_B3[:, 0] = np.nan
    found = scorer_accuracy.evaluate(TURNS, predicted_B3)
    assert found["emotion"] == {"pearson": None, "mae": None}
    assert found["mean_pearson"] is None
    assert found["empathy"]["pearson"] is not None


def test_evaluation_of_nothing_has_no_numbers():
    found = scorer_accuracy.evaluate([], np.zeros((0, 3)))
    assert found["turns"] == 0
    assert found["emotion"] == {"pearson": None, "mae": None}


def test_report_compares_both_scorers_on_the_held_out_turns():
    splits = {"validation": TURNS[:4], "test": [replace(TURNS[4], empathy=None), *TURNS[5:]]}
    trained_on = {"reward": TURNS[:4], "audit": TURNS[2:]}
    made = {}
    for seed, role in enumerate(trained_on):
        test_B3 = predictions(splits["test"], seed)
        with_ending_B = {ending: test_B3[:, 2] + seed for ending in stock_phrases.ENDINGS}
        made[role] = Predictions(predictions(splits["validation"], seed), test_B3, with_ending_B)
    report = scorer_accuracy.report(made, trained_on, splits, np.random.default_rng(0))
    reward_B, audit_B = (made[role].test_B3[:, 2] for role in ("reward", "audit"))
    difference_B = reward_B - audit_B
    assert report["agreement"]["pearson_empathy"] == pytest.approx(stats.pearsonr(reward_B, audit_B).statistic)
    assert report["agreement"]["mean_absolute_difference"] == pytest.approx(np.abs(difference_B).mean())
    assert report["agreement"]["limit_high"] == pytest.approx(difference_B.mean() + 1.96 * difference_B.std(ddof=1))
    assert report["audit"]["calibration"]["by_label"][0]["bias"]["estimate"] is not None
    assert report["reward"]["stock_phrases"]["mean"]["change"]["estimate"] == pytest.approx(0.0)
    assert report["audit"]["stock_phrases"]["mean"]["change"]["estimate"] == pytest.approx(1.0)
    assert [report[role]["train_turns"] for role in trained_on] == [4, 6]
    assert [report[role]["train_conversations"] for role in trained_on] == [2, 3]
    assert report["audit"]["test"] == scorer_accuracy.evaluate(splits["test"], made["audit"].test_B3)
    assert report["audit"]["validation"] == scorer_accuracy.evaluate(splits["validation"], made["audit"].validation_B3)


def test_table_has_a_row_for_every_turn_and_an_empty_cell_for_no_label():
    text = scorer_accuracy.table([replace(TURNS[4], empathy=None), TURNS[5]], np.array([1.0, 2.5]), np.array([0.25, 3]))
    assert text == (
        "conversation,turn,label_empathy,predicted_empathy,audit_empathy\n"
        "c2,0,,1.000000,0.250000\n"
        f"c2,1,{TURNS[5].empathy:g},2.500000,3.000000\n"
    )
