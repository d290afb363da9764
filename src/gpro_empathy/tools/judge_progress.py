"""What a judge's user is told: what is to be asked, how far it is, and what came of it."""

import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from gpro_empathy.tools import judge_replies
from gpro_empathy.tools.chat_endpoint import Endpoint
from gpro_empathy.tools.judge_questions import Key, Question, Rubric
from gpro_empathy.tools.judge_replies import Replies
from gpro_empathy.tools.request_budget import Budget

# Off a terminal the progress is a line so often.
SECONDS_BETWEEN_LINES = 30
_CLEAR = "\r\033[K"
NAMES = {"single": "answers", "pair": "pairs"}
WHY = {"refused": "refused", "cut": "cut at --max-tokens", "unreadable": "without marks"}


def note(line: str) -> None:
    """Print a line, in the place of the progress where that is shown."""
    print(f"{_CLEAR if sys.stderr.isatty() else ''}{line}", file=sys.stderr, flush=True)


def plan(questions: Sequence[Question], left: Sequence[Question], endpoint: Endpoint, rubric: Rubric) -> str:
    """Return what is to be asked, and what that costs at most where prices are given.

    Args:
        left: The questions that have no reply yet.
    """
    most = sum(endpoint.most(rubric.conversation(one, [])) for one in left)
    cost = f", for {most:.2f} at most if each is asked once" if endpoint.budget.prices else ""
    forms = " and ".join(f"{number} {name}" for name, number in _by_form({one.key for one in questions}).items())
    return (
        f"{endpoint.model} at {endpoint.url} rates {forms}, pairs in both orders: "
        f"{len(left)} of {len(questions)} questions are to be asked{cost}"
    )


class Progress:
    """Shows how many questions are through, and how long the others will take."""

    def __init__(self, questions: int, budget: Budget) -> None:
        self._questions, self._budget = questions, budget
        self._started = self._shown = time.monotonic()

    def show(self, through: int) -> None:
        """Show the progress: in place on a terminal, and else as a line now and then."""
        now, in_place = time.monotonic(), sys.stderr.isatty()
        if not through or not (in_place or now - self._shown > SECONDS_BETWEEN_LINES):
            return
        self._shown = now
        minutes = (now - self._started) / through * (self._questions - through) / 60
        line = f"{through} of {self._questions} questions, {minutes:.0f} min left{self._budget.told()}"
        print(f"{_CLEAR}{line}" if in_place else line, end="" if in_place else "\n", file=sys.stderr, flush=True)


def summary(questions: Sequence[Question], rated: Collection[Key], budget: Budget, replies: Replies) -> list[str]:
    """Return lines on what was rated and left out, how far the order decides, and what it took.

    Args:
        rated: What this judge has rated.
    """
    keys = {one.key for one in questions}
    found = _by_form(keys & set(rated))
    counts = (f"{found[name]} of {number} {name}" for name, number in _by_form(keys).items())
    lines = [f"rated: {' and '.join(counts)}"]
    if why := Counter(filter(None, map(replies.left_out, questions))):
        lines[0] += f"; left out: {', '.join(f'{count} {WHY[name]}' for name, count in sorted(why.items()))}"
    choices = [replies.marks(one.form, one.hashes) for one in questions if one.form == "pair"]
    both = [pair for pair in zip(choices[::2], choices[1::2], strict=True) if None not in pair]
    if both:
        differ = sum(not judge_replies.consistent(*(marks["choice"] for marks in pair)) for pair in both)
        decided = [marks["choice"] for pair in both for marks in pair if marks["choice"] in ("first", "second")]
        lines.append(
            f"pairs: the two orders differ, which makes a tie, in {differ} of {len(both)}"
            + (
                f"; {decided.count('first') / len(decided):.0%} of the decided replies name the first"
                if decided
                else ""
            )
        )
    lines.append(
        f"asked: {budget.requests} requests, {budget.sent} tokens sent, {budget.received} received{budget.told()}"
    )
    return lines


def _by_form(keys: Iterable[Key]) -> Counter[str]:
    return Counter(sorted(NAMES[form] for form, _ in keys))
