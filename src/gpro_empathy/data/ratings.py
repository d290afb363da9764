"""Ratings of responses, by people and by language models: the CSV files of data/ratings.

A rating names what was rated by a hash of the texts that the rater saw, so that it counts for any
run that gave this very answer to this very message, and for no other. data/ratings/README.md has
the columns, and the rules by which is rated.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from gpro_empathy import csv_table, files
from gpro_empathy.data import records
from gpro_empathy.files import UserError

FOLDER = Path("data/ratings")
COLUMNS = ("rater", "kind", "form", "left", "right", "choice", "sense", "empathy")

Kind = Literal["person", "model"]
Form = Literal["single", "pair"]
Choice = Literal["left", "right", "both", "neither"]
# Marks of a single answer: 0 nonsense, 1 coherent but off, 2 a sensible reply; and how empathetic.
SENSE = (0, 1, 2)
NONSENSE, OFF, SENSIBLE = SENSE
EMPATHY = (1, 2, 3, 4, 5)
# The first mark of empathy that shows that a feeling or point of view was taken in.
EMPATHETIC = 3

# A letter in front, so that no spreadsheet takes a hash for a number or a date.
_HASH = re.compile(r"r[0-9a-f]{16}")


@dataclass(frozen=True)
class Rating:
    """What one rater found: marks of the answer `left`, or a choice between `left` and `right`.

    `place` says where it was read, for messages.
    """

    rater: str
    kind: Kind
    form: Form
    left: str
    right: str | None
    choice: Choice | None
    sense: int | None
    empathy: int | None
    place: str = ""


def text_hash(message: str, answer: str) -> str:
    """Return the hash that names an answer to a message: "r" and 16 hexadecimal digits.

    White space at the ends, and how lines end, does not count: a browser may change both.
    """
    shown = "\x1f".join(text.replace("\r\n", "\n").strip() for text in (message, answer))
    return "r" + hashlib.sha256(shown.encode()).hexdigest()[:16]


def read_folder(folder: Path = FOLDER) -> dict[str, list[Rating]]:
    """Return the ratings of every CSV file of a folder, by file name in order; no folder, none.

    Raises:
        UserError: As `read`; or if a rater rated the same thing twice, in one file or in two; names
            both places. If there is a file that is neither CSV nor a text about the ratings, which
            nobody would read.
    """
    listed = sorted(path for path in folder.glob("*") if path.is_file() and not path.name.startswith((".", "~")))
    for path in listed:
        if path.suffix.lower() not in (".csv", ".md"):
            raise UserError(f"{path}: only CSV is read here; save it as a CSV table, or move it out of {folder}")
    found = {path.name: read(path) for path in listed if path.suffix.lower() == ".csv"}
    first: dict[tuple, Rating] = {}
    for rating in (rating for ratings in found.values() for rating in ratings):
        # A pair is the same pair whichever answer stands left.
        # Nor do capitals make another rater: the page that people rate on takes such names as one.
        key = (rating.rater.casefold(), rating.form, frozenset((rating.left, rating.right)))
        if (before := first.setdefault(key, rating)) is not rating:
            raise UserError(
                f"{rating.place}: {rating.rater!r} rated the same before, in {before.place}; keep one of the two rows, "
                "or give a second reading a rater's name of its own"
            )
    return found


def read(path: Path) -> list[Rating]:
    """Read a file of ratings: columns in any order, also as a spreadsheet saves it.

    Raises:
        UserError: If it is no such table, or a value is none of its column; names file, row, column
            and value.
    """
    with path.open("rb") as stream:
        table = records.read(stream, str(path), escapes="none")
        if table.format != "csv":
            raise UserError(
                f"{path}: is JSON, where a CSV table is read; save it with the columns {', '.join(COLUMNS)}"
            )
        if missing := [name for name in COLUMNS if name not in table.columns]:
            raise UserError(f"{path}: column {missing[0]!r} is missing; the table has {', '.join(table.columns)}")
        return [_rating(row, place) for place, row in table.records]


def write(path: Path, ratings: Iterable[Rating]) -> None:
    """Write a file of ratings, atomically."""
    rows = [{name: getattr(rating, name) for name in COLUMNS} for rating in ratings]
    files.write_text(path, csv_table.text(COLUMNS, rows))


def _rating(row: dict, place: str) -> Rating:
    form = _one_of(row, "form", get_args(Form), place)
    single = form == "single"
    for name in ("right", "choice") if single else ("sense", "empathy"):
        if (row[name] or "").strip():
            raise UserError(f"{place}: {name}: {row[name]!r}, where a rating of form {form!r} has none")
    rater = (row["rater"] or "").strip()
    if not rater:
        raise UserError(f"{place}: rater: is empty; give every row the name of its rater")
    return Rating(
        rater=rater,
        kind=_one_of(row, "kind", get_args(Kind), place),
        form=form,
        left=_hash(row, "left", place),
        right=None if single else _hash(row, "right", place),
        choice=None if single else _one_of(row, "choice", get_args(Choice), place),
        sense=_mark(row, "sense", SENSE, place) if single else None,
        empathy=_mark(row, "empathy", EMPATHY, place) if single else None,
        place=place,
    )


def _one_of(row: dict, name: str, allowed: Sequence[str], place: str) -> str:
    value = (row[name] or "").strip()
    if value not in allowed:
        raise UserError(f"{place}: {name}: {value!r} is none of {', '.join(allowed)}")
    return value


def _mark(row: dict, name: str, allowed: Sequence[int], place: str) -> int:
    return int(_one_of(row, name, [str(mark) for mark in allowed], place))


def _hash(row: dict, name: str, place: str) -> str:
    value = (row[name] or "").strip()
    if not _HASH.fullmatch(value):
        raise UserError(f"{place}: {name}: {value!r} is no hash of a rated text (r and 16 digits of 0-9, a-f)")
    return value
