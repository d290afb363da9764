"""Read the small CSV tables in reports/."""

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gpro_empathy import files
from gpro_empathy.files import UserError


def read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file with a header line that has at least these columns.

    Raises:
        UserError: If the file is missing, no table or without a row, or lacks a column.
    """
    text = files.read_text(path)
    try:
        table = pd.read_csv(io.StringIO(text))
    except ValueError as error:
        raise UserError(f"{path}: not a CSV table: {' '.join(str(error).split())}") from None
    for column in columns:
        if column not in table.columns:
            raise UserError(f"{path}: column {column!r} is missing; the file has {', '.join(table.columns)}")
    if table.empty:
        raise UserError(f"{path}: no row below the header")
    return table
