"""Read a table of turns, CSV or JSON lines, row by row in constant memory.

CSV is read in the layout of the official CONV-turn files (quotes inside a text escaped with a backslash, or doubled), JSON
lines with the same names as keys. Of the columns only text must be there; labels are not looked at.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

from gpro_empathy.data import dialogue
from gpro_empathy.files import UserError

# In bytes: a row that is longer, such as one whose quote never ends, is refused before it fills the memory.
LONGEST_ROW = 2**24
# Names of turns in the official files (id, person_id_1, ...) and in this project's own (conversation, turn).
ID_COLUMN = re.compile(r"id|.+_id(_\d+)?|speaker|conversation|turn")
# What a column may hold beside names; anything else is reported as not understood.
OTHER_COLUMNS = {"text", "context", *dialogue.LABELS, *dialogue.COLUMNS.values(), "SelfDisclosure"}
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|$)")
_REMEDY = 'quotes inside a text must be written as \\"'


@dataclass(frozen=True)
class Row:
    """One turn as it stands in the table; context is None where the table has no such column.

    `place` is the table and the line, as messages name it.
    """

    place: str
    ids: dict[str, str | int | float | bool | None]
    text: str
    context: tuple[str, ...] | None


@dataclass(frozen=True)
class Table:
    """The name and format (csv or jsonl) of a table, its column names, and its rows, which can be gone through once."""

    name: str
    format: str
    columns: list[str]
    rows: Iterator[Row]

    @property
    def id_columns(self) -> list[str]:
        """Return the columns that name a turn or its speaker."""
        return [column for column in self.columns if ID_COLUMN.fullmatch(column)]

    @property
    def unknown_columns(self) -> list[str]:
        """Return the columns whose meaning is not known."""
        return [c for c in self.columns if not ID_COLUMN.fullmatch(c) and c not in OTHER_COLUMNS]


def read(stream: BinaryIO, name: str) -> Table:
    """Begin to read a table: its columns now, its rows as they are asked for.

    A table whose first character is { is JSON lines, with the keys of its first row as columns; any other is CSV.

    Raises:
        UserError: If there is no text column or no row. While rows are read: if one is not in the format, not UTF-8,
            too long, or without text; names line and column.
    """
    lines = _lines(stream, name)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        raise UserError(f"{name}: the file is empty")
    is_json = first[1].lstrip().startswith("{")
    read_rows = _read_jsonl if is_json else _read_csv
    columns, records = read_rows(chain([first], lines), name)
    _check_columns(columns, name)
    head = next(records, None)
    if head is None:
        raise UserError(f"{name}: no rows after the header")
    rows = (_row(place, record, columns) for place, record in chain([head], records))
    return Table(name, "jsonl" if is_json else "csv", columns, rows)


def _lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Yield the number and text of every line, with its end, whatever line ends the file mixes."""
    number = 0
    while chunk := stream.readline(LONGEST_ROW + 1):
        # The two bytes of \r\n never part here: readline goes on to the \n.
        for line in _LINE.findall(chunk):
            if not line:
                continue
            number += 1
            if len(line) > LONGEST_ROW:
                raise UserError(f"{name}, line {number}: longer than {LONGEST_ROW} bytes; is it a table of turns?")
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                raise UserError(
                    f"{name}, line {number}, byte {error.start + 1}: {byte:#04x} is not UTF-8; save the file as UTF-8"
                ) from None


def _read_csv(lines: Iterator[tuple[int, str]], name: str) -> tuple[list[str], Iterator[tuple[str, dict]]]:
    position = [0]  # the number of the last line that the CSV reader took

    def texts() -> Iterator[str]:
        for position[0], line in lines:
            yield line

    csv.field_size_limit(LONGEST_ROW)  # the standard library's limit refuses texts of some 20,000 words
    reader = csv.reader(texts(), escapechar="\\", strict=True)

    def fields() -> Iterator[tuple[int, list[str]]]:
        while True:
            start = position[0] + 1
            try:
                values = next(reader, None)
            except csv.Error as error:
                raise UserError(f"{name}, row that begins in line {start}: {error}; {_REMEDY}") from None
            if values is None:
                return
            if values:
                yield start, values

    rows = fields()
    header = next(rows)[1]

    def records() -> Iterator[tuple[str, dict]]:
        for start, values in rows:
            if len(values) != len(header):
                raise UserError(
                    f"{name}, line {start}: {len(values)} fields where the header has {len(header)}; {_REMEDY}"
                )
            yield f"{name}, line {start}", dict(zip(header, values, strict=True))

    return header, records()


def _read_jsonl(lines: Iterator[tuple[int, str]], name: str) -> tuple[list[str], Iterator[tuple[str, dict]]]:
    records = (_parse(f"{name}, line {number}", line) for number, line in lines if line.strip())
    head = next(records)
    return list(head[1]), chain([head], records)


def _parse(place: str, line: str) -> tuple[str, dict]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON number")

    try:
        record = json.loads(line, parse_constant=refuse)
    except RecursionError:
        raise UserError(f"{place}: not a turn (nested too deeply)") from None
    except ValueError as error:
        raise UserError(f"{place}: not JSON ({str(error)[:100].lower()})") from None
    if not isinstance(record, dict):
        raise UserError(f"{place}: expected a JSON object, got {line.strip()[:60]}")
    return place, record


def _check_columns(columns: list[str], name: str) -> None:
    repeated = [column for column in columns if columns.count(column) > 1]
    if repeated:
        raise UserError(f"{name}: column {repeated[0]!r} stands in the header more than once")
    if "text" not in columns:
        raise UserError(f"{name}: no column text; the columns are {dialogue.show(columns) or 'none'}")


def _row(place: str, record: dict, columns: list[str]) -> Row:
    missing = [
        column for column in columns if column not in record and (ID_COLUMN.fullmatch(column) or column == "text")
    ]
    if missing:
        raise UserError(f"{place}: column {missing[0]} is missing, which the first row has")
    text = record["text"]
    if not isinstance(text, str):
        raise UserError(f"{place}: column text must be a text, got {json.dumps(text)[:60]}")
    if not dialogue.normalise(text):
        raise UserError(f"{place}: column text is empty; delete the row or fill it in")
    ids = {column: record[column] for column in columns if ID_COLUMN.fullmatch(column)}
    for column, value in ids.items():
        if isinstance(value, dict | list):
            raise UserError(f"{place}: column {column} must be a text or a number, got {json.dumps(value)[:60]}")
        if isinstance(value, str) and not value.isprintable() and any("\ud800" <= c <= "\udfff" for c in value):
            raise UserError(f"{place}: column {column} holds half a character (a lone surrogate)")
    return Row(place, ids, text, _context(place, record["context"]) if "context" in record else None)


def _context(place: str, value: object) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value or ""]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{place}: column context must be a text or a list of texts, got {json.dumps(value)[:60]}")
    return tuple(text for text in texts if text.strip())
