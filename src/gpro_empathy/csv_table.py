"""Write every CSV table of the project, and read back those in reports/.

What goes in comes out the same.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gpro_empathy import files
from gpro_empathy.files import UserError

if TYPE_CHECKING:  # pandas takes a while to load, which a mistaken table to score need not wait for
    import pandas as pd

# Columns of names: read as texts, however much they look like a number or like nothing.
NAMES = ("conversation",)
# What no number is written as.
MISSING = ("", "nan")


class _EndedByNewLine:
    """A file for `csv.writer` whose lines end with a newline alone.

    The writer ends them with a carriage return too, as it quotes one only where it is part of the
    line end.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix("\r\n") + "\n")


def write_rows(file: TextIO, rows: Iterable[Sequence[Any]]) -> None:
    r"""Write rows to a file opened with newline="", one after the other; lines end in \n."""
    csv.writer(_EndedByNewLine(file)).writerows(rows)


def text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows by column as CSV, with a header; None and a missing value are an empty cell.

    Raises:
        ValueError: If a row has another column.
    """
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(_EndedByNewLine(buffer), columns)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def read(path: Path, columns: Sequence[str]) -> "pd.DataFrame":
    """Read a CSV file with a header line that has at least these columns; those in NAMES are texts.

    Raises:
        UserError: If the file is missing, no table or without a row, or lacks a column.
    """
    import pandas as pd

    content = files.read_text(path, newline="")
    try:
        table = pd.read_csv(
            io.StringIO(content, newline=""),
            dtype=dict.fromkeys(NAMES, str),
            keep_default_na=False,
            na_values={name: MISSING for name in next(csv.reader(io.StringIO(content)), []) if name not in NAMES},
        )
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV table: {' '.join(str(error).split())}") from None
    for column in columns:
        if column not in table.columns:
            raise UserError(f"{path}: column {column!r} is missing; the file has {', '.join(table.columns)}")
    if table.empty:
        raise UserError(f"{path}: no row below the header")
    return table
