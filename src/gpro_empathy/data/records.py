"""Read a CSV or JSON lines table record by record, in constant memory.

CSV is read in the layout of the official CONV-turn files: quotes inside a text are escaped with a
backslash, or doubled.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

from gpro_empathy.files import UserError

# In bytes: a row that is longer, such as one whose quote never ends, is refused before it fills the
# memory.
LONGEST_ROW = 2**24
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|$)")
_REMEDY = 'quotes inside a text must be written as \\"'

# Where a record stands, as messages name it, and its values by column.
Record = tuple[str, dict[str, Any]]


def read(stream: BinaryIO, name: str) -> tuple[str, list[str], Iterator[Record]]:
    """Begin to read a table: return its format ("csv" or "jsonl"), its columns, and its records.

    The records are read as they are asked for.

    A table whose first character is { is JSON lines, with the keys of its first row as columns; any
    other is CSV.

    Args:
        name: What messages call the table.

    Raises:
        UserError: If it is empty. While records are read: if one is not in the format, not UTF-8 or
            too long; names the line.
    """
    lines = _lines(stream, name)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        raise UserError(f"{name}: the file is empty")
    is_json = first[1].lstrip().startswith("{")
    columns, records = (_jsonl if is_json else _csv)(chain([first], lines), name)
    return "jsonl" if is_json else "csv", columns, records


def show(columns: Iterable[str]) -> str:
    """Return column names as part of one line of at most 200 characters, whatever they hold."""
    return ", ".join(column if column.isprintable() else repr(column) for column in columns)[:200]


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


def _csv(lines: Iterator[tuple[int, str]], name: str) -> tuple[list[str], Iterator[Record]]:
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

    def records() -> Iterator[Record]:
        for start, values in rows:
            if len(values) != len(header):
                raise UserError(
                    f"{name}, line {start}: {len(values)} fields where the header has {len(header)}; {_REMEDY}"
                )
            yield f"{name}, line {start}", dict(zip(header, values, strict=True))

    return header, records()


def _jsonl(lines: Iterator[tuple[int, str]], name: str) -> tuple[list[str], Iterator[Record]]:
    records = (_json_record(f"{name}, line {number}", line) for number, line in lines if line.strip())
    head = next(records)
    return list(head[1]), chain([head], records)


def _json_record(place: str, line: str) -> Record:
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
