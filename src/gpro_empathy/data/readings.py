"""Readings of answers: what a reader found in answers to turns of the embedded corpus.

A line of readings.jsonl has an answer to a turn, and its marks by the rules in
data/ratings/README.md. The reader model learns from them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gpro_empathy import files, params
from gpro_empathy.data import corpus_turns
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError
from gpro_empathy.labels import HIGHEST, MARKS

FILE = "readings.jsonl"
KEYS = {"conversation", "turn", "answer", *MARKS}


def load(config: params.Prepare, splits: Mapping[str, Sequence[Turn]]) -> dict[str, list[dict]]:
    """Return the readings of train and validation, as {"utterance", "answer", <mark>, ...} each.

    With the embedded source they are those of answers to the turns of the split. Any other source
    shares no turn with the corpus: all of them train, and none is left to measure the reader model
    on.

    Raises:
        UserError: If the file is malformed; names the line.
    """
    rows = _read(Path(config.embedded_folder))
    if config.source != "embedded":
        return {"train": [row for _, row in rows], "validation": []}
    keys = {name: {turn.key for turn in splits[name]} for name in ("train", "validation")}
    return {name: [row for key, row in rows if key in of_split] for name, of_split in keys.items()}


def _read(folder: Path) -> list[tuple[str, dict]]:
    """Return the turn that was answered, and the reading, of each line."""
    path = folder / FILE
    texts = corpus_turns.texts(folder)
    found = []
    for number, row in enumerate(files.read_jsonl(path), start=1):
        place = f"{path}, line {number}"
        if set(row) != KEYS:
            raise UserError(f"{place}: keys {', '.join(sorted(set(row) ^ KEYS))} are missing or unknown")
        key = corpus_turns.answered(row, texts, place)
        if not isinstance(row["answer"], str) or not row["answer"].strip():
            raise UserError(f"{place}: answer is {row['answer']!r}; give the answer that was read, or delete the line")
        for mark in MARKS:
            if type(row[mark]) is not int or not 0 <= row[mark] <= HIGHEST[mark]:
                raise UserError(
                    f"{place}: {mark} is {row[mark]!r}; it must be a whole number from 0 to {HIGHEST[mark]}"
                )
        found.append((key, {"utterance": texts[key], **{name: row[name] for name in ("answer", *MARKS)}}))
    return found
