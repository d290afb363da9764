"""What a reply says, and the file that keeps replies."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_server import error, reply
from gpro_empathy.data.ratings import Rating
from gpro_empathy.files import UserError
from gpro_empathy.tools import judge_replies
from gpro_empathy.tools.judge_questions import Question
from gpro_empathy.tools.judge_replies import CHOICES, Replies

ONE = Question("single", ("r0",), "?")
PAIR = Question("pair", ("r1", "r2"), "?")
SWAPPED = Question("pair", ("r2", "r1"), "?")
MARKS = {"sense": 2, "empathy": 4}


def body(content, **more):
    return reply(content, **more).body


@pytest.mark.parametrize(
    "text",
    [
        '{"reason": "It fits.", "sense": 2, "empathy": 4}',
        '```json\n{"sense": "2", "empathy": " 4 "}\n```',
        'Sure! {"marks": {"sense": 2, "empathy": 4}} Anything else?',
        'Like {"this}: {"sense": 2, "empathy": 4}\n\nAgain: {"empathy": 4, "sense": 2}',
        '{"sense": 0, "empathy": 9} is out of the scale, so {"sense": 2, "empathy": 4}',
    ],
)
def test_marks_are_found_among_other_words(text):
    assert judge_replies.marks_of(text, "single") == MARKS


@pytest.mark.parametrize(
    "text",
    [
        "", "2, 4", '{"sense": 2}', '{"sense": 3, "empathy": 4}', '{"sense": 2, "empathy": 0}', '{"sense": true, "empathy": 4}',
        '{"sense": 1.5, "empathy": 4}', '{"sense": 2, "empathy": 4', '{"choice": "first"}', '{"sense": null, "empathy": [4]}',
        '{"sense": 2, "empathy": 4} or rather {"sense": 1, "empathy": 4}', '{"a": ' * 100_000,
    ],
)  # fmt: skip
def test_reply_without_marks_of_the_scales_has_none(text):
    assert judge_replies.marks_of(text, "single") is None


@pytest.mark.parametrize("choice", CHOICES)
def test_choice_is_one_of_four_words(choice):
    assert judge_replies.marks_of(f'{{"reason": "...", "choice": "{choice.title()}"}}', "pair") == {"choice": choice}
    assert judge_replies.marks_of(f'{{"choice": "the {choice}"}}', "pair") is None


@given(st.text(), st.sampled_from([0, 1, 2]), st.sampled_from([1, 2, 3, 4, 5]), st.text())
def test_marks_are_read_whatever_stands_around_them(before, sense, empathy, after):
    around = [text.replace("{", "(") for text in (before, after)]
    text = json.dumps({"reason": before, "sense": sense, "empathy": empathy}).join(around)
    assert judge_replies.marks_of(text, "single") == {"sense": sense, "empathy": empathy}


@given(st.text(alphabet='{}[]",:sense12empathychoicefirst \\'), st.sampled_from(["single", "pair"]))
def test_no_reply_breaks_the_reading(text, form):
    marks = judge_replies.marks_of(text, form)
    assert marks is None or set(marks) == ({"sense", "empathy"} if form == "single" else {"choice"})


def test_thoughts_are_no_reply():
    thought = '<think>Perhaps {"sense": 0, "empathy": 1}?'
    assert judge_replies.said(body(thought)) == ""
    assert judge_replies.said(body(f"{thought}</think>Done.")) == "Done."
    assert judge_replies.said(body('Perhaps {"sense": 0}?</think>Done.')) == "Done."  # opened by the prompt


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, ""), ([{"type": "text", "text": "a"}, {"type": "image"}, {"text": "b"}], "ab"), (7, "7")],
)
def test_content_is_a_text_or_its_parts(content, text):
    assert judge_replies.said(body(content)) == text


def test_reason_of_no_marks_is_told():
    assert judge_replies.why_no_marks(body(None, refusal="I cannot.")) == "refused"
    assert judge_replies.why_no_marks(body("", finish_reason="content_filter")) == "refused"
    assert judge_replies.why_no_marks(error(400, "filtered", "content_filter").body) == "refused"
    assert judge_replies.why_no_marks(body("Well, ", finish_reason="length")) == "cut"
    assert judge_replies.why_no_marks(body("Fine.")) == "unreadable"


@pytest.mark.parametrize(
    ("choice", "swapped", "agreed"),
    [
        ("first", "second", "left"), ("second", "first", "right"), ("both", "both", "both"), ("neither", "neither", "neither"),
        ("first", "first", "both"), ("second", "second", "both"), ("first", "both", "both"), ("both", "second", "both"),
        ("first", "neither", "neither"), ("neither", "first", "neither"), ("both", "neither", "neither"),
    ],
)  # fmt: skip
def test_answer_wins_in_both_orders_or_it_is_a_tie(choice, swapped, agreed):
    assert judge_replies.agreed(choice, swapped) == agreed


def test_agreement_does_not_depend_on_which_answer_is_left():
    mirror = {"left": "right", "right": "left"}
    for choice, swapped in itertools.product(CHOICES, repeat=2):
        there, back = judge_replies.agreed(choice, swapped), judge_replies.agreed(swapped, choice)
        assert back == mirror.get(there, there)


# The file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "judge/replies.jsonl"


def test_replies_are_there_again(path):
    with Replies(path, "J", 50) as replies:
        assert all(map(replies.is_open, (ONE, PAIR, SWAPPED)))
        replies.add(ONE, body('{"sense": 2, "empathy": 4}'))
        replies.add(PAIR, body('{"choice": "first"}'))
        assert list(replies.ratings()) == [Rating("J", "model", "single", "r0", None, None, 2, 4)]
        assert (replies.is_open(ONE), replies.is_open(PAIR), replies.is_open(SWAPPED)) == (False, False, True)
    with Replies(path, "J", 50) as again:
        again.add(SWAPPED, body('{"choice": "second"}'))
        pair = Rating("J", "model", "pair", "r1", "r2", "left", None, None)
        assert list(again.ratings()) == [pair, Rating("J", "model", "single", "r0", None, None, 2, 4)]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["answers"] for line in lines] == [["r0"], ["r1", "r2"], ["r2", "r1"]]
    assert lines[0]["reply"] == body('{"sense": 2, "empathy": 4}')


def test_reply_without_marks_is_asked_for_once_more(path):
    with Replies(path, "J", 50) as replies:
        replies.add(ONE, body("Hm."))
        assert replies.is_open(ONE)
        assert replies.left_out(ONE) is None
        replies.add(ONE, body("Well, ", finish_reason="length"))
        assert not replies.is_open(ONE)
        assert replies.left_out(ONE) == "cut"
        assert list(replies.ratings()) == []
    with Replies(path, "J", 500) as longer:
        assert longer.is_open(ONE)


def test_replies_of_another_rater_are_kept_and_not_counted(path):
    with Replies(path, "J (rubric a)", 50) as replies:
        replies.add(ONE, body('{"sense": 2, "empathy": 4}'))
    with Replies(path, "J (rubric b)", 50) as other:
        assert other.is_open(ONE)
        other.add(ONE, body('{"sense": 0, "empathy": 1}'))
        assert [rating.sense for rating in other.ratings()] == [0]
    with Replies(path, "J (rubric a)", 50) as replies:
        assert [rating.sense for rating in replies.ratings()] == [2]


@pytest.mark.parametrize("torn", [b'{"rater": "J", "repl', b"\xc3", b'{"rater": "J"}'])
def test_torn_last_line_is_cut_off(path, torn):
    with Replies(path, "J", 50) as replies:
        replies.add(ONE, body('{"sense": 2, "empathy": 4}'))
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with Replies(path, "J", 50) as replies:
        assert path.read_bytes() == whole
        replies.add(PAIR, body('{"choice": "both"}'))
    assert path.read_bytes().startswith(whole)
    assert path.read_bytes().count(b"\n") == 2
    path.write_bytes(torn)
    with Replies(path, "J", 50):
        assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "line", ["{}", '{"rater": "J", "form": "single", "answers": ["r0"], "max_tokens": 1, "reply": 7}']
)
def test_line_that_is_no_reply_is_refused(path, line):
    path.parent.mkdir()
    path.write_text(f"{line}\n")
    with pytest.raises(UserError, match=r"replies\.jsonl: .*\b1\b.*delete"):
        Replies(path, "J", 50)


def test_second_process_is_refused(path):
    with Replies(path, "J", 50), pytest.raises(UserError, match="another process"):
        Replies(path, "J", 50)
    with Replies(path, "J", 50):
        pass
