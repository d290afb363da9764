import json
from pathlib import Path

import datasets
import pytest

from gpro_empathy.data import dialogue, sources
from gpro_empathy.files import UserError

ROOT = Path(__file__).parents[2]
HEADER = "id,article_id,conversation_id,turn_id,text,Emotion,EmotionalPolarity,Empathy\n"
SHARES = {"validation_fraction": 0.1, "test_fraction": 0.2, "seed": 13}
DEMONSTRATION = {
    "conversation": "0", "turn": 1, "concern": "the flood", "emotion": "fear", "intensity": 3,
    "approach": "Listen", "answer": "That sounds hard.",
}  # fmt: skip
MESSAGE = {"text": "We lost the barn too."} | {
    key: value for key, value in DEMONSTRATION.items() if key not in ("conversation", "turn")
}


def write_turns(path, conversations, turns=2, article=lambda conversation: "NULL", said="said"):
    rows = [f"{c}{t},{article(c)},{c},{t},{said} {c} {t},1,2,3\n" for c in range(conversations) for t in range(turns)]
    path.write_text(HEADER + "".join(rows))
    return path


def write_stories(folder, marks):
    """Write stories 100, 101, ... with these values of `part`, or without where it is None."""
    rows = [{"article_id": 100 + i} | ({"part": part} if part else {}) for i, part in enumerate(marks)]
    (folder / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def embedded(settings, tmp_path):
    """Return prepare's settings for a made-up corpus with one demonstration.

    It has 20 conversations on 10 stories, of which none is marked.
    """
    write_turns(tmp_path / "turns.csv", 20, article=lambda conversation: 100 + conversation // 2)
    write_stories(tmp_path, [None] * 10)
    (tmp_path / "demonstrations.jsonl").write_text(json.dumps(DEMONSTRATION) + "\n")
    return settings.prepare.model_copy(update=SHARES | {"embedded_folder": str(tmp_path)})


def wassa(settings, train, dev=None, **changes):
    dev = None if dev is None else str(dev)
    update = SHARES | {"source": "wassa_csv", "wassa_train_csv": str(train), "wassa_dev_csv": dev, **changes}
    return settings.prepare.model_copy(update=update)


def conversations(parts):
    return {name: {turn.conversation for turn in turns} for name, turns in parts.items()}


def stories(parts):
    return {name: {turn.story for turn in turns} for name, turns in parts.items()}


def test_stories_without_a_mark_are_drawn_whole_for_every_split(embedded):
    parts = sources.load(embedded)
    assert {name: len(part) for name, part in stories(parts).items()} == {"train": 7, "validation": 1, "test": 2}
    assert {name: len(part) for name, part in conversations(parts).items()} == {"train": 14, "validation": 2, "test": 4}
    assert len(set.union(*stories(parts).values())) == 10
    assert sources.test_split(embedded) == "drawn"


@pytest.mark.parametrize("split", ["by_story", "by_conversation", "by_turn"])
def test_marked_stories_are_the_test_split_and_nothing_of_them_is_elsewhere(embedded, split):
    write_stories(Path(embedded.embedded_folder), ["corpus", "test", None, "corpus", "test", *["corpus"] * 5])
    config = embedded.model_copy(update={"split": split, "test_fraction": 0.9})
    parts = sources.load(config)
    assert stories(parts)["test"] == {"101", "104"}
    assert not stories(parts)["test"] & (stories(parts)["train"] | stories(parts)["validation"])
    assert sum(map(len, parts.values())) == 40
    assert len(parts["test"]) == 8
    shared = stories(parts)["train"] & stories(parts)["validation"]
    assert parts["validation"]
    assert split != "by_story" or not shared
    assert sources.test_split(config) == "marked"


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        (["corpus", "Test"], r"stories\.jsonl, line 2: part\b.*'Test'.*\bcorpus\b.*\btest\b"),
        ([None] * 10 + ["test"], r"stories\.jsonl, line 11: .*turns\.csv.*'110'.*article_id"),
        (["test"] * 10, r"by_story: .*stories\b.*\b0\b.*\btrain and validation"),
    ],
)
def test_refuses_marks_that_do_not_fit(embedded, marks, message):
    write_stories(Path(embedded.embedded_folder), marks)
    with pytest.raises(UserError, match=message):
        sources.load(embedded)


def test_refuses_a_corpus_without_its_stories(embedded):
    (Path(embedded.embedded_folder) / "stories.jsonl").unlink()
    with pytest.raises(UserError, match=r"stories\.jsonl"):
        sources.load(embedded)


def test_same_seed_gives_the_same_split(embedded):
    assert sources.load(embedded) == sources.load(embedded)
    assert sources.load(embedded) != sources.load(embedded.model_copy(update={"seed": 14}))


def test_official_dev_file_is_the_test_split_although_it_repeats_conversation_ids(settings, tmp_path):
    train, dev = write_turns(tmp_path / "train.csv", 10), write_turns(tmp_path / "dev.csv", 3, said="heard")
    parts = sources.load(wassa(settings, train, dev))
    assert [turn.conversation for turn in parts["test"]] == ["dev-0", "dev-0", "dev-1", "dev-1", "dev-2", "dev-2"]
    assert len(parts["train"]) + len(parts["validation"]) == 20
    assert len(conversations(parts)["validation"]) == 1
    # Without articles each conversation is a story, and none of dev is one of train.
    assert stories(parts)["test"] == {f"conversation {name}" for name in conversations(parts)["test"]}
    assert not stories(parts)["test"] & stories(parts)["train"]
    assert sources.test_split(wassa(settings, train, dev)) == "dev_file"


def test_stories_of_the_official_dev_file_are_those_of_train_where_both_name_them(settings, tmp_path):
    train = write_turns(tmp_path / "train.csv", 10, article=lambda conversation: conversation // 2)
    dev = write_turns(tmp_path / "dev.csv", 2, article=lambda conversation: 4 + conversation, said="heard")
    parts = sources.load(wassa(settings, train, dev))
    assert stories(parts)["test"] == {"4", "5"}
    assert not stories(parts)["train"] & stories(parts)["validation"]
    assert dialogue.count_stories(parts) == {"stories": 6, "shared_stories": 1}


def test_test_file_that_is_the_training_file_is_refused(settings, tmp_path):
    train = write_turns(tmp_path / "train.csv", 10)
    with pytest.raises(UserError, match=r"\b10 of 10\b.*'dev-0'.*'0'"):
        sources.load(wassa(settings, train, train))


def test_conversations_of_the_test_file_that_stand_in_training_are_told(settings, tmp_path, capsys):
    train, dev = write_turns(tmp_path / "train.csv", 10), write_turns(tmp_path / "dev.csv", 3, said="heard")
    dev.write_text(dev.read_text() + "".join(train.read_text().splitlines(keepends=True)[-2:]))
    assert len(sources.load(wassa(settings, train, dev))["test"]) == 8
    assert "1 of 4 conversations" in capsys.readouterr().out


def test_official_train_file_alone_is_split_in_three(settings, tmp_path):
    parts = conversations(sources.load(wassa(settings, write_turns(tmp_path / "train.csv", 10))))
    assert [len(part) for part in parts.values()] == [7, 1, 2]
    assert sources.test_split(wassa(settings, "train.csv")) == "drawn"


def test_refuses_wassa_without_a_file(settings):
    with pytest.raises(UserError, match=r"prepare\.wassa_train_csv: "):
        sources.load(settings.prepare.model_copy(update={"source": "wassa_csv"}))


@pytest.fixture
def hub_folder(tmp_path):
    """Write data sets as a hub would, with and without conversation ids; return their folder."""
    for name, ids in (("with_ids", True), ("without", False)):
        rows = [{"text": f"said {i}", "Emotion": 1.5, "EmotionalPolarity": None, "Empathy": 2.0} for i in range(12)]
        if ids:
            rows = [row | {"conversation_id": i // 3, "turn_id": i % 3} for i, row in enumerate(rows)]
        (tmp_path / name).mkdir()
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / name / "train.parquet")
    return tmp_path


def hub(settings, folder, split="by_story"):
    update = SHARES | {"source": "hub", "hub_dataset": str(folder), "split": split}
    return settings.prepare.model_copy(update=update)


def test_hub_data_with_conversation_ids_are_split_by_conversation(settings, hub_folder):
    parts = sources.load(hub(settings, hub_folder / "with_ids"))
    assert [len(part) for part in conversations(parts).values()] == [2, 1, 1]
    turn = parts["test"][2]
    assert (turn.turn, turn.emotion, turn.polarity, len(turn.context)) == (2, 1.5, None, 2)


def test_hub_data_without_conversation_ids_are_refused(settings, hub_folder):
    with pytest.raises(UserError, match=r"\bconversation_id\b.*\bturn_id\b.*prepare\.split.*\bby_turn"):
        sources.load(hub(settings, hub_folder / "without"))


def test_hub_data_without_conversation_ids_are_split_by_turn_where_that_is_accepted(settings, hub_folder):
    parts = sources.load(hub(settings, hub_folder / "without", "by_turn"))
    assert sum(map(len, parts.values())) == 12


def test_refuses_hub_data_without_a_text_column(settings, tmp_path):
    datasets.Dataset.from_list([{"essay": "a"}]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"\btext\b.*\bessay\b"):
        sources.load(hub(settings, tmp_path))


def test_refuses_hub_data_that_cannot_be_reached(settings):
    with pytest.raises(UserError, match=r"prepare\.hub_dataset 'nobody/nothing-of-this-name'") as caught:
        sources.load(hub(settings, "nobody/nothing-of-this-name"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "name"), [("embedded", "embedded corpus"), ("wassa_csv", "WASSA CONV-turn"), ("hub", "x/y")]
)
def test_name_of_the_data_holds_no_path(settings, source, name):
    update = {"source": source, "hub_dataset": "x/y", "embedded_folder": "/home/me", "wassa_train_csv": "/home/me.csv"}
    assert sources.describe(settings.prepare.model_copy(update=update)) == name


# Demonstrations


def test_demonstrations_are_those_of_training_turns_alone_and_none_is_about_a_test_story(settings):
    config = settings.prepare.model_copy(update={"embedded_folder": str(ROOT / "data/embedded")})
    parts = sources.load(config)
    train = parts["train"]
    prepared = sources.load_demonstrations(config, parts)
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


def test_default_split_of_the_corpus_shares_no_story_and_tests_the_marked_ones(settings):
    config = settings.prepare.model_copy(update={"embedded_folder": str(ROOT / "data/embedded")})
    parts = stories(sources.load(config))
    assert config.split == "by_story"
    rows = [json.loads(line) for line in (ROOT / "data/embedded/stories.jsonl").read_text().splitlines()]
    assert parts["test"] == {str(row["article_id"]) for row in rows if row["part"] == "test"}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == len(rows)


def test_other_sources_may_use_every_demonstration(embedded):
    other = embedded.model_copy(update={"source": "hub"})
    none = {"train": [], "validation": []}
    prepared = sources.load_demonstrations(other, none)
    (found,) = prepared["train"]
    assert found["utterance"] == "said 0 1"
    assert found["response"].endswith("<answer>\nThat sounds hard.\n</answer>")
    assert prepared["validation"] == []
    assert sources.load_demonstrations(embedded, none) == none


def test_a_demonstration_of_a_message_of_its_own_trains_in_every_split_and_never_validates(embedded):
    path = Path(embedded.embedded_folder) / "demonstrations.jsonl"
    path.write_text(json.dumps(DEMONSTRATION) + "\n" + json.dumps(MESSAGE) + "\n")
    (turn,) = [t for turns in sources.load(embedded).values() for t in turns if t.key == "0.1"]
    for name, texts in (
        ("train", {"train": [turn.text, MESSAGE["text"]], "validation": []}),
        ("validation", {"train": [MESSAGE["text"]], "validation": [turn.text]}),
    ):
        splits = {"train": [], "validation": [], name: [turn]}
        prepared = sources.load_demonstrations(embedded, splits)
        assert {part: [row["utterance"] for row in rows] for part, rows in prepared.items()} == texts
    hub = embedded.model_copy(update={"source": "hub"})
    assert len(sources.load_demonstrations(hub, splits)["train"]) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{}, {}], "line 2: "),
        ([{"turn": 1}], r"line 1: .*\bturn\b"),
        ([{"intensity": 9}], "line 1: .*format"),
    ],
)
def test_refuses_a_malformed_demonstration_of_a_message_with_its_line(embedded, rows, message):
    path = Path(embedded.embedded_folder) / "demonstrations.jsonl"
    path.write_text("".join(json.dumps(MESSAGE | row) + "\n" for row in rows))
    with pytest.raises(UserError, match=message):
        sources.load_demonstrations(embedded, {"train": [], "validation": []})


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
        sources.load_demonstrations(embedded, {"train": [], "validation": []})
