"""Score a table of turns with a trained scorer, and write the scores beside the turns' names.

It takes constant memory.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO

import numpy as np

from gpro_empathy import csv_table, files
from gpro_empathy.data import records, wassa
from gpro_empathy.data.dialogue import COLUMNS
from gpro_empathy.data.wassa import Row, Table
from gpro_empathy.files import UserError
from gpro_empathy.labels import EMPATHY

STANDARD = "-"
# Turns that are scored together: enough of them to find others of their own length, few enough to
# stay small. A conversation is scored as a whole, up to the larger number.
CHUNK, LARGEST_CHUNK = 1024, 4096
# Seconds between two lines of progress.
PAUSE = 10.0
CONVERSATION, TURN = ("conversation_id", "conversation"), ("turn_id", "turn")


class Scorer(Protocol):
    """What scoring needs of a scorer; see `empathy_scorer.Scorer`."""

    context_turns: int

    def score(self, texts: list[str], contexts: list[tuple[str, ...]]) -> np.ndarray: ...


def score_file(
    source: str,
    target: str,
    load: Callable[[], Scorer],
    note: Callable[[str], None],
    escapes: records.Escapes = "auto",
) -> None:
    """Score the turns of `source` and write names and scores to `target`, in the order of the rows.

    Args:
        source, target: Paths, or - for standard input or output. The target is CSV or JSON lines,
            as its ending says, or else as the source is. A file is written whole or not at all.
        load: Returns the scorer; called once the source has shown its columns, since it takes
            seconds.
        note: Takes lines for the user that are no results.
        escapes: What a backslash in CSV is, see `records.Escapes`.

    Raises:
        UserError: If the source is no table of turns, or the target is no place for a file.
    """
    check_target(source, target)
    with _open(source) as stream:
        table = wassa.read(stream, "standard input" if source == STANDARD else source, escapes)
        if table.assumption:
            note(table.assumption)
        if table.unknown_columns:
            note(f"columns that are neither read nor written: {records.show(table.unknown_columns)}")
        model = load()
        if model.context_turns and "context" not in table.columns and not _names(table, CONVERSATION):
            note("no column conversation_id or context: every turn is scored without context")
        scored = _reported(score_rows(with_contexts(table, model.context_turns), model), note)
        if target == STANDARD:
            _write_standard_output(scored, table)
            return
        kind = _kind(target) or table.format
        # What a link leads to is written, and the link stays.
        with (
            files.atomic_path(Path(target).resolve()) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            write(scored, table, kind, file)


def check_target(source: str, target: str) -> None:
    """Refuse a target that is the source, or exists and is no ordinary file.

    Raises:
        UserError: If it is one of them.
    """
    path = Path(target)
    if target == STANDARD:
        return
    _kind(target)
    if not path.exists():
        return
    if not path.is_file():
        raise UserError(f"{target}: not an ordinary file; give the path of a new file, or - for standard output")
    if source != STANDARD and Path(source).exists() and path.samefile(source):
        raise UserError(f"{target}: the output would replace the input; give another path")


def _kind(target: str) -> str | None:
    """Return what the ending of a path says of a table's format: csv, jsonl or nothing.

    Raises:
        UserError: If it is that of a format which is not written.
    """
    ending = Path(target).suffix.removeprefix(".").lower()
    if ending in ("json", "tsv", "xlsx", "parquet"):
        raise UserError(f"{target}: {ending} is not written; end it in .csv or .jsonl")
    return ending if ending in ("csv", "jsonl") else None


def with_contexts(table: Table, turns: int) -> Iterator[tuple[Row, tuple[str, ...]]]:
    """Yield each row with the texts of up to `turns` turns before it, oldest first.

    They come from the row's own context, or else from the rows before it of the same conversation.
    What grows with the table is only the set of the conversations' names.

    Raises:
        UserError: If a conversation has no name, goes on after another has begun, or has its turns
            out of order.
    """
    conversation, turn = _names(table, CONVERSATION), _names(table, TURN)
    if not turns or "context" in table.columns or conversation is None:
        for row in table.rows:
            yield row, (row.context or ())[-turns:] if turns else ()
        return
    finished: set[str] = set()
    current, number, history = None, None, ()
    for row in table.rows:
        name = row.conversation(conversation)
        if name != current:
            if name in finished:
                raise UserError(
                    f"{row.place}: column {conversation}: conversation {name[:60]!r} goes on after another has begun; "
                    "bring the rows of each conversation together"
                )
            if current is not None:
                finished.add(current)
            current, number, history = name, None, ()
        number = _next_number(row, turn, number)
        yield row, history
        history = (*history, row.text)[-turns:]


def _next_number(row: Row, column: str | None, before: int | None) -> int | None:
    if column is None:
        return None
    number = row.turn_number(column)
    if before is not None and number <= before:
        raise UserError(
            f"{row.place}: column {column}: turn {number} stands after turn {before} of its conversation; sort the rows"
        )
    return number


def score_rows(pairs: Iterable[tuple[Row, tuple[str, ...]]], model: Scorer) -> Iterator[tuple[Row, np.ndarray]]:
    """Yield each row with its scores, shape (3,), in label units.

    A score is NaN for a label that the scorer has not learned.
    """
    for chunk in _chunks(pairs):
        scores_B3 = model.score([row.text for row, _ in chunk], [context for _, context in chunk])
        learned_3 = ~np.isnan(scores_B3).all(0)
        learned_3[EMPATHY] = True
        finite_B = np.isfinite(scores_B3[:, learned_3]).all(1)
        if not finite_B.all():
            index = int(np.flatnonzero(~finite_B)[0])
            raise UserError(f"{chunk[index][0].place}: the model gives a score that is no number; train it anew")
        yield from ((row, scores_3) for (row, _), scores_3 in zip(chunk, scores_B3, strict=True))


def _chunks(pairs: Iterable[tuple[Row, tuple[str, ...]]]) -> Iterator[list[tuple[Row, tuple[str, ...]]]]:
    """Yield rows in parts that end where a conversation ends.

    The turns of a conversation that is cut up would be read in other windows.
    """
    chunk: list[tuple[Row, tuple[str, ...]]] = []
    for row, context in pairs:
        if len(chunk) >= LARGEST_CHUNK or (len(chunk) >= CHUNK and not context):
            yield chunk
            chunk = []
        chunk.append((row, context))
    if chunk:
        yield chunk


def write(scored: Iterable[tuple[Row, np.ndarray]], table: Table, kind: str, file: TextIO) -> None:
    """Write the id columns and the scores.

    As csv: a header, then a line per row. As jsonl: an object per row.
    """
    if kind == "csv":
        header = [*table.id_columns, *COLUMNS.values()]
        rows = (
            [*row.ids.values(), *("" if np.isnan(score) else f"{score:.4f}" for score in scores_3)]
            for row, scores_3 in scored
        )
        csv_table.write_rows(file, chain([header], rows))
        return
    for row, scores_3 in scored:
        values = (None if np.isnan(score) else round(float(score), 4) for score in scores_3)
        scores = dict(zip(COLUMNS.values(), values, strict=True))
        file.write(json.dumps(row.ids | scores, ensure_ascii=False, allow_nan=False) + "\n")


def _write_standard_output(scored: Iterable[tuple[Row, np.ndarray]], table: Table) -> None:
    if sys.stdout is None:
        raise UserError("standard output is closed; give --output a file")
    # Whatever the locale: what is written is read elsewhere.
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    try:
        write(scored, table, table.format, sys.stdout)
        sys.stdout.flush()
    except OSError as error:
        files.name_place(error, "standard output")
        raise


def _names(table: Table, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in table.columns), None)


def _reported(
    scored: Iterable[tuple[Row, np.ndarray]], note: Callable[[str], None]
) -> Iterator[tuple[Row, np.ndarray]]:
    """Pass scored rows on, and say every few seconds how many there were."""
    started = last = time.monotonic()
    for done, item in enumerate(scored, start=1):
        yield item
        now = time.monotonic()
        if now - last >= PAUSE:
            note(f"{done} turns scored, {done / (now - started):.0f} a second")
            last = now


@contextmanager
def _open(source: str) -> Iterator[BinaryIO]:
    if source == STANDARD:
        if sys.stdin is None:
            raise UserError("standard input is closed; give a file, or pipe a table in")
        yield sys.stdin.buffer
        return
    try:
        with open(source, "rb") as stream:
            yield stream
    except FileNotFoundError as error:
        if error.filename != source:
            raise
        raise UserError(f"{source}: no such file") from None
