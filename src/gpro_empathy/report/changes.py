r"""What the report said of the baseline, beside what it says now: the macros of paper/diff.tex.

The same text is typeset from the same macros, each changed one redefined as \changed{old}{new}.
Sentences are compared word by word. A tool that compares LaTeX sources, such as latexdiff, would
see no change, as the numbers stand in none.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

from gpro_empathy.report import latex

PREFIX = "RunBaseline"
# A file's path within a link, which cannot hold two.
_PATHS = frozenset({"RunStudyPath"})
# Mathematics, of which no part may be cut out.
_WHOLE = "Formula"
# Sentences that share less than this are shown whole, one after the other.
_ALIKE = 0.4
# How the tables of `latex` part and end their cells, and what their changed forms are called.
_CELL, _ROW = " & ", r" \\"
CHANGED_TABLE = "changed_"
_NOT_KEPT = ("baseline_", CHANGED_TABLE)
_MARK = re.compile(r"\\example\{([0-9a-f]+)\}")


def kept_numbers(definitions: str) -> dict[str, str]:
    """Return the macros that the baseline keeps, from the text of numbers.tex.

    Those about the baseline itself are left out.
    """
    macros = latex.read_definitions(definitions)
    return {name: value for name, value in macros.items() if not name.startswith(PREFIX)}


def kept_tables(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the tables that the baseline keeps, of all generated files by name."""
    return {name: text for name, text in texts.items() if name.endswith("_table") and not name.startswith(_NOT_KEPT)}


def example_marks(examples: str) -> list[str]:
    """Return the marks that tell the examples of examples.tex apart, in their order."""
    return _MARK.findall(examples)


def definitions(macros: Mapping[str, str], numbers: Mapping[str, str], marks: Sequence[str]) -> str:
    r"""Return the redefinition of every changed macro, and which examples are the baseline's.

    Args:
        macros: Those of the report, by name.
        numbers: Those of the baseline's report; one that it lacks is new in the text.
        marks: Of the examples in the baseline's report.
    """
    lines = [
        rf"\renewcommand{{\{name}}}{{{side_by_side(numbers.get(name, ''), value, whole=name.endswith(_WHOLE))}}}"
        for name, value in macros.items()
        if not name.startswith(PREFIX) and name not in _PATHS and numbers.get(name) != value
    ]
    kept = [rf"\keptexample{{{mark}}}" for mark in marks]
    return latex.GENERATED + "".join(f"{line}\n" for line in [*lines, *kept])


def tables(new: Mapping[str, str], old: Mapping[str, str]) -> dict[str, str]:
    r"""Return every table that changed, by the name of its changed form, cell by cell.

    One of another shape than the baseline's is left as it is, as its cells have no old ones.
    """
    changed = {}
    for name, text in new.items():
        before, after = old.get(name, "").split("\n"), text.split("\n")
        cells = [(a.split(_CELL), b.split(_CELL)) for a, b in zip(before, after, strict=False)]
        if text == old.get(name) or len(before) != len(after) or any(len(a) != len(b) for a, b in cells):
            continue
        changed[f"{CHANGED_TABLE}{name}"] = "\n".join(
            _CELL.join(_changed_cell(*pair) for pair in zip(a, b, strict=True)) for a, b in cells
        )
    return changed


def _changed_cell(old: str, new: str) -> str:
    if old == new:
        return new
    # The last cell of a row has its end.
    end = _ROW if new.endswith(_ROW) else ""
    return _marked(old.removesuffix(_ROW), new.removesuffix(_ROW)) + end


def nothing(reason: str) -> str:
    """Return the file where there is nothing to show, with the reason as a comment."""
    return f"{latex.GENERATED}% Nothing to show: {' '.join(reason.split())}\n"


def reason_for_nothing(text: str) -> str | None:
    """Return why a file of `nothing` shows nothing; None if it is one of `definitions`."""
    found = re.search(r"^% Nothing to show: (.*)$", text, re.MULTILINE)
    return found[1] if found else None


def side_by_side(old: str, new: str, *, whole: bool = False) -> str:
    r"""Return \changed, \added and \removed around what differs of two LaTeX texts."""
    before, after = list(words(old)), list(words(new))
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    if whole or matcher.ratio() < _ALIKE:
        return _marked(old, new)
    pieces = []
    for what, a, b, c, d in matcher.get_opcodes():
        now = " ".join(after[c:d])
        pieces.append(now if what == "equal" else _marked(" ".join(before[a:b]), now))
    return " ".join(pieces)


def _marked(old: str, new: str) -> str:
    if not old:
        return rf"\added{{{new}}}"
    return rf"\changed{{{old}}}{{{new}}}" if new else rf"\removed{{{old}}}"


def words(text: str) -> Iterator[str]:
    """Yield the words of LaTeX text; groups, intervals and mathematics stay whole."""
    depth, mathematics, start = 0, False, 0
    for place, character in enumerate(text):
        escaped = place > 0 and text[place - 1] == "\\" and (place < 2 or text[place - 2] != "\\")
        if escaped:
            continue
        depth += (character in "{[") - (character in "}]")
        mathematics ^= character == "$"
        if character == " " and depth == 0 and not mathematics:
            if text[start:place]:
                yield text[start:place]
            start = place + 1
    if text[start:]:
        yield text[start:]
