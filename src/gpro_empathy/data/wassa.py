"""Tables of turns in the layout of the WASSA CONV-turn task: rows to score, labelled turns.

A table is CSV or JSON lines with the same names as keys; see `records`. What the label columns
mean: see `dialogue`.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from gpro_empathy.data import dialogue, records
from gpro_empathy.data.dialogue import COLUMNS, RANGES, Turn
from gpro_empathy.data.records import Escapes
from gpro_empathy.files import UserError
from gpro_empathy.labels import LABELS

# As databases, pandas, R and spreadsheets write what is not known.
MISSING = {"", "null", "nan", "none", "unknown", "na", "<na>", "n/a", "#n/a"}
# Names of turns in the official files (id, person_id_1, ...) and in this project's own
# (conversation, turn).
ID_COLUMN = re.compile(r"id|.+_id(_\d+)?|speaker|conversation|turn")
# What a column may hold beside names; anything else is reported as not understood.
OTHER_COLUMNS = {"text", "context", "story", *LABELS, *COLUMNS.values(), "SelfDisclosure"}


@dataclass(frozen=True)
class Row:
    """One turn as it stands in the table; context is None where the table has no such column.

    `place` is the table and the line, as messages name it; `values` are all values by column, as
    they were read.
    """

    place: str
    values: Mapping[str, Any]
    ids: dict[str, str | int | float | bool | None]
    text: str
    context: tuple[str, ...] | None

    def conversation(self, column: str) -> str:
        """Return the name of the turn's conversation as it stands in the column that holds it.

        Raises:
            UserError: If it is empty.
        """
        name = "" if self.ids[column] is None else str(self.ids[column])
        if not name.strip():
            raise UserError(f"{self.place}: column {column} is empty; a turn must belong to a conversation")
        return name

    def turn_number(self, column: str) -> int:
        """Return the turn's number in its conversation, from the column that holds it.

        Raises:
            UserError: If it is no whole number.
        """
        value = str(self.ids[column])
        if not re.fullmatch("[0-9]{1,18}", value.strip()):
            raise UserError(f"{self.place}: column {column} must be a whole number, got {value[:60]!r}")
        return int(value)


@dataclass(frozen=True)
class Table:
    """A table: its format (csv or jsonl), columns, and rows, which can be gone through once.

    `assumption` is that of `records.Table`.
    """

    format: str
    columns: list[str]
    rows: Iterator[Row]
    assumption: str | None

    @property
    def id_columns(self) -> list[str]:
        """Return the columns that name a turn or its speaker."""
        return [column for column in self.columns if ID_COLUMN.fullmatch(column)]

    @property
    def unknown_columns(self) -> list[str]:
        """Return the columns whose meaning is not known."""
        unknown = [c for c in self.columns if not ID_COLUMN.fullmatch(c) and c not in OTHER_COLUMNS]
        return list(dict.fromkeys(unknown))


def read(stream: BinaryIO, name: str, escapes: Escapes = "auto") -> Table:
    """Begin to read a table of turns, of whose columns only text must be there.

    Its columns are read now, its rows as they are asked for. Labels are not looked at. Columns
    without a name, which spreadsheets leave behind, may be several.

    Raises:
        UserError: If there is no text column or no row, or as `records.read`. While rows are read:
            if one has no text; names line and column.
    """
    table = records.read(stream, name, escapes)
    columns, placed = table.columns, table.records
    repeated = [column for column in columns if column and columns.count(column) > 1]
    if repeated:
        raise UserError(f"{name}: column {repeated[0]!r} stands in the header more than once")
    require(["text"], columns, name)
    first = next(placed, None)
    if first is None:
        raise UserError(f"{name}: no rows after the header")
    rows = (parse_row(place, values, columns) for place, values in chain([first], placed))
    return Table(table.format, columns, rows, table.assumption)


def read_labelled(path: Path, escapes: Escapes = "auto", note: Callable[[str], None] = lambda line: None) -> list[Turn]:
    """Read labelled turns from a file in the layout of the official files (train, dev or test).

    Labels may be missing ("NULL", or no column at all, as in the test file). Conversation ids
    repeat between files.

    Args:
        note: Takes what was assumed of the file, as a line for the user.

    Raises:
        UserError: As `read`, and if a column is missing, an id or a label is not a number, or a
            label is out of range; names the column and the line in which the row begins.
    """
    try:
        with path.open("rb") as stream:
            table = read(stream, str(path), escapes)
            if table.assumption:
                note(table.assumption)
            require(["conversation_id", "turn_id"], table.columns, str(path))
            require_labels(table.columns, str(path))
            return labelled_turns(table.rows, str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check its path, in params.yaml or on the command line") from None


def labelled_turns(rows: Iterable[Row], name: str) -> list[Turn]:
    """Return the labelled turns of rows in their order, each with the texts before it.

    Raises:
        UserError: As `read_labelled`, and if a turn stands in more than one row, a conversation has
            turns on two stories, or the names of two differ in white space alone.
    """
    turns: list[Turn] = []
    first: dict[str, Turn] = {}  # of each conversation, by its name without white space around
    for row in rows:
        turn = _turn(row)
        before = first.setdefault(" ".join(turn.conversation.split()), turn)
        if before.conversation != turn.conversation:
            raise UserError(
                f"{row.place}: column conversation_id: {turn.conversation[:60]!r} and {before.conversation[:60]!r} differ in "
                "white space alone; write the same conversation the same way"
            )
        if before.story != turn.story:
            raise UserError(
                f"{row.place}: column article_id: conversation {turn.conversation[:60]!r} is on {_named(turn)} here and on "
                f"{_named(before)} in another row; give all its rows one article, as they are split by it"
            )
        turns.append(turn)
    return dialogue.link(turns, name)


def _named(turn: Turn) -> str:
    return "no article" if turn.story == dialogue.own_story(turn.conversation) else f"article {turn.story[:60]!r}"


def parse_row(place: str, values: Mapping[str, Any], columns: list[str]) -> Row:
    """Return one row of a table with these columns.

    Raises:
        UserError: If a column that its first row has is missing, or a value is none that the column
            may hold.
    """
    missing = [
        column for column in columns if column not in values and (ID_COLUMN.fullmatch(column) or column == "text")
    ]
    if missing:
        raise UserError(f"{place}: column {missing[0]} is missing, which the first row has")
    text = values["text"]
    if not isinstance(text, str):
        raise UserError(f"{place}: column text must be a text, got {json.dumps(text)[:60]}")
    if dialogue.is_blank(text):
        raise UserError(f"{place}: column text is empty; delete the row or fill it in")
    ids = {column: values[column] for column in columns if ID_COLUMN.fullmatch(column)}
    for column, value in ids.items():
        if isinstance(value, dict | list):
            raise UserError(f"{place}: column {column} must be a text or a number, got {json.dumps(value)[:60]}")
        if isinstance(value, str) and not value.isprintable() and any("\ud800" <= c <= "\udfff" for c in value):
            raise UserError(f"{place}: column {column} holds half a character (a lone surrogate)")
    return Row(place, values, ids, text, _context(place, values["context"]) if "context" in values else None)


def _context(place: str, value: object) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value or ""]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{place}: column context must be a text or a list of texts, got {json.dumps(value)[:60]}")
    return tuple(text for text in texts if text.strip())


def require_labels(columns: list[str], name: str) -> None:
    """Refuse a table that has some columns of labels and not all.

    A misspelt column must not pass for one without labels.

    Raises:
        UserError: Naming the columns that are missing.
    """
    if set(COLUMNS.values()) & set(columns):
        require(COLUMNS.values(), columns, name)


def require(needed: Iterable[str], columns: list[str], name: str) -> None:
    missing = [column for column in needed if column not in columns]
    if missing:
        raise UserError(f"{name}: no column {', '.join(missing)}; the columns are {records.show(columns) or 'none'}")


def _turn(row: Row) -> Turn:
    labels = {name: _label(row.place, name, row.values.get(COLUMNS[name])) for name in LABELS}
    conversation, turn = row.conversation("conversation_id"), row.turn_number("turn_id")
    article = row.ids.get("article_id")
    story = "" if article is None else str(article).strip()
    if story.lower() in MISSING:
        story = ""
    return Turn(conversation, turn, dialogue.normalise(row.text), (), **labels, story=story)


def _label(place: str, name: str, value: object) -> float | None:
    column, (low, high) = COLUMNS[name], RANGES[name]
    text = "" if value is None else str(value)
    if text.strip().lower() in MISSING:
        return None
    try:
        if "_" in text:  # which Python takes for a separator of digits
            raise ValueError(text)
        number = float(text)
    except ValueError:
        raise UserError(f"{place}: column {column} must be a number or NULL, got {text[:60]!r}") from None
    if not (math.isfinite(number) and low <= number <= high):
        raise UserError(f"{place}: column {column} must be between {low:g} and {high:g}, got {text[:60]!r}")
    return number
