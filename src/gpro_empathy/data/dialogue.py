"""Turns of conversations: reading them from their sources, normalising their text, splitting them.

The label columns and their names are those of the WASSA CONV-turn task (Barriere et al. 2023, 2022.wassa-1.20 and
later): Emotion (intensity, 0-5), EmotionalPolarity (0 positive, 2 negative) and Empathy (0-5), means over annotators.
"""

import csv
import io
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gpro_empathy import files
from gpro_empathy.files import UserError
from gpro_empathy.labels import LABELS

COLUMNS = {"emotion": "Emotion", "polarity": "EmotionalPolarity", "empathy": "Empathy"}
# The polarity scale ends at 2, yet one row of the official train file carries 2.67.
RANGES = {"emotion": (0.0, 5.0), "polarity": (0.0, 3.0), "empathy": (0.0, 5.0)}
MISSING = {"", "null", "nan", "none", "unknown"}
# In characters: the standard library's limit refuses texts of some 20,000 words.
LONGEST_FIELD = 2**24

_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b")
_MENTION = re.compile(r"(?<!\w)@\w+")
_HASHTAG = re.compile(r"(?<!\w)#(\w+)")


@dataclass(frozen=True)
class Turn:
    """One turn: its place, its text, the turns before it (oldest first), and its labels in label units or None."""

    conversation: str
    turn: int
    text: str
    context: tuple[str, ...]
    emotion: float | None
    polarity: float | None
    empathy: float | None

    @property
    def key(self) -> str:
        """Return the turn's name in every table: conversation and turn."""
        return f"{self.conversation}.{self.turn}"


def normalise(text: str) -> str:
    """Return `text` as the scorer sees it.

    NFKC; URLs, e-mail addresses and @mentions become [URL], [EMAIL] and [USER]; a hashtag loses its sign; control
    characters are dropped; white space is folded.
    """
    text = unicodedata.normalize("NFKC", text)
    text = _URL.sub("[URL]", text)
    text = _EMAIL.sub("[EMAIL]", text)
    text = _MENTION.sub("[USER]", text)
    text = _HASHTAG.sub(r"\1", text)
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c)[0] != "C" or c == "\u200d")
    return " ".join(text.split())


def read_wassa_csv(path: Path) -> list[Turn]:
    """Read turns from a CSV file in the layout of the official CONV-turn files (train, dev or test).

    Quotes inside a text are escaped with a backslash. Labels may be missing ("NULL", or no column at all, as in
    the test file). Conversation ids repeat between files.

    Raises:
        UserError: If a column is missing or repeated, a row has too many or too few fields, a text is empty, an id or a
            label is not a number, or a label is out of range; names the column and the line in which the row begins.
    """
    csv.field_size_limit(LONGEST_FIELD)
    text = files.read_text(path, "check its path, in params.yaml or on the command line")
    reader = csv.reader(io.StringIO(text, newline=""), escapechar="\\", strict=True)
    line = 1
    try:
        header = next(reader, [])
        _require_columns(path, header)
        rows = []
        line = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                raise UserError(
                    f"{path}, line {line}: {len(fields)} fields where the header has {len(header)}; "
                    'quotes inside a text must be written as \\"'
                )
            if fields:
                rows.append((line, dict(zip(header, fields, strict=True))))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f'{path}, row that begins in line {line}: {error}; quotes inside a text must be written as \\"'
        ) from None
    if not rows:
        raise UserError(f"{path}: no rows after the header")
    return _link(path, [_parse_row(path, line, row) for line, row in rows])


def read_hub(dataset: str, revision: str | None) -> tuple[list[Turn], bool]:
    """Read turns from a data set on the Hugging Face hub, and tell whether it names conversations.

    A data set without conversation and turn ids gives every turn a conversation of its own.

    Raises:
        UserError: If the data set cannot be reached, has no text column, or a label is out of range.
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
    header = list(records[0]) if records else []
    if "text" not in header:
        raise UserError(f"prepare.hub_dataset {dataset!r}: no column text; it has {', '.join(header) or 'none'}")
    has_conversations = {"conversation_id", "turn_id"} <= set(header)
    parsed = []
    for number, record in enumerate(records, start=1):
        row = {key: "" if value is None else str(value) for key, value in record.items()}
        if not has_conversations:
            row |= {"conversation_id": str(number), "turn_id": "0"}
        parsed.append(_parse_row(Path(dataset), number, row))
    return _link(Path(dataset), parsed), has_conversations


def split(
    turns: Sequence[Turn], *, validation: float, test: float, by_turn: bool, rng: np.random.Generator
) -> dict[str, list[Turn]]:
    """Split turns into train, validation and test, whole conversations at a time unless `by_turn`.

    Args:
        validation, test: Shares of the conversations, each in [0, 1), together below 1; what is positive gets at
            least one conversation.

    Raises:
        UserError: If there are fewer conversations than splits to fill.
    """
    groups = sorted({turn.key if by_turn else turn.conversation for turn in turns})
    order = [groups[i] for i in rng.permutation(len(groups))]
    counts = [max(1, round(share * len(groups))) if share else 0 for share in (validation, test)]
    if sum(counts) >= len(groups):
        raise UserError(f"prepare: {len(groups)} conversations cannot fill train, validation and test")
    part = dict.fromkeys(order, "train")
    part.update(dict.fromkeys(order[: counts[0]], "validation"))
    part.update(dict.fromkeys(order[counts[0] : sum(counts)], "test"))
    result: dict[str, list[Turn]] = {"train": [], "validation": [], "test": []}
    for turn in turns:
        result[part[turn.key if by_turn else turn.conversation]].append(turn)
    return result


def describe(turns: Iterable[Turn]) -> dict:
    """Return sizes and label statistics (mean and sample SD, label units) of a split, for the data report."""
    turns = list(turns)
    labels = {}
    for name in LABELS:
        values = np.array([v for v in (getattr(turn, name) for turn in turns) if v is not None])
        labels[name] = {
            "n": len(values),
            "missing": len(turns) - len(values),
            "mean": float(values.mean()) if len(values) else None,
            "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        }
    return {
        "conversations": len({turn.conversation for turn in turns}),
        "turns": len(turns),
        "mean_words": float(np.mean([len(turn.text.split()) for turn in turns])) if turns else None,
        "labels": labels,
    }


def write_turns(path: Path, turns: Iterable[Turn]) -> None:
    """Write turns as JSON lines."""
    files.write_jsonl(path, (asdict(turn) for turn in turns))


def read_turns(path: Path) -> list[Turn]:
    """Read turns that `write_turns` wrote.

    Raises:
        UserError: If the file is missing or not of that form.
    """
    try:
        return [Turn(**row | {"context": tuple(row["context"])}) for row in files.read_jsonl(path)]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not a file of turns ({error}); delete it and run `dvc repro`") from None


def _require_columns(path: Path, header: list[str]) -> None:
    needed = ["conversation_id", "turn_id", "text"]
    if set(COLUMNS.values()) & set(header):  # labelled: a misspelt column must not pass for one without labels
        needed += COLUMNS.values()
    missing = [name for name in needed if name not in header]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; the header has {show(header) or 'nothing'}")
    repeated = [name for name in header if header.count(name) > 1]
    if repeated:
        raise UserError(f"{path}: column {repeated[0]!r} stands in the header more than once")


def show(columns: Iterable[str]) -> str:
    """Return column names as part of one line of at most 200 characters, whatever they hold."""
    return ", ".join(column if column.isprintable() else repr(column) for column in columns)[:200]


def _parse_row(path: Path, line: int, row: dict[str, str]) -> Turn:
    text = normalise(row["text"])
    if not text:
        raise UserError(f"{path}, line {line}: column text is empty; delete the row or fill it in")
    turn_id = row["turn_id"]
    if not re.fullmatch("[0-9]{1,18}", turn_id.strip()):
        raise UserError(f"{path}, line {line}: column turn_id must be a whole number, got {turn_id[:60]!r}")
    conversation = row["conversation_id"].strip()
    if not conversation:
        raise UserError(f"{path}, line {line}: column conversation_id is empty; a turn must belong to a conversation")
    labels = {name: _parse_label(path, line, name, row.get(COLUMNS[name], "")) for name in LABELS}
    return Turn(conversation, int(turn_id), text, (), **labels)


def _parse_label(path: Path, line: int, name: str, value: str) -> float | None:
    if value.strip().lower() in MISSING:
        return None
    try:
        number = float(value)
    except ValueError:
        raise UserError(
            f"{path}, line {line}: column {COLUMNS[name]} must be a number or NULL, got {value[:60]!r}"
        ) from None
    low, high = RANGES[name]
    if not (math.isfinite(number) and low <= number <= high):
        raise UserError(
            f"{path}, line {line}: column {COLUMNS[name]} must be between {low:g} and {high:g}, got {value[:60]!r}"
        )
    return number


def _link(path: Path, turns: list[Turn]) -> list[Turn]:
    """Order turns by conversation and turn, and give each the texts before it."""
    repeated = [key for key, n in Counter(turn.key for turn in turns).items() if n > 1]
    if repeated:
        name = repeated[0] if repeated[0].isprintable() else repr(repeated[0])
        raise UserError(f"{path}: conversation and turn {name[:60]} stand in more than one row")
    result: list[Turn] = []
    first_seen = {turn.conversation: i for i, turn in reversed(list(enumerate(turns)))}
    context: list[str] = []
    for turn in sorted(turns, key=lambda t: (first_seen[t.conversation], t.turn)):
        if result and result[-1].conversation != turn.conversation:
            context = []
        result.append(
            Turn(turn.conversation, turn.turn, turn.text, tuple(context), turn.emotion, turn.polarity, turn.empathy)
        )
        context.append(turn.text)
    return result
