import csv
import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from gpro_empathy import files
from gpro_empathy.analysis import readings


def response(policy="tuned", prompt="1.2", text="That is hard.", seed=23, story="a"):
    return {"model": policy, "seed": seed, "prompt_id": prompt, "text": text, "story": story}


def reading(policy="tuned", prompt="1.2", text="That is hard.", seed=None, sense=2, empathetic=1, reader="A"):
    return readings.Reading(policy, seed, prompt, text, sense, empathetic, reader)


def write(path, *rows, header=readings.COLUMNS):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_table_is_read_with_names_and_texts_as_they_are(tmp_path):
    path = write(
        tmp_path / "test.csv",
        ["test-1", "tuned-23", "1.20", "nan, \u201cyes\u201d\nline two ", "2", "1", "A"],
        ["test-1", "warm_start", "2.3", "So.", "0", "0", "A"],
    )
    assert readings.read(path) == [
        reading(seed=23, prompt="1.20", text="nan, \u201cyes\u201d\nline two"),
        reading("warm_start", "2.3", "So.", sense=0, empathetic=0),
    ]


def test_without_a_table_there_are_no_readings(tmp_path):
    found = readings.summary(readings.read(tmp_path / "test.csv"), [response()], 0.95)
    assert found == {"readings": 0, "of_another_run": 0, "readers": [], "policies": {}, "agreement": []}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("sense", "3", r"test.csv: reading 1: sense: '3' is none of 0, 1, 2"),
        ("empathetic", "", r"reading 1: empathetic: '' is none of 0, 1"),
        ("policy", "best", r"reading 1: policy: 'best' is none of base, warm_start, tuned, with a training seed"),
        ("policy", "tuned-x", r"policy: 'tuned-x' is none of"),
    ],
)
def test_unknown_mark_or_policy_is_refused_with_its_place(tmp_path, column, value, message):
    row = dict(zip(readings.COLUMNS, ["s", "tuned", "1.2", "Hm.", "2", "1", "A"], strict=True)) | {column: value}
    with pytest.raises(files.UserError, match=message):
        readings.read(write(tmp_path / "test.csv", list(row.values())))


def test_missing_column_and_a_torn_row_are_refused(tmp_path):
    with pytest.raises(files.UserError, match="column 'reader' is missing; its README lists the columns"):
        readings.read(write(tmp_path / "test.csv", header=readings.COLUMNS[:-1]))
    with pytest.raises(files.UserError, match="reading 1: has not as many cells as the header"):
        readings.read(write(tmp_path / "test.csv", ["s", "tuned", "1.2"]))


def test_counts_and_shares_are_of_this_runs_answers_alone():
    rows = [response(prompt=f"{n}.1", text=f"answer {n}", story=f"story {n // 2}") for n in range(4)]
    rows += [response("warm_start", "0.1", "answer w", seed=None)]
    marks = [(2, 1), (2, 0), (1, 1), (0, 0)]
    read = [
        reading(prompt=f"{n}.1", text=f"answer {n}", sense=sense, empathetic=warm)
        for n, (sense, warm) in enumerate(marks)
    ]
    # The words of another run, another prompt, another policy, and another training.
    read += [reading(prompt="0.1", text="other words"), reading(prompt="1.1", text="answer 0")]
    read += [reading("warm_start", "0.1", "answer 0"), reading(prompt="0.1", text="answer 0", seed=5)]
    found = readings.summary(read, rows, 0.95)
    assert (found["readings"], found["of_another_run"]) == (4, 4)
    assert list(found["policies"]) == ["tuned"]
    tuned = found["policies"]["tuned"]
    assert {name: tuned[name] for name in ("answers", "stories", "sensible", "off", "nonsense", "empathetic")} == {
        "answers": 4, "stories": 2, "sensible": 2, "off": 1, "nonsense": 1, "empathetic": 2,
    }  # fmt: skip
    assert tuned["shares"]["sensible"]["estimate"] == 0.5


@pytest.mark.parametrize(("count", "of"), [(0, 60), (24, 60), (60, 60), (1, 2)])
def test_interval_of_a_share_is_wilsons(count, of):
    rows = [response(prompt=f"{n}.1") for n in range(of)]
    read = [reading(prompt=f"{n}.1", sense=2 if n < count else 0) for n in range(of)]
    share = readings.summary(read, rows, 0.95)["policies"]["tuned"]["shares"]["sensible"]
    z, p = 1.959963985, count / of
    middle, reach = p + z**2 / (2 * of), z * math.sqrt(p * (1 - p) / of + z**2 / (4 * of**2))
    assert share["low"] == pytest.approx((middle - reach) / (1 + z**2 / of), abs=1e-8)
    assert share["high"] == pytest.approx((middle + reach) / (1 + z**2 / of), abs=1e-8)


def test_of_two_readings_of_an_answer_the_lower_one_counts():
    read = [reading(sense=2, empathetic=1, reader="A"), reading(sense=1, empathetic=0, reader="B")]
    tuned = readings.summary(read, [response(), response(seed=5)], 0.95)["policies"]["tuned"]
    assert (tuned["answers"], tuned["sensible"], tuned["off"], tuned["empathetic"]) == (1, 0, 1, 0)


def test_readers_are_compared_over_the_answers_that_both_read():
    rng = np.random.default_rng(2)
    rows = [response(prompt=f"{n}.1") for n in range(30)]
    first, second = rng.integers(0, 3, 30), rng.integers(0, 3, 30)
    second[:15] = first[:15]
    read = [reading(prompt=f"{n}.1", sense=int(first[n]), reader="A") for n in range(30)]
    read += [reading(prompt=f"{n}.1", sense=int(second[n]), reader="B") for n in range(20)]
    read += [reading(prompt="29.1", sense=2, reader="C")]
    agreement = readings.summary(read, rows, 0.95)["agreement"]
    assert [(pair["readers"], pair["answers"]) for pair in agreement] == [(["A", "B"], 20), (["A", "C"], 1)]
    assert agreement[0]["kappa"] == pytest.approx(cohen_kappa_score(first[:20] == 2, second[:20] == 2))


def test_kappa_is_not_defined_where_both_readers_always_say_the_same():
    assert readings.kappa([(True, True)] * 3) is None
    assert readings.kappa([(True, False), (False, True)]) == -1
