"""Talk to the tuned policy in the terminal.

Here are the notice, the commands, and how answers and their scores are shown.
"""

import shutil
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import Protocol, TextIO

from gpro_empathy.files import UserError

NOTICE = """\
This is a research model. It was trained to raise automatic scores, which are not empathy: what it says can be wrong or
hurtful. It is no help in a crisis. If you or someone near you is in danger, call your local emergency number (112, 911,
999, ...). To talk to a person, call a crisis line; https://findahelpline.com lists them by country."""
HELP = """\
Write a message in one line. Every message is answered by itself, as in training: the model does not see earlier ones.
  /compare   show the starting policy's answer beside the tuned one's, or stop showing it
  /seed N    talk to the policy that was trained from seed N
  /help      this text
  /quit      end, as do Ctrl-D and Ctrl-C
Scores: empathy by the scorer that training used and, after the stroke, by one that training never saw, both from 0 to 5;
similarity to your message, from 0 to 1; and the combined score of all reward terms, from 0 to 1, calibrated on the
starting policy. They rate the answer, not the reasoning."""
PROMPT = "you> "
# Columns of the terminal that one answer is wrapped to: at most, and at least where two stand side
# by side.
WIDEST, NARROWEST = 100, 24
# Format characters that join letters and emoji; the others, among them those that turn the writing
# direction, are shown.
_JOINERS = "\u200c\u200d"
_ACTED_ON = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class Policies(Protocol):
    """What the chat needs of the loaded models; see `answering.Policies`."""

    def choose(self, seed: int) -> None: ...

    def respond(self, message: str, compare: bool, on_token: Callable[[str, int], None] | None) -> list[dict]: ...


def talk(load: Callable[[], Policies], stdin: TextIO, stdout: TextIO, stderr: TextIO, *, compare: bool) -> None:
    """Say the notice, load the models, and answer line by line.

    It goes on until /quit, the end of the input or Ctrl-C.

    Args:
        load: Returns the models; called after the notice, since it takes seconds.
        stderr: Takes the progress while an answer is written, if it is a terminal.
        compare: Whether the starting policy answers too, from the start.

    Raises:
        UserError: If the models cannot be loaded.
    """
    progress = _progress(stderr)
    with suppress(KeyboardInterrupt):
        print(f"{NOTICE}\n\nLoading the models ...", file=stdout, flush=True)
        policies = load()
        print("/help lists the commands.\n", file=stdout, flush=True)
        for line in _lines(stdin):
            command, _, argument = line.partition(" ")
            try:
                if command == "/quit":
                    return
                if command == "/compare":
                    compare = not compare
                    shown = f"The starting policy's answers are {'shown too' if compare else 'no longer shown'}."
                elif line.startswith("/"):
                    shown = _obey(command, argument.strip(), policies)
                else:
                    rows = policies.respond(line, compare, progress)
                    shown = show(rows, shutil.get_terminal_size().columns)
            except UserError as error:
                shown = printable(str(error))
            _clear(stderr)
            print(f"{shown}\n", file=stdout, flush=True)
    _clear(stderr)


def _obey(command: str, argument: str, policies: Policies) -> str:
    if command == "/help":
        return HELP
    if command == "/seed":
        if not (argument.isascii() and argument.isdigit()):
            raise UserError(f"/seed needs a whole number, got {argument!r}")
        policies.choose(int(argument))
        return f"You talk to the policy of seed {int(argument)}."
    raise UserError(f"{command}: no such command; /help lists them")


def show(rows: Sequence[dict], width: int) -> str:
    """Return answers with reasoning and scores, side by side, wrapped to `width` columns.

    Args:
        rows: One row per policy, as `rollouts.score` gives them.
    """
    each = min(WIDEST, max(NARROWEST, (width - 3 * (len(rows) - 1)) // len(rows)))
    lines = []
    for parts in zip(*map(_parts, rows), strict=True):
        for cells in zip_longest(*(_wrap(part, each) for part in parts), fillvalue=""):
            lines.append(" | ".join(cell.ljust(each) for cell in cells).rstrip())
    return "\n".join(lines)


def printable(text: str) -> str:
    """Return `text` with a visible mark in place of each character a terminal acts on.

    New lines stay.
    """
    return "".join(
        c if c in f"\n{_JOINERS}" or unicodedata.category(c) not in _ACTED_ON else "\N{REPLACEMENT CHARACTER}"
        for c in text.replace("\r\n", "\n").replace("\t", " ")
    )


def _parts(row: dict) -> list[str]:
    title = f"tuned policy, seed {row['seed']}"
    if row["model"] != "tuned":
        title = f"starting policy ({row['model'].replace('_', ' ')})"
    remarks = [] if row["well_formed"] else ["not in the response format"]
    if row["finish_reason"] == "length":
        remarks.append(f"cut at {row['completion_tokens']} tokens")
    scores = (
        f"empathy {row['empathy_raw']:.2f} / {row['audit_empathy_raw']:.2f}, similarity "
        f"{row['semantic_similarity_raw']:.2f}, combined {row['combined_reference']:.2f}"
    )
    reasoning = (
        "\n".join(f"  {line.strip()}" for line in row["reasoning"].split("\n")) if row["reasoning"] else "  none"
    )
    return [
        f"[{title}]",
        f"reasoning:\n{reasoning}",
        "answer:\n" + "\n".join(f"  {line.strip()}" for line in row["answer"].split("\n")),
        f"scores: {scores}" + (f" ({'; '.join(remarks)})" if remarks else ""),
    ]


def _wrap(text: str, width: int) -> list[str]:
    lines = []
    for line in printable(text).split("\n"):
        indent = "  " if line.startswith("  ") else ""
        lines += textwrap.wrap(line, width, subsequent_indent=indent) or [""]
    return lines


def _lines(stdin: TextIO) -> Iterator[str]:
    """Yield the lines that are not empty, with a prompt and line editing at a terminal."""
    source: Iterable[str] = stdin
    if stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  From here on `input` edits its line.
        source = iter(_ask, None)
    for line in source:
        if line.strip():
            yield line.strip()


def _ask() -> str | None:
    try:
        return input(PROMPT)
    except EOFError:
        return None


def _progress(stderr: TextIO) -> Callable[[str, int], None] | None:
    """Return what shows how far an answer is; None off a terminal.

    It is called with the policy's name and the tokens so far.
    """
    if not stderr.isatty():
        return None
    return lambda name, tokens: print(f"\r\033[K{name}: {tokens} tokens", end="", file=stderr, flush=True)


def _clear(stderr: TextIO) -> None:
    if stderr.isatty():
        print("\r\033[K", end="", file=stderr, flush=True)
