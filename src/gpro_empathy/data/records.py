"""Read a CSV or JSON lines table record by record, in constant memory.

Its fields are separated by commas, semicolons or tabs, as its header shows. Most CSV doubles a
quote inside a text and means a backslash as it stands; the official CONV-turn files escape with it.
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO, Literal

from gpro_empathy.files import UserError

# In bytes: a row that is longer, such as one whose quote never ends, is refused before it fills the
# memory.
LONGEST_ROW = 2**24
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|$)")
# What decides how backslashes are read: the first characters of a table, so that memory is bounded.
LOOK_AHEAD = 2**20
DELIMITERS = ",;\t"
# Columns that every official file has.
OFFICIAL = {"id", "article_id", "conversation_id", "turn_id", "text"}
# An escaped quote within a field: plain CSV has one before the end of a field alone, or before the
# other half of a doubled quote.
_ESCAPED_QUOTE = re.compile(r'(?<!\\)(?:\\\\)*\\"(?![",;\t\r\n]|\Z)')
# A doubled quote within a field; `""` between delimiters is an empty field.
_DOUBLED_QUOTE = re.compile(r'[^\\",;\t\r\n]""|[,;\t\r\n]"""')
# How a JSON array of objects begins, which is no table of one object a line.
_ARRAY = re.compile(r"\s*\[\s*(?:\{|\Z)")
_REMEDIES = {
    "backslash": 'quotes inside a text must be written as \\" (escapes: backslash)',
    "none": "quotes inside a text must be doubled (escapes: none)",
}

# What a backslash in CSV is: "backslash" an escape, "none" itself, "auto" what the table shows.
Escapes = Literal["auto", "backslash", "none"]
# Where a record stands, as messages name it, and its values by column.
Record = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Table:
    """A table whose records are read as they are asked for.

    `assumption` says how backslashes are read, where that was left open and there are any.
    """

    format: Literal["csv", "jsonl"]
    columns: list[str]
    records: Iterator[Record]
    assumption: str | None = None


def read(stream: BinaryIO, name: str, escapes: Escapes = "auto") -> Table:
    """Begin to read a table.

    A table whose first character is { is JSON lines, with the keys of its first row as columns; any
    other is CSV. By "auto", a backslash is an escape if quotes are escaped by it, or the header is
    that of the official files and no quote is doubled.

    Args:
        name: What messages call the table.

    Raises:
        UserError: If it is empty, or a JSON array. While records are read: if one is not in the
            format, not UTF-8 or too long; names the line.
    """
    lines = _lines(stream, name)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        raise UserError(f"{name}: the file is empty")
    if _ARRAY.match(first[1]):
        raise UserError(f"{name}: a JSON array; write JSON lines, one object a line without commas between")
    if first[1].lstrip().startswith("{"):
        return _jsonl(chain([first], lines), name)
    return _csv(first, lines, name, escapes)


def show(columns: Iterable[str]) -> str:
    """Return column names as part of one line of at most 200 characters, whatever they hold."""
    return ", ".join(column if column and column.isprintable() else repr(column) for column in columns)[:200]


def _lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Yield the number and text of every line, with its end, whatever line ends the file mixes."""
    number = 0
    while chunk := stream.readline(LONGEST_ROW + 1):
        # The two bytes of \r\n never part: readline goes on to the \n.
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


def _csv(first: tuple[int, str], lines: Iterator[tuple[int, str]], name: str, escapes: Escapes) -> Table:
    csv.field_size_limit(LONGEST_ROW)  # the standard library's limit refuses texts of some 20,000 words
    ahead = [first]
    characters = 0
    for line in lines:
        ahead.append(line)
        characters += len(line[1])
        if characters > LOOK_AHEAD:
            break
    text = "".join(line for _, line in ahead)
    delimiter = max(DELIMITERS, key=lambda sign: len(next(csv.reader([first[1]], delimiter=sign))))
    chosen = escapes
    if chosen == "auto":
        official = set(next(csv.reader([first[1]], delimiter=delimiter))) >= OFFICIAL
        escaped = _ESCAPED_QUOTE.search(text) or (official and not _DOUBLED_QUOTE.search(text))
        chosen = "backslash" if escaped else "none"
    assumption = None
    if escapes == "auto" and "\\" in text:
        read_as = "as escapes, like those of the official files" if chosen == "backslash" else "as they stand"
        assumption = f"{name}: backslashes are read {read_as} (escapes: {chosen})"
    rows = _rows(chain(ahead, lines), name, delimiter, chosen)
    header = next(rows)[1]

    def records() -> Iterator[Record]:
        for start, values in rows:
            if len(values) != len(header):
                raise UserError(
                    f"{name}, line {start}: {len(values)} fields where the header has {len(header)}; {_REMEDIES[chosen]}"
                )
            yield f"{name}, line {start}", dict(zip(header, values, strict=True))

    return Table("csv", header, records(), assumption)


def _rows(lines: Iterator[tuple[int, str]], name: str, delimiter: str, escapes: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line in which each row begins, and its fields."""
    position = 0  # the number of the last line that the CSV reader took

    def texts() -> Iterator[str]:
        nonlocal position
        for position, line in lines:  # noqa: B007  `start` is taken from it
            yield line

    escape = "\\" if escapes == "backslash" else None
    reader = csv.reader(texts(), delimiter=delimiter, escapechar=escape, strict=True)
    while True:
        start = position + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{name}, row that begins in line {start}: {error}; {_REMEDIES[escapes]}") from None
        if values is None:
            return
        if values:
            yield start, values


def _jsonl(lines: Iterator[tuple[int, str]], name: str) -> Table:
    records = (_json_record(f"{name}, line {number}", line) for number, line in lines if line.strip())
    head = next(records)
    return Table("jsonl", list(head[1]), chain([head], records))


def _json_record(place: str, line: str) -> Record:
    def finite(number: str) -> float:
        value = float(number)
        if not math.isfinite(value):  # NaN, Infinity, or a number like 1e400
            raise ValueError(f"{number[:60]} is no number that can be computed with")
        return value

    try:
        record = json.loads(line, parse_constant=finite, parse_float=finite)
    except RecursionError:
        raise UserError(f"{place}: not a turn (nested too deeply)") from None
    except ValueError as error:
        raise UserError(f"{place}: not JSON ({str(error)[:100].lower()})") from None
    if not isinstance(record, dict):
        raise UserError(f"{place}: expected a JSON object, got {line.strip()[:60]}")
    return place, record
