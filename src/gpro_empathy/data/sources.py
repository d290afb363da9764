"""Where turns come from, already split, as the setting prepare.source says."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from gpro_empathy import files, params
from gpro_empathy.data import dialogue, wassa
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError


def load(config: params.Prepare) -> dict[str, list[Turn]]:
    """Return the turns of the configured source as train, validation and test.

    The test split is what `test_split` says; what is drawn is drawn by config.split. Conversations
    of the test split that stand elsewhere too, under another name, are told.

    Raises:
        UserError: If the source cannot be read, it names no conversations and config.split does not
            accept that, or a mark of an embedded story does not fit; names file and line.
            If half of the test split stands elsewhere too, as where one file is given twice.
    """
    parts = _load(config)
    if config.split != "by_turn":
        _check_repeated(parts)
    return parts


def _check_repeated(parts: Mapping[str, Sequence[Turn]]) -> None:
    """Tell of the conversations of the test split that another split holds word by word."""
    tested, others = _conversations(parts["test"]), _conversations([*parts["train"], *parts["validation"]])
    repeated = [(name, others[texts]) for texts, name in tested.items() if texts in others]
    if not repeated:
        return
    line = (
        f"{len(repeated)} of {len(tested)} conversations of the test split stand word by word in training or validation "
        f"too, such as {repeated[0][0][:60]!r}, which is {repeated[0][1][:60]!r}"
    )
    if 2 * len(repeated) >= len(tested):
        raise UserError(f"prepare.source: {line}; give a test file of its own, or keep one of each")
    print(line)


def _conversations(turns: Sequence[Turn]) -> dict[tuple[str, ...], str]:
    """Return the name of each conversation by its texts."""
    texts: dict[str, tuple[str, ...]] = {}
    for turn in turns:
        texts[turn.conversation] = (*texts.get(turn.conversation, ()), turn.text)
    return {of_conversation: name for name, of_conversation in texts.items()}


def _load(config: params.Prepare) -> dict[str, list[Turn]]:
    rng = np.random.default_rng(config.seed)
    shares = {"validation": config.validation_fraction, "test": config.test_fraction}
    if config.source == "wassa_csv":
        return _wassa(config, rng)
    if config.source == "embedded":
        return _embedded(config, rng)
    turns, has_conversations = read_hub(config.hub_dataset, config.hub_revision)
    if not has_conversations and config.split != "by_turn":
        raise UserError(
            f"prepare.hub_dataset {config.hub_dataset!r} has no columns conversation_id and turn_id, so turns of one "
            "conversation would stand in train and test; set prepare.split to by_turn to accept that leak"
        )
    return dialogue.split(turns, **shares, by=config.split, rng=rng)


def test_split(config: params.Prepare) -> Literal["marked", "dev_file", "drawn"]:
    """Say where the test split comes from.

    It is the embedded stories that are marked as written for the test, the official development
    file, or drawn from the source with the share config.test_fraction.
    """
    if config.source == "wassa_csv" and config.wassa_dev_csv is not None:
        return "dev_file"
    return "marked" if config.source == "embedded" and _marks_test(_marked_stories(config)) else "drawn"


def read_hub(dataset: str, revision: str | None) -> tuple[list[Turn], bool]:
    """Read turns from a data set on the Hugging Face hub, and tell whether it names conversations.

    A data set without conversation and turn ids gives every turn a conversation of its own.

    Raises:
        UserError: If the data set cannot be reached, has no text column, or a label is out of
            range.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(dataset, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"prepare.hub_dataset {dataset!r}: cannot load it ({reason}); check the name, the network and HF_TOKEN, "
            "or set prepare.source to embedded"
        ) from None
    records = [dict(row) for name in sorted(loaded) for row in loaded[name]]
    columns = list(records[0]) if records else []
    if "text" not in columns:
        raise UserError(f"prepare.hub_dataset {dataset!r}: no column text; it has {', '.join(columns) or 'none'}")
    wassa.require_labels(columns, f"prepare.hub_dataset {dataset!r}")
    has_conversations = {"conversation_id", "turn_id"} <= set(columns)
    rows = []
    for number, record in enumerate(records, start=1):
        values = {key: "" if value is None else str(value) for key, value in record.items()}
        if not has_conversations:
            values |= {"conversation_id": str(number), "turn_id": "0"}
        rows.append(wassa.parse_row(f"{dataset}, line {number}", values, list(values)))
    return wassa.labelled_turns(rows, dataset), has_conversations


def describe(config: params.Prepare) -> str:
    """Return the name of the configured data set, without any path of this machine."""
    if config.source == "hub":
        return config.hub_dataset
    return "WASSA CONV-turn" if config.source == "wassa_csv" else "embedded corpus"


def _embedded(config: params.Prepare, rng: np.random.Generator) -> dict[str, list[Turn]]:
    """Split the corpus; the stories that are marked for validation or test stand there.

    The others are split by config: what is marked for test is the whole test split, and what is
    marked for validation stands beside what is drawn.
    """
    turns = wassa.read_labelled(Path(config.embedded_folder) / "turns.csv")
    marked, known = _marked_stories(config), {turn.story for turn in turns}
    for story, (_, place) in marked.items():
        if story not in known:
            raise UserError(f"{place}: turns.csv has no turn on story {story!r}; mend article_id, or write its turns")
    test = 0.0 if _marks_test(marked) else config.test_fraction
    others = [turn for turn in turns if turn.story not in marked]
    parts = dialogue.split(others, validation=config.validation_fraction, test=test, by=config.split, rng=rng)
    for turn in turns:
        if turn.story in marked:
            parts[marked[turn.story][0]].append(turn)
    return parts


def _marks_test(marked: Mapping[str, tuple[str, str]]) -> bool:
    return any(part == "test" for part, _ in marked.values())


def _marked_stories(config: params.Prepare) -> dict[str, tuple[str, str]]:
    """Return the split that stories.jsonl marks a story for, with its file and line, by story.

    `part` is `validation`, `test` or `corpus`, which is no mark, as no `part` is.
    """
    path = Path(config.embedded_folder) / "stories.jsonl"
    marked = {}
    for number, row in enumerate(files.read_jsonl(path), start=1):
        place, part = f"{path}, line {number}", row.get("part", "corpus")
        if part not in ("corpus", "validation", "test"):
            raise UserError(f"{place}: part is {part!r}; it must be corpus, validation or test")
        if part != "corpus":
            marked[str(row.get("article_id", ""))] = part, place
    return marked


def _wassa(config: params.Prepare, rng: np.random.Generator) -> dict[str, list[Turn]]:
    if config.wassa_train_csv is None:
        raise UserError("prepare.wassa_train_csv: give the path of the official train file, or set prepare.source")
    train = wassa.read_labelled(Path(config.wassa_train_csv), config.escapes, print)
    if config.wassa_dev_csv is None:
        shares = {"validation": config.validation_fraction, "test": config.test_fraction}
        return dialogue.split(train, **shares, by=config.split, rng=rng)
    dev = wassa.read_labelled(Path(config.wassa_dev_csv), config.escapes, print)
    # All conversation ids of the dev file also occur in train, for other conversations; those of
    # stories mean the same ones in both.
    names_stories = any(turn.story != dialogue.own_story(turn.conversation) for turn in dev)
    dev = [
        replace(turn, conversation=f"dev-{turn.conversation}", story=turn.story if names_stories else "")
        for turn in dev
    ]
    parts = dialogue.split(train, validation=config.validation_fraction, test=0.0, by=config.split, rng=rng)
    return parts | {"test": dev}
