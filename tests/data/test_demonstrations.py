"""Demonstrations, by which the warm start learns."""

import json
from pathlib import Path

import pytest
from small_corpus import DEMONSTRATION, MESSAGE, prepare_settings, stories

from gpro_empathy.data import demonstrations, sources
from gpro_empathy.files import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def embedded(settings, tmp_path):
    return prepare_settings(settings, tmp_path)


def test_demonstrations_are_those_of_training_turns_alone_and_none_is_about_a_test_story(settings):
    config = settings.prepare.model_copy(update={"embedded_folder": str(ROOT / "data/embedded")})
    parts = sources.load(config)
    train = parts["train"]
    prepared = demonstrations.load(config, parts)
    found = prepared["train"]
    texts = {turn.text for turn in train}
    rows = [json.loads(line) for line in (ROOT / "data/embedded/demonstrations.jsonl").read_text().splitlines()]
    keys = {turn.key for turn in train}
    messages = {row["text"] for row in rows if "text" in row}
    of_turns = [f"{row['conversation']}.{row['turn']}" for row in rows if "text" not in row]
    assert len(found) == sum(key in keys for key in of_turns) + len(messages)
    assert 0 < len(found) < len(rows)
    assert {row["utterance"] for row in found} <= texts | messages
    story = {turn.key: turn.story for turns in parts.values() for turn in turns}
    shown = {story[key] for key in of_turns}
    assert not shown & stories(parts)["test"]
    assert len(found) + len(prepared["validation"]) == len(rows)
    # The comment of warm_start.demonstrations says how many there are.
    assert f"# story, {len(found):,} of the embedded corpus)" in (ROOT / "params.yaml").read_text()


def test_other_sources_may_use_every_demonstration(embedded):
    other = embedded.model_copy(update={"source": "hub"})
    none = {"train": [], "validation": []}
    prepared = demonstrations.load(other, none)
    (found,) = prepared["train"]
    assert found["utterance"] == "said 0 1"
    assert found["response"].endswith("<answer>\nThat sounds hard.\n</answer>")
    assert prepared["validation"] == []
    assert demonstrations.load(embedded, none) == none


def test_a_demonstration_of_a_message_of_its_own_trains_in_every_split_and_never_validates(embedded):
    path = Path(embedded.embedded_folder) / "demonstrations.jsonl"
    path.write_text(json.dumps(DEMONSTRATION) + "\n" + json.dumps(MESSAGE) + "\n")
    (turn,) = [t for turns in sources.load(embedded).values() for t in turns if t.key == "0.1"]
    for name, texts in (
        ("train", {"train": [turn.text, MESSAGE["text"]], "validation": []}),
        ("validation", {"train": [MESSAGE["text"]], "validation": [turn.text]}),
    ):
        splits = {"train": [], "validation": [], name: [turn]}
        prepared = demonstrations.load(embedded, splits)
        assert {part: [row["utterance"] for row in rows] for part, rows in prepared.items()} == texts
    hub = embedded.model_copy(update={"source": "hub"})
    assert len(demonstrations.load(hub, splits)["train"]) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{}, {}], "line 2: "),
        ([{"turn": 1}], r"line 1: .*\bturn\b"),
        ([{"intensity": 9}], "line 1: .*format"),
        ([{"answer": None}], "line 1: answer is None"),
        ([{"text": 5}], "line 1: text is 5"),
    ],
)
def test_refuses_a_malformed_demonstration_of_a_message_with_its_line(embedded, rows, message):
    path = Path(embedded.embedded_folder) / "demonstrations.jsonl"
    path.write_text("".join(json.dumps(MESSAGE | row) + "\n" for row in rows))
    with pytest.raises(UserError, match=message):
        demonstrations.load(embedded, {"train": [], "validation": []})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turn": 7}, r"demonstrations\.jsonl, line 2: .*turns\.csv.*\b7\b.*\b0\b"),
        ({"mood": "grim"}, r"demonstrations\.jsonl, line 2: .*\bmood\b"),
        ({"intensity": 6}, r"demonstrations\.jsonl, line 2: .*format"),
        ({"answer": "One. Two. Three."}, r"demonstrations\.jsonl, line 2: .*format"),
        ({"answer": ""}, r"demonstrations\.jsonl, line 2: .*format"),
        ({}, r"demonstrations\.jsonl, line 2: .*\b0\.1\b.*earlier"),
    ],
)
def test_refuses_a_malformed_demonstration_with_its_line(embedded, change, message):
    path = Path(embedded.embedded_folder) / "demonstrations.jsonl"
    path.write_text(json.dumps(DEMONSTRATION) + "\n" + json.dumps(DEMONSTRATION | change) + "\n")
    with pytest.raises(UserError, match=message):
        demonstrations.load(embedded, {"train": [], "validation": []})
