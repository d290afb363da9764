"""Turns of conversations: normalise their text, order and split them, keep them in files.

The label columns and their names are those of the WASSA CONV-turn task (Barriere et al. 2023,
2023.wassa-1.44, and later): Emotion (intensity, 0-5), EmotionalPolarity (0 positive, 2 negative)
and Empathy (0-5), means over annotators.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from gpro_empathy import files
from gpro_empathy.files import UserError
from gpro_empathy.labels import LABELS

COLUMNS = {"emotion": "Emotion", "polarity": "EmotionalPolarity", "empathy": "Empathy"}
# The polarity scale ends at 2, yet one row of the official train file carries 2.67.
RANGES = {"emotion": (0.0, 5.0), "polarity": (0.0, 3.0), "empathy": (0.0, 5.0)}

_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b")
_MENTION = re.compile(r"(?<!\w)@\w+")
_HASHTAG = re.compile(r"(?<!\w)#(\w+)")
# Unicode's categories Cc, less its white space, and Cs: both are closed, so no version differs.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")
_INVISIBLE = ("Cc", "Cf", "Cs")


def own_story(conversation: str) -> str:
    """Return the story of a conversation without an article: a name that no article's id has."""
    return f"conversation {conversation}"


@dataclass(frozen=True)
class Turn:
    """A turn: its place, its text, the turns before it (oldest first), and its labels.

    The labels are in label units, or None. `story` is the news story that the conversation is
    about, or `own_story` of the conversation where the source names none: turns of one story are
    related, so that splits and intervals keep them together.
    """

    conversation: str
    turn: int
    text: str
    context: tuple[str, ...]
    emotion: float | None
    polarity: float | None
    empathy: float | None
    story: str = ""

    def __post_init__(self) -> None:
        """Take the conversation for the story where none is named."""
        if not self.story:
            object.__setattr__(self, "story", own_story(self.conversation))

    @property
    def key(self) -> str:
        """Return the turn's name in every table: conversation and turn."""
        return f"{self.conversation}.{self.turn}"


# What a split keeps together, by the values of prepare.split: its plural, and its name for a turn.
Split = Literal["by_story", "by_conversation", "by_turn"]
UNITS: dict[Split, tuple[str, Callable[[Turn], str]]] = {
    "by_story": ("stories", lambda turn: turn.story),
    "by_conversation": ("conversations", lambda turn: turn.conversation),
    "by_turn": ("turns", lambda turn: turn.key),
}


def normalise(text: str) -> str:
    """Return `text` as the scorer sees it.

    NFKC; URLs, e-mail addresses and @mentions become [URL], [EMAIL] and [USER]; a hashtag loses its
    sign; control characters and halves of characters (lone surrogates) are dropped; white space is
    folded. Everything else stays: joiners, marks of direction and private letters mean something,
    and a character that Python's tables do not have yet is one to the reader.
    """
    text = unicodedata.normalize("NFKC", text)
    text = _URL.sub("[URL]", text)
    text = _EMAIL.sub("[EMAIL]", text)
    text = _MENTION.sub("[USER]", text)
    text = _HASHTAG.sub(r"\1", text)
    text = _CONTROL.sub("", text)
    return " ".join(text.split())


def is_blank(text: str) -> bool:
    """Return whether a text shows nothing: white space, control and format characters alone."""
    return all(c.isspace() or unicodedata.category(c) in _INVISIBLE for c in text)


def split(
    turns: Sequence[Turn], *, validation: float, test: float, by: Split, rng: np.random.Generator
) -> dict[str, list[Turn]]:
    """Split turns into train, validation and test, whole units at a time.

    Args:
        validation, test: Shares of the units, each in [0, 1), together below 1; what is positive
            gets at least one unit.
        by: What the units are.

    Raises:
        UserError: If there are fewer units than splits to fill.
    """
    plural, unit = UNITS[by]
    groups = sorted({unit(turn) for turn in turns})
    order = [groups[i] for i in rng.permutation(len(groups))]
    counts = [max(1, round(share * len(groups))) if share else 0 for share in (validation, test)]
    if sum(counts) >= len(groups):
        filled = "train and validation" if not test else "train, validation and test"
        raise UserError(f"prepare.split {by}: too few {plural} ({len(groups)}) to fill {filled}; give more data")
    part = dict.fromkeys(order, "train")
    part.update(dict.fromkeys(order[: counts[0]], "validation"))
    part.update(dict.fromkeys(order[counts[0] : sum(counts)], "test"))
    result: dict[str, list[Turn]] = {"train": [], "validation": [], "test": []}
    for turn in turns:
        result[part[unit(turn)]].append(turn)
    return result


def describe(turns: Iterable[Turn]) -> dict:
    """Return sizes and label statistics of a split, for the data report.

    The statistics are mean and sample SD, in label units.
    """
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
        "stories": len({turn.story for turn in turns}),
        "conversations": len({turn.conversation for turn in turns}),
        "turns": len(turns),
        "mean_words": float(np.mean([len(turn.text.split()) for turn in turns])) if turns else None,
        "labels": labels,
    }


def count_stories(parts: Mapping[str, Sequence[Turn]]) -> dict:
    """Count the stories of all splits, and those of test that stand in another split too.

    Both are None where the source names no stories: no two conversations then share one.
    """
    turns = [turn for part in parts.values() for turn in part]
    stories = {turn.story for turn in turns}
    if len(stories) == len({turn.conversation for turn in turns}):
        return {"stories": None, "shared_stories": None}
    tested = {turn.story for turn in parts["test"]}
    others = {turn.story for name, part in parts.items() if name != "test" for turn in part}
    return {"stories": len(stories), "shared_stories": len(tested & others)}


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


def link(turns: Sequence[Turn], name: str) -> list[Turn]:
    """Order turns by conversation and turn, and give each the texts before it.

    Args:
        name: Where the turns come from, as a message says it.

    Raises:
        UserError: If a turn stands there more than once.
    """
    repeated = [key for key, n in Counter(turn.key for turn in turns).items() if n > 1]
    if repeated:
        key = repeated[0] if repeated[0].isprintable() else repr(repeated[0])
        raise UserError(f"{name}: conversation and turn {key[:60]} stand in more than one row")
    result: list[Turn] = []
    first_seen = {turn.conversation: i for i, turn in reversed(list(enumerate(turns)))}
    context: list[str] = []
    for turn in sorted(turns, key=lambda t: (first_seen[t.conversation], t.turn)):
        if result and result[-1].conversation != turn.conversation:
            context = []
        result.append(replace(turn, context=tuple(context)))
        context.append(turn.text)
    return result
