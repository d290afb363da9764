import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import made_up
import people_scorer
from gpro_empathy import files
from gpro_empathy.analysis import response_table
from gpro_empathy.data import ratings

ROOT = Path(__file__).resolve().parents[2]
HEADER = (
    "id,article_id,conversation_id,turn_id,speaker,text,person_id_1,person_id_2,Emotion,EmotionalPolarity,Empathy\n"
)
# What people say, by how empathetic it is.
SAID = {0: "the lamp is on the table", 2: "that is a pity, I think", 4: "I am so sorry, my heart goes out to them"}


def official(articles):
    """Return a file in the official layout, with three turns on each article."""
    lines = [
        f'{3 * article + n},{article},{article},{n},"Person 1","{text} {n}","p1","p2",{level},{level // 2},{level}\n'
        for article in articles
        for n, (level, text) in enumerate(SAID.items())
    ]
    return HEADER + "".join(lines)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the command on rollouts, beside small official files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(people_scorer, "RESULT", tmp_path / "people_scorer.md")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for name, articles in (("train", range(12)), ("dev", range(20, 24))):
        (tmp_path / f"trac2_CONVT_{name}.csv").write_text(official(articles))
    turn = {"conversation": "1", "turn": 0, "text": SAID[4], "context": [], "story": "s"}
    labels = [{"emotion": level, "polarity": level / 2, "empathy": level, "text": text} for level, text in SAID.items()]
    files.write_jsonl(
        tmp_path / "data/prepared/test.jsonl", [turn | label | {"turn": n} for n, label in enumerate(labels)]
    )

    def main(rows):
        files.write_jsonl(tmp_path / "data/rollouts/rollouts.jsonl", rows)
        monkeypatch.setattr(sys, "argv", ["people_scorer.py", "."])
        people_scorer.main()
        return (tmp_path / "people_scorer.md").read_text()

    return main


def rows(tuned, seeds=(23,)):
    made = made_up.rollouts("none", prompts=20, conversations=20, seeds=seeds)
    return [row | {"answer": SAID[tuned if row["model"] == "tuned" else 0]} for row in made]


def change(text):
    line = next(line for line in text.splitlines() if line.startswith("| this one |") and line.count("|") > 5)
    return [cell.strip() for cell in line.split("|")[2:7]]


def test_answers_that_people_would_rate_higher_are_a_gain(run):
    start, tuned, difference, interval, new = change(run(rows(tuned=4)))
    assert float(tuned) > float(start) + 1
    assert float(difference) > 1
    assert float(interval.strip("[]").split(",")[0]) > 1
    assert new == "not known"


def test_equal_answers_are_no_gain_and_several_trainings_have_an_interval_for_a_new_one(run):
    text = run(rows(tuned=0, seeds=(23, 24)))
    assert change(text)[2:] == ["+0.00", "[0.00, 0.00]", "[0.00, 0.00]"]
    assert "23, 24" in text


def test_agreement_is_over_different_answers_and_with_the_mean_mark_of_those_rated():
    table = response_table.responses(made_up.rollouts("none", prompts=8, conversations=8))
    table["people"] = table["empathy_raw"]
    table["audit_empathy_raw"] = -table["empathy_raw"]
    table["answer"] = [f"answer {i}" for i in range(len(table))]
    answers = table[table["model"] != "base"]
    texts = [ratings.text_hash(*one) for one in zip(answers["prompt"], answers["answer"], strict=True)]
    rated = dict(zip(texts[:6], answers["empathy_raw"][:6], strict=True))
    said = "\n".join(people_scorer.agreement(table, rated))
    assert f"Over the {len(answers)} different answers of both policies, and over the 6 of them" in said
    assert "| held-out scorer | -1.00 | -1.00 |" in said
    assert "| reward's scorer | 1.00 | 1.00 |" in said
    assert "| this one | 1.00 | not defined |" in "\n".join(people_scorer.agreement(table, {}))


def test_marks_of_one_answer_are_averaged():
    single = [ratings.Rating("a", "person", "single", "r1", None, None, 2, mark) for mark in (2, 5)]
    pair = ratings.Rating("a", "person", "pair", "r1", "r2", "left", None, None)
    assert people_scorer.rated_empathy([*single, pair]) == {"r1": np.mean([2, 5])}
