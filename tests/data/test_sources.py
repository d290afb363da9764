import json
from pathlib import Path

import datasets
import pytest
from small_corpus import SHARES, prepare_settings, stories, write_stories, write_turns

from gpro_empathy.data import dialogue, sources
from gpro_empathy.files import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def embedded(settings, tmp_path):
    return prepare_settings(settings, tmp_path)


def wassa(settings, train, dev=None, **changes):
    dev = None if dev is None else str(dev)
    update = SHARES | {"source": "wassa_csv", "wassa_train_csv": str(train), "wassa_dev_csv": dev, **changes}
    return settings.prepare.model_copy(update=update)


def conversations(parts):
    return {name: {turn.conversation for turn in turns} for name, turns in parts.items()}


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


def test_stories_marked_for_validation_stand_beside_those_drawn_and_move_no_other(embedded):
    folder = Path(embedded.embedded_folder)
    write_stories(folder, ["corpus", "test", "corpus", "corpus", "test", *["corpus"] * 5])
    before = stories(sources.load(embedded))
    write_turns(folder / "turns.csv", 24, article=lambda conversation: 100 + conversation // 2)
    write_stories(folder, ["corpus", "test", "corpus", "corpus", "test", *["corpus"] * 5, "validation", "validation"])
    after = stories(sources.load(embedded))
    assert after == before | {"validation": before["validation"] | {"110", "111"}}
    assert len(before["validation"]) == 1


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        (["corpus", "Test"], r"stories\.jsonl, line 2: part\b.*'Test'.*\bcorpus, validation\b.*\btest\b"),
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


def test_refuses_hub_data_with_a_misspelt_label(settings, tmp_path):
    rows = [{"conversation_id": 1, "turn_id": i, "text": "so sad", "Emotion": 1, "Empathy": 1} for i in range(3)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row | {"Polarity": 1}) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"prepare\.hub_dataset .*: no column EmotionalPolarity"):
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


def test_default_split_of_the_corpus_shares_no_story_and_tests_the_marked_ones(settings):
    config = settings.prepare.model_copy(update={"embedded_folder": str(ROOT / "data/embedded")})
    parts = stories(sources.load(config))
    assert config.split == "by_story"
    rows = [json.loads(line) for line in (ROOT / "data/embedded/stories.jsonl").read_text().splitlines()]
    assert parts["test"] == {str(row["article_id"]) for row in rows if row["part"] == "test"}
    assert parts["validation"] > {str(row["article_id"]) for row in rows if row["part"] == "validation"}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == len(rows)
