"""The raw replies of a judge: kept as they come, and what they say."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpro_empathy import files
from gpro_empathy.data import ratings
from gpro_empathy.data.ratings import Rating
from gpro_empathy.files import UserError
from gpro_empathy.tools.judge_questions import Question

CHOICES = ("first", "second", "both", "neither")
# A reply without marks is asked for once more, and the question then left out.
TRIES = 2
_COLUMNS = {"rater", "form", "answers", "max_tokens", "reply"}
# Of a text that never ends, the end is read.
_READ = 10_000


class Replies:
    """The file of a judge's replies, open for one process, which adds to it line by line.

    Args:
        path: Made where it is missing. A last line that a killed process left torn is cut off.
        rater: Replies of others, as under another rubric, stay in the file and are not looked at.
        max_tokens: Tokens of a reply at most; a question without marks is put anew under another.

    Raises:
        UserError: If another process has it open, or a line is no such reply; names file and line.
    """

    def __init__(self, path: Path, rater: str, max_tokens: int) -> None:
        self.path, self.rater, self._max_tokens = path, rater, max_tokens
        # By form and answers in their order: number of tokens at most, and body, of each reply.
        self._replies: dict[tuple[ratings.Form, tuple[str, ...]], list[tuple[int, dict]]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: another process asks this judge; wait until it ends") from None
        except OSError:  # some network file systems lock no files
            pass
        self._file.seek(0)
        *whole, torn = self._file.read().splitlines(keepends=True) or [b""]
        if not torn.endswith(b"\n"):
            self._file.truncate(sum(map(len, whole)))
        for number, row in enumerate(files.read_jsonl(path), start=1):
            if not row.keys() >= _COLUMNS or not isinstance(row["reply"], dict):
                raise UserError(f"{path}: reply {number} is none of a judge's; delete the line")
            self._keep(row)

    def __enter__(self) -> "Replies":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, question: Question, body: dict[str, Any]) -> None:
        """Keep the body of a reply to a question; it is in the file when this returns."""
        row = {
            "rater": self.rater, "form": question.form, "answers": question.hashes, "max_tokens": self._max_tokens,
            "reply": body,
        }  # fmt: skip
        try:
            self._file.write(json.dumps(row, sort_keys=True).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            files.name_place(error, str(self.path))
            raise
        self._keep(row)

    def _keep(self, row: dict) -> None:
        if row["rater"] == self.rater:
            key = (row["form"], tuple(row["answers"]))
            self._replies.setdefault(key, []).append((row["max_tokens"], row["reply"]))

    def marks(self, form: ratings.Form, hashes: tuple[str, ...]) -> dict[str, Any] | None:
        """Return the marks that a question got, or None so far."""
        found = (marks_of(said(body), form) for _, body in self._replies.get((form, hashes), ()))
        return next(filter(None, found), None)

    def without_marks(self, question: Question) -> list[dict]:
        """Return the bodies of the replies to a question that hold no marks, under this limit."""
        given = self._replies.get((question.form, question.hashes), ())
        return [body for limit, body in given if limit == self._max_tokens and not marks_of(said(body), question.form)]

    def is_open(self, question: Question) -> bool:
        """Tell whether a question is still to be asked, for the first time or once more."""
        return self.marks(question.form, question.hashes) is None and len(self.without_marks(question)) < TRIES

    def left_out(self, question: Question) -> str | None:
        """Return why a question is left out, as `why_no_marks` says it; None if it is not."""
        given = self.without_marks(question)
        if len(given) < TRIES or self.marks(question.form, question.hashes):
            return None
        return why_no_marks(given[-1])

    def ratings(self) -> Iterator[Rating]:
        """Yield the ratings by all replies of this rater; of a pair, if both orders have marks."""
        for form, hashes in sorted(self._replies):
            marks = self.marks(form, hashes)
            if marks and form == "single":
                yield Rating(self.rater, "model", form, hashes[0], None, None, marks["sense"], marks["empathy"])
            # Each pair once: where its answers stand in the order of their hashes.
            elif marks and hashes[0] < hashes[1] and (swapped := self.marks(form, hashes[::-1])):
                choice = agreed(marks["choice"], swapped["choice"])
                yield Rating(self.rater, "model", form, *hashes, choice, None, None)


def agreed(choice: str, swapped: str) -> ratings.Choice:
    """Return what a judge chose from a pair, by its choices in both orders.

    An answer wins if it is chosen in both orders; where they differ otherwise, it is a tie:
    "neither", if the judge said so of one order, and else "both", as it then named an answer each
    time.

    Args:
        choice: What it chose where the left answer stood first; one of CHOICES.
        swapped: What it chose where the right answer stood first.

    Source:
        Zheng et al. (2023), Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, section 3.4: a
        win is a win in both orders, and anything inconsistent a tie.
    """
    if consistent(choice, swapped):
        return {"first": "left", "second": "right"}.get(choice, choice)
    return "neither" if "neither" in (choice, swapped) else "both"


def consistent(choice: str, swapped: str) -> bool:
    """Tell whether a judge chose the same from a pair in both orders."""
    return swapped == {"first": "second", "second": "first"}.get(choice, choice)


def said(body: dict[str, Any]) -> str:
    """Return the text of a reply without the thoughts before it; empty if there is none."""
    content = _message(body).get("content")
    if isinstance(content, list):  # some servers reply in parts
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    _, closed, text = str(content or "").rpartition("</think>")
    return "" if not closed and text.lstrip().startswith("<think>") else text


def why_no_marks(body: dict[str, Any]) -> str:
    """Return what a reply without marks is: "refused", "cut" for its length, or "unreadable"."""
    choice = _choice(body)
    if not choice or _message(body).get("refusal") or choice.get("finish_reason") == "content_filter":
        return "refused"
    return "cut" if choice.get("finish_reason") == "length" else "unreadable"


def marks_of(text: str, form: ratings.Form) -> dict[str, Any] | None:
    """Return the marks of a reply: sense and empathy, or choice.

    They stand in a JSON object, which other words may surround. It is None where there is no such
    object with values of the scales, or two that differ.
    """
    found = [marks for value in _objects(text[-_READ:]) if (marks := _marks(value, form))]
    return found[0] if found and all(marks == found[0] for marks in found) else None


def _objects(text: str) -> Iterator[dict]:
    decoder, start = json.JSONDecoder(), -1
    while (start := text.find("{", start + 1)) >= 0:
        with suppress(ValueError, RecursionError):
            yield decoder.raw_decode(text, start)[0]


def _marks(value: dict, form: ratings.Form) -> dict[str, Any] | None:
    scales = {"choice": CHOICES} if form == "pair" else {"sense": ratings.SENSE, "empathy": ratings.EMPATHY}
    # Some models write numbers as texts.
    by_text = {name: {str(mark): mark for mark in scale} for name, scale in scales.items()}
    marks = {name: by_text[name].get(str(value.get(name)).strip().lower()) for name in scales}
    return None if None in marks.values() else marks


def _choice(body: dict[str, Any]) -> dict:
    choices = body.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _message(body: dict[str, Any]) -> dict:
    message = _choice(body).get("message")
    return message if isinstance(message, dict) else {}
