import json
from pathlib import Path

import datasets
import pytest

from gpro_empathy.data import sources
from gpro_empathy.files import UserError

ROOT = Path(__file__).parents[2]
HEADER = "id,conversation_id,turn_id,text,Emotion,EmotionalPolarity,Empathy\n"
SHARES = {"validation_fraction": 0.1, "test_fraction": 0.2, "seed": 13}
DEMONSTRATION = {
    "conversation": "0", "turn": 1, "concern": "the flood", "emotion": "fear", "intensity": 3,
    "approach": "Listen", "answer": "That sounds hard.",
}  # fmt: skip


def write_turns(path, conversations, turns=2):
    rows = [f"{c}{t},{c},{t},said {c} {t},1,2,3\n" for c in range(conversations) for t in range(turns)]
    path.write_text(HEADER + "".join(rows))
    return path


@pytest.fixture
def embedded(settings, tmp_path):
    """Return prepare's settings for a made-up corpus of 10 conversations with one demonstration."""
    write_turns(tmp_path / "turns.csv", 10)
    (tmp_path / "demonstrations.jsonl").write_text(json.dumps(DEMONSTRATION) + "\n")
    return settings.prepare.model_copy(update=SHARES | {"embedded_folder": str(tmp_path)})


def wassa(settings, train, dev=None, **changes):
    dev = None if dev is None else str(dev)
    update = SHARES | {"source": "wassa_csv", "wassa_train_csv": str(train), "wassa_dev_csv": dev, **changes}
    return settings.prepare.model_copy(update=update)


def conversations(parts):
    return {name: {turn.conversation for turn in turns} for name, turns in parts.items()}


def test_embedded_corpus_is_split_by_conversation(embedded):
    parts = conversations(sources.load(embedded))
    assert {name: len(part) for name, part in parts.items()} == {"train": 7, "validation": 1, "test": 2}
    assert len(set.union(*parts.values())) == 10


def test_same_seed_gives_the_same_split(embedded):
    assert sources.load(embedded) == sources.load(embedded)
    assert sources.load(embedded) != sources.load(embedded.model_copy(update={"seed": 14}))


def test_official_dev_file_is_the_test_split_although_it_repeats_conversation_ids(settings, tmp_path):
    train, dev = write_turns(tmp_path / "train.csv", 10), write_turns(tmp_path / "dev.csv", 3)
    parts = sources.load(wassa(settings, train, dev))
    assert [turn.conversation for turn in parts["test"]] == ["dev-0", "dev-0", "dev-1", "dev-1", "dev-2", "dev-2"]
    assert len(parts["train"]) + len(parts["validation"]) == 20
    assert len(conversations(parts)["validation"]) == 1


def test_official_train_file_alone_is_split_in_three(settings, tmp_path):
    parts = conversations(sources.load(wassa(settings, write_turns(tmp_path / "train.csv", 10))))
    assert [len(part) for part in parts.values()] == [7, 1, 2]


def test_refuses_wassa_without_a_file(settings):
    with pytest.raises(UserError, match=r"prepare\.wassa_train_csv: give the path"):
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


def hub(settings, folder, split="by_conversation"):
    update = SHARES | {"source": "hub", "hub_dataset": str(folder), "split": split}
    return settings.prepare.model_copy(update=update)


def test_hub_data_with_conversation_ids_are_split_by_conversation(settings, hub_folder):
    parts = sources.load(hub(settings, hub_folder / "with_ids"))
    assert [len(part) for part in conversations(parts).values()] == [2, 1, 1]
    turn = parts["test"][2]
    assert (turn.turn, turn.emotion, turn.polarity, len(turn.context)) == (2, 1.5, None, 2)


def test_hub_data_without_conversation_ids_are_refused(settings, hub_folder):
    with pytest.raises(UserError, match=r"no columns conversation_id and turn_id.*set prepare\.split to by_turn"):
        sources.load(hub(settings, hub_folder / "without"))


def test_hub_data_without_conversation_ids_are_split_by_turn_where_that_is_accepted(settings, hub_folder):
    parts = sources.load(hub(settings, hub_folder / "without", "by_turn"))
    assert sum(map(len, parts.values())) == 12


def test_refuses_hub_data_without_a_text_column(settings, tmp_path):
    datasets.Dataset.from_list([{"essay": "a"}]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(UserError, match="no column text; it has essay"):
        sources.load(hub(settings, tmp_path))


def test_refuses_hub_data_that_cannot_be_reached(settings):
    with pytest.raises(
        UserError, match=r"prepare\.hub_dataset 'nobody/nothing-of-this-name': cannot load it"
    ) as caught:
        sources.load(hub(settings, "nobody/nothing-of-this-name"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "name"), [("embedded", "embedded corpus"), ("wassa_csv", "WASSA CONV-turn"), ("hub", "x/y")]
)
def test_name_of_the_data_holds_no_path(settings, source, name):
    update = {"source": source, "hub_dataset": "x/y", "embedded_folder": "/home/me", "wassa_train_csv": "/home/me.csv"}
    assert sources.describe(settings.prepare.model_copy(update=update)) == name


# Demonstrations


def test_demonstrations_are_those_of_training_conversations_alone(settings):
    config = settings.prepare.model_copy(update={"embedded_folder": str(ROOT / "data/embedded")})
    train = sources.load(config)["train"]
    found = sources.load_demonstrations(config, train)
    texts = {turn.text for turn in train}
    rows = [json.loads(line) for line in (ROOT / "data/embedded/demonstrations.jsonl").read_text().splitlines()]
    keys = {turn.key for turn in train}
    assert len(found) == sum(f"{row['conversation']}.{row['turn']}" in keys for row in rows)
    assert 0 < len(found) < len(rows)
    assert {row["utterance"] for row in found} <= texts


def test_other_sources_may_use_every_demonstration(embedded):
    other = embedded.model_copy(update={"source": "hub"})
    (found,) = sources.load_demonstrations(other, [])
    assert found["utterance"] == "said 0 1"
    assert found["response"].endswith("<answer>\nThat sounds hard.\n</answer>")
    assert sources.load_demonstrations(embedded, []) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turn": 7}, r"demonstrations\.jsonl, line 2: turns\.csv has no turn 7 in conversation 0"),
        ({"mood": "grim"}, r"demonstrations\.jsonl, line 2: keys mood are missing or unknown"),
        ({"intensity": 6}, r"demonstrations\.jsonl, line 2: not in the response format"),
        ({"answer": "One. Two. Three."}, r"demonstrations\.jsonl, line 2: not in the response format"),
        ({"answer": ""}, r"demonstrations\.jsonl, line 2: not in the response format"),
    ],
)
def test_refuses_a_malformed_demonstration_with_its_line(embedded, change, message):
    path = Path(embedded.embedded_folder) / "demonstrations.jsonl"
    path.write_text(json.dumps(DEMONSTRATION) + "\n" + json.dumps(DEMONSTRATION | change) + "\n")
    with pytest.raises(UserError, match=message):
        sources.load_demonstrations(embedded, [])
