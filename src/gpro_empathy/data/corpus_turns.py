"""Which turn of the embedded corpus a line of its other files answers."""

from collections.abc import Mapping
from pathlib import Path

from gpro_empathy.data import wassa
from gpro_empathy.files import UserError


def texts(folder: Path) -> dict[str, str]:
    """Return the text of each turn of the corpus in a folder, by the turn's key."""
    return {turn.key: turn.text for turn in wassa.read_labelled(folder / "turns.csv")}


def answered(row: Mapping, texts: Mapping[str, str], place: str) -> str:
    """Return the key of the turn that a line names by `conversation` and `turn`.

    Args:
        place: File and line, for the message.

    Raises:
        UserError: If the corpus has no such turn.
    """
    key = f"{row['conversation']}.{row['turn']}"
    if key not in texts:
        raise UserError(f"{place}: turns.csv has no turn {row['turn']} in conversation {row['conversation']}")
    return key
