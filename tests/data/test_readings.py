"""Readings of answers, from which the reader model learns."""

import json
from collections import Counter
from pathlib import Path

import pytest

from gpro_empathy.data import readings, sources
from gpro_empathy.files import UserError

ROOT = Path(__file__).parents[2]
READING = {"conversation": 1, "turn": 0, "answer": "That sounds hard.", "sense": 2, "empathetic": 1}
TURNS = (
    '"id","article_id","conversation_id","turn_id","speaker","text","person_id_1","person_id_2",'
    '"Emotion","EmotionalPolarity","Empathy","SelfDisclosure"\n'
    + "".join(f'{n},{n},{n},0,"Person 1","so sad {n}","u1","u2",1,1,1,NULL\n' for n in (1, 2, 3))
)


@pytest.fixture
def config(settings, tmp_path):
    (tmp_path / "turns.csv").write_text(TURNS)
    return settings.prepare.model_copy(update={"source": "embedded", "embedded_folder": str(tmp_path)})


def write(config, *rows):
    path = Path(config.embedded_folder) / "readings.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def splits(config):
    turns = sources.wassa.read_labelled(Path(config.embedded_folder) / "turns.csv")
    return dict(zip(("train", "validation", "test"), ([turn] for turn in turns), strict=True))


def test_readings_follow_the_split_of_their_turns_and_those_of_test_turns_serve_for_nothing(config):
    write(config, READING, READING | {"conversation": 2, "sense": 0}, READING | {"conversation": 3})
    found = readings.load(config, splits(config))
    expected = {"utterance": "so sad 1", "answer": "That sounds hard.", "sense": 2, "empathetic": 1}
    assert found == {"train": [expected], "validation": [expected | {"utterance": "so sad 2", "sense": 0}]}


def test_other_sources_learn_from_every_reading(config):
    write(config, READING, READING | {"conversation": 3})
    found = readings.load(config.model_copy(update={"source": "hub"}), {"train": [], "validation": []})
    assert [row["utterance"] for row in found["train"]] == ["so sad 1", "so sad 3"]
    assert found["validation"] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turn": 7}, r"readings\.jsonl, line 2: .*turns\.csv.*\b7\b"),
        ({"mood": "grim"}, r"line 2: .*\bmood\b"),
        ({"answer": " "}, r"line 2: answer"),
        ({"answer": 3}, r"line 2: answer"),
        ({"sense": 3}, r"line 2: sense is 3\b.*\b2\b"),
        ({"sense": True}, r"line 2: sense is True"),
        ({"empathetic": 0.5}, r"line 2: empathetic is 0\.5"),
    ],
)
def test_refuses_a_malformed_reading_with_its_line(config, change, message):
    write(config, READING, READING | change)
    with pytest.raises(UserError, match=message):
        readings.load(config, splits(config))


def test_readings_of_the_corpus_are_of_training_and_validation_stories_alone(settings):
    config = settings.prepare.model_copy(update={"embedded_folder": str(ROOT / "data/embedded")})
    parts = sources.load(config)
    found = readings.load(config, parts)
    lines = (ROOT / "data/embedded/readings.jsonl").read_text().splitlines()
    assert sum(map(len, found.values())) == len(lines)
    for name, rows in found.items():
        assert {row["utterance"] for row in rows} <= {turn.text for turn in parts[name]}
        assert set(Counter(row["sense"] for row in rows)) == {0, 1, 2}
