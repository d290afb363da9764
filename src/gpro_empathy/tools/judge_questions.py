"""What a judge is asked: each answer, and each pair of answers in both orders, by the rubric."""

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpro_empathy import files
from gpro_empathy.analysis import rated_items
from gpro_empathy.data import ratings
from gpro_empathy.files import UserError

RUBRIC = ratings.FOLDER / "rubric.md"
# The sections of the rubric, by form.
SECTIONS: dict[ratings.Form, str] = {"single": "One answer", "pair": "Two answers"}
AGAIN = "That is not what was asked for. Reply with the JSON object alone, with one of its values for each key."
# So many characters of a reply without marks are shown to the judge again.
_SHOWN_AGAIN = 2000

# What is rated: an answer, or two whichever of them stands first; answers are named by their hash.
Key = tuple[ratings.Form, frozenset[str]]


@dataclass(frozen=True)
class Question:
    """What the judge is asked at once: about one answer, or two in the order of `hashes`."""

    form: ratings.Form
    hashes: tuple[str, ...]
    text: str

    @property
    def key(self) -> Key:
        return self.form, frozenset(self.hashes)


@dataclass(frozen=True)
class Rubric:
    """What a judge is told before a question of each form, and the name of this version of it."""

    instructions: dict[ratings.Form, str]
    version: str

    def conversation(self, question: Question, before: Sequence[str]) -> list[dict[str, str]]:
        """Return the messages that ask a question.

        There is no system message, as some models have no place for one.

        Args:
            before: Replies to this question without marks, which it asks to mend.
        """
        messages = [{"role": "user", "content": f"{self.instructions[question.form]}\n\n{question.text}"}]
        for reply in before:
            messages.append({"role": "assistant", "content": reply[:_SHOWN_AGAIN].strip() or "(nothing)"})
            messages.append({"role": "user", "content": AGAIN})
        return messages


def read_rubric(path: Path = RUBRIC) -> Rubric:
    """Read the rubric; what stands before its first section is told with every form.

    Raises:
        UserError: If there is no such file, or a form has no section in it; names the heading.
    """
    text = files.read_text(path, "run the judge in the root of the repository")
    general, *parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    sections = {heading.strip(): part.strip() for heading, part in zip(parts[::2], parts[1::2], strict=True)}
    for heading in SECTIONS.values():
        if not sections.get(heading):
            raise UserError(f"{path}: section '## {heading}' is missing or empty; it says what the judge replies with")
    instructions = {form: f"{general.strip()}\n\n{sections[heading]}" for form, heading in SECTIONS.items()}
    return Rubric(instructions, hashlib.sha256(text.encode()).hexdigest()[:8])


def questions(
    items: Sequence[rated_items.Item], form: ratings.Form, number: int | None = None, first: Collection[Key] = ()
) -> list[Question]:
    """Return what to ask about a run's answers; about a pair two questions, one for each order.

    What was drawn is the same for every judge, so that judges of a part rate the same part, and the
    two answers to one message stand together.

    Args:
        number: Of answers or pairs, at most; None for all.
        first: What comes before all else, such as what people rated.
    """
    if form == "single":
        groups = [[item] for item in rated_items.distinct(items)]
    else:
        groups = [[pair.start, pair.tuned] for pair in rated_items.pairs(items)]
    by_key: dict[Key, list[rated_items.Item]] = {}
    for group in groups:
        by_key.setdefault((form, frozenset(item.hash for item in group)), group)
    drawn = sorted(by_key, key=lambda key: (key not in first, _drawn(by_key[key][0].message), sorted(key[1])))
    return [question for key in drawn[:number] for question in _in_each_order(form, by_key[key])]


def _drawn(message: str) -> str:
    return hashlib.sha256(message.encode()).hexdigest()


def _in_each_order(form: ratings.Form, group: list[rated_items.Item]) -> list[Question]:
    if form == "single":
        return [_question(form, group, ["answer"])]
    ordered = sorted(group, key=lambda item: item.hash)
    return [_question(form, order, ["first", "second"]) for order in (ordered, ordered[::-1])]


def _question(form: ratings.Form, group: Sequence[rated_items.Item], names: Sequence[str]) -> Question:
    """Return a question with its texts as JSON, of which no text can leave its place."""
    texts = [group[0].message, *(item.answer for item in group)]
    # As they are hashed: equal hashes get equal questions.
    stripped = [text.replace("\r\n", "\n").strip() for text in texts]
    shown = dict(zip(["message", *names], stripped, strict=True))
    return Question(form, tuple(item.hash for item in group), json.dumps(shown, ensure_ascii=False, indent=1))
