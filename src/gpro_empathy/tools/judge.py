"""Let a language model rate what people rate, through any OpenAI-compatible endpoint.

Reads   data/rollouts/rollouts.jsonl       the answers of the run; where there are none, as in a
                                           fresh clone,
        reports/index.html                 the results page, with those of the committed run
        data/ratings/rubric.md             what the judge is told
        data/ratings/*.csv                 what is rated already
Writes  tmp/judge/<model>/replies.jsonl    every reply as it came; a rerun goes on from there
        data/ratings/<model>.csv           the ratings, of kind model
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from gpro_empathy.data import ratings
from gpro_empathy.data.ratings import Rating
from gpro_empathy.files import UserError
from gpro_empathy.tools import judge_progress, judge_questions, judge_replies, rating_page
from gpro_empathy.tools.chat_endpoint import Endpoint, UnansweredError
from gpro_empathy.tools.judge_questions import Key, Question, Rubric
from gpro_empathy.tools.judge_replies import Replies
from gpro_empathy.tools.request_budget import LimitReachedError

REPLIES = Path("tmp/judge")


def run(
    endpoint: Endpoint,
    forms: Sequence[ratings.Form] = get_args(ratings.Form),
    number: int | None = None,
    note: Callable[[str], None] = judge_progress.note,
) -> None:
    """Ask a judge what it has not replied to yet, and write its ratings, however the asking ends.

    The rater is the model with the version of the rubric, so that another rubric is another rater.

    Args:
        number: Answers and pairs to rate at most, of each form; None for all.
        note: Called with each line that there is to tell.

    Raises:
        UserError: If the run has nothing to rate, a file is not what it should be, or the endpoint
            fails.
    """
    name = file_name(endpoint.model)
    if number is not None and number < 1:
        raise UserError(f"--number: {number} is no number from 1")
    rubric = judge_questions.read_rubric()
    known = ratings.read_folder()
    everything = [rating for of_file in known.values() for rating in of_file]
    # It is with people that a judge is compared.
    first = {_key(rating) for rating in everything if rating.kind == "person"}
    items = rating_page.run_items()
    questions = [one for form in forms for one in judge_questions.questions(items, form, number, first)]
    rater = f"{endpoint.model} (rubric {rubric.version})"
    # Rated, also where the replies are not at hand, as after a clone.
    rated = {_key(rating) for rating in everything if rating.rater == rater}
    with Replies(REPLIES / name / "replies.jsonl", rater, endpoint.max_tokens) as replies:
        # One order of a pair is of no use without the other.
        settled = rated | {one.key for one in questions if replies.left_out(one)}
        left = [one for one in questions if one.key not in settled and replies.is_open(one)]
        note(judge_progress.plan(questions, left, endpoint, rubric))
        try:
            _ask(left, endpoint, rubric, replies, note)
        except LimitReachedError as limit:
            note(f"stopped at {limit}; run the command again to go on")
        finally:
            table, found = ratings.FOLDER / f"{name}.csv", list(replies.ratings())
            _write(table, found, known)
            rated.update(map(_key, found))
            for line in judge_progress.summary(questions, rated, endpoint.budget, replies):
                note(line)
            note(f"ratings: {table if found else 'none yet'}; replies: {replies.path}")


def file_name(model: str) -> str:
    """Return what a model's files are called.

    Raises:
        UserError: If the name has neither letter nor digit, or a character that no name has.
    """
    name = re.sub(r"[^\w.-]+", "-", model).strip("-.")
    if not name or not model.isprintable() or model != model.strip():
        raise UserError(f"--model: {model!r} is no name of a model; the endpoint lists them under /models")
    return name


def _key(rating: Rating) -> Key:
    return rating.form, frozenset(filter(None, (rating.left, rating.right)))


def _ask(
    questions: Sequence[Question], endpoint: Endpoint, rubric: Rubric, replies: Replies, note: Callable[[str], None]
) -> None:
    """Ask each question until a reply has marks or it is given up, and keep every reply.

    A question that the server fails on is put off to another call. A server that fails on two that
    follow each other would fail on all.

    Raises:
        LimitReachedError: As `Endpoint.ask`.
        UserError: As `Endpoint.ask`; or if the server failed.
    """
    progress = judge_progress.Progress(len(questions), endpoint.budget)
    failure, put_off, fails = "", 0, False
    without: set[Key] = set()
    for number, question in enumerate(questions):
        progress.show(number)
        if question.key in without:
            continue
        try:
            while replies.is_open(question):
                before = [judge_replies.said(body) for body in replies.without_marks(question)]
                replies.add(question, endpoint.ask(rubric.conversation(question, before)))
            fails = False
        except UnansweredError as error:
            if fails:
                raise UserError(f"{endpoint.url}: {error}; run the command again to go on") from None
            failure, put_off, fails = str(error), put_off + 1, True
            note(f"{failure}; the question is put off")
        if replies.marks(question.form, question.hashes) is None:
            without.add(question.key)
    if put_off:
        raise UserError(f"{endpoint.url}: {put_off} questions are put off ({failure}); run the command again to go on")


def _write(table: Path, found: Sequence[Rating], known: Mapping[str, Sequence[Rating]]) -> None:
    """Write a judge's table: what it had and what was found, but for what another table has."""
    elsewhere = {(one.rater, _key(one)) for name, of_file in known.items() if name != table.name for one in of_file}
    rows = {(one.rater, _key(one)): one for one in (*known.get(table.name, ()), *found)}
    kept = [row for key, row in rows.items() if key not in elsewhere]
    if kept:
        ratings.write(table, sorted(kept, key=lambda one: (one.rater, one.form, one.left, one.right or "")))
