import hashlib
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpro_empathy.data import dialogue, wassa
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError

CORPUS = Path(__file__).parents[2] / "data/embedded/turns.csv"

texts = st.text(max_size=60)


def made(conversations, turns=3, per_story=1):
    """Make turns of conversations, so many of them on one story."""
    return [
        Turn(f"c{c}", t, f"text {c} {t}", (), 1.0, 1.0, 1.0, f"s{c // per_story}")
        for c in range(conversations)
        for t in range(turns)
    ]


# Text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://a.example/x?y=1 now", "see [URL] now"),
        ("WWW.Example.com", "[URL]"),
        ("write to jo.b+x@mail.example.org please", "write to [EMAIL] please"),
        ("thanks @jo_b!", "thanks [USER]!"),
        ("#sad day, no #1", "sad day, no 1"),
        ("a#b stays", "a#b stays"),
        ("\ufb01ne \u2460", "fine 1"),  # compatibility forms
        ("a\u0000b\u001bc\u0007\u009f", "abc"),
        ("half \ud800a", "half a"),
        ("new \U0001fae8 \U0001fae9 \U0003fffd", "new \U0001fae8 \U0001fae9 \U0003fffd"),  # no name in older tables
        ("private \ue000 \U000f0000", "private \ue000 \U000f0000"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),  # Persian
        ("\u200fa\u200b\u00ad\u2060b", "\u200fa\u200b\u00ad\u2060b"),
        ("\U0001f3f4\U000e0067\U000e007f", "\U0001f3f4\U000e0067\U000e007f"),  # a flag's letters
        (" a \t\n b\u00a0c ", "a b c"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
        ("", ""),
    ],
)
def test_normalised_text_is(text, expected):
    assert dialogue.normalise(text) == expected


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)])
def test_control_characters_are_dropped_or_folded(code):
    assert dialogue.normalise(f"a{chr(code)}b") == ("a b" if chr(code).isspace() else "ab")


def test_normalised_corpus_is_what_it_was_when_the_committed_results_were_made():
    turns = wassa.read_labelled(CORPUS)
    digest = hashlib.sha256("\n".join(turn.text for turn in turns).encode()).hexdigest()
    assert digest == "0ac7f7e2ec7a286c49f14eac5e04b2325228b9f4ce831b45ff37c80718af490e"


@pytest.mark.parametrize(
    ("text", "blank"),
    [
        ("", True),
        (" \t\u00a0", True),
        ("\u200b\u2060\ufeff\u200d\0", True),
        ("\U0001fae9", False),
        ("\U0003fffd", False),
        ("\ue000", False),
        (".", False),
    ],
)
def test_text_without_a_visible_character_is_blank(text, blank):
    assert dialogue.is_blank(text) == blank


@given(texts)
def test_normalised_text_has_folded_space_and_no_control_characters(text):
    normal = dialogue.normalise(text)
    assert normal == " ".join(normal.split())
    assert not [c for c in normal if unicodedata.category(c) == "Cc"]


@given(st.text(alphabet=st.characters(categories=("L", "Nd", "Zs"))))
def test_normalising_plain_words_is_nfkc_and_folded_space(text):
    assert dialogue.normalise(text) == " ".join(unicodedata.normalize("NFKC", text).split())


@given(st.text(alphabet="abc @#.:/w\u00a0\u200bé-", max_size=40))
def test_normalising_twice_changes_no_more_than_a_sign_that_a_hashtag_hid(text):
    once = dialogue.normalise(text)
    if "#" not in text and "@" not in text:
        assert dialogue.normalise(once) == once


# Order and files


def test_context_is_the_earlier_turns_of_the_conversation_whatever_the_order():
    places = [("b", 2, "three"), ("a", 0, "other"), ("b", 0, "one"), ("b", 10, "four"), ("b", 1, "two")]
    turns = dialogue.link([Turn(c, t, text, (), None, None, None) for c, t, text in places], "table")
    assert [(t.key, t.context) for t in turns] == [
        ("b.0", ()),
        ("b.1", ("one",)),
        ("b.2", ("one", "two")),
        ("b.10", ("one", "two", "three")),
        ("a.0", ()),
    ]


def test_refuses_a_turn_that_stands_twice():
    turn = Turn("5", 0, "a", (), None, None, None)
    with pytest.raises(UserError, match=r"table: .*\b5\.0\b"):
        dialogue.link([turn, turn], "table")


def test_turns_come_back_as_they_were_written(tmp_path):
    turns = [
        Turn("1", 0, "did you?", (), 0.6667, 1.0, None),
        Turn("1", 1, "\u2028 yes", ("did you?",), 3.0, 2.0, 4.3333, "35"),
    ]
    dialogue.write_turns(tmp_path / "turns.jsonl", turns)
    assert dialogue.read_turns(tmp_path / "turns.jsonl") == turns


@pytest.mark.parametrize("line", ['{"text": "a"}', '{"context": [], "words": 3}', '{"context": null}'])
def test_refuses_lines_that_are_no_turns(tmp_path, line):
    path = tmp_path / "turns.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=r"turns\.jsonl: "):
        dialogue.read_turns(path)


# Splitting


@given(
    stories=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=3, max_size=15),
    by=st.sampled_from(["by_story", "by_conversation"]),
    shares=st.sampled_from([(0.1, 0.2), (0.3, 0.3), (0.1, 0.0), (0.01, 0.01)]),
    seed=st.integers(0, 100),
)
def test_splits_share_no_story_or_no_conversation_and_lose_no_turn(stories, by, shares, seed):
    turns = [
        Turn(f"s{s}c{c}", t, "x", (), None, None, None, f"s{s}")
        for s, lengths in enumerate(stories)
        for c, n in enumerate(lengths)
        for t in range(n)
    ]
    parts = dialogue.split(turns, validation=shares[0], test=shares[1], by=by, rng=np.random.default_rng(seed))
    assert sorted(t.key for part in parts.values() for t in part) == sorted(t.key for t in turns)
    units = [{t.story if by == "by_story" else t.conversation for t in part} for part in parts.values()]
    assert sum(map(len, units)) == (len(stories) if by == "by_story" else sum(map(len, stories)))
    assert [bool(part) for part in parts.values()] == [True, True, shares[1] > 0]


@pytest.mark.parametrize(("by", "per_story"), [("by_conversation", 5), ("by_story", 1)])
def test_split_takes_the_stated_shares_of_conversations(by, per_story):
    turns = made(50, per_story=per_story)
    parts = dialogue.split(turns, validation=0.1, test=0.2, by=by, rng=np.random.default_rng(0))
    assert {name: len(part) for name, part in parts.items()} == {"train": 105, "validation": 15, "test": 30}


def test_split_by_story_keeps_all_conversations_of_a_story_together_and_by_conversation_does_not():
    def shared(by):
        turns = made(60, per_story=3)
        parts = dialogue.split(turns, validation=0.1, test=0.2, by=by, rng=np.random.default_rng(0))
        return dialogue.count_stories(parts)

    assert shared("by_story") == {"stories": 20, "shared_stories": 0}
    assert shared("by_conversation")["shared_stories"] > 0


def test_turns_of_no_stated_story_stand_with_their_conversation():
    turns = [replace(turn, story="") for turn in made(20)]
    assert {turn.story for turn in turns} == {f"conversation {turn.conversation}" for turn in turns}
    split = [
        dialogue.split(turns, validation=0.2, test=0.2, by=by, rng=np.random.default_rng(0))
        for by in ("by_story", "by_conversation")
    ]
    assert split[0] == split[1]
    assert dialogue.count_stories(split[0]) == {"stories": None, "shared_stories": None}


def test_split_depends_on_the_seed_and_not_on_the_order_of_turns():
    turns = made(30)
    one, again = (
        dialogue.split(order, validation=0.2, test=0.2, by="by_story", rng=np.random.default_rng(1))
        for order in (turns, turns[::-1])
    )
    other = dialogue.split(turns, validation=0.2, test=0.2, by="by_story", rng=np.random.default_rng(2))
    assert {t.key for t in one["test"]} == {t.key for t in again["test"]}
    assert {t.key for t in one["test"]} != {t.key for t in other["test"]}


def test_split_by_turn_takes_conversations_apart():
    parts = dialogue.split(made(20), validation=0.2, test=0.3, by="by_turn", rng=np.random.default_rng(0))
    assert [len(part) for part in parts.values()] == [30, 12, 18]
    assert {t.conversation for t in parts["train"]} & {t.conversation for t in parts["test"]}


@pytest.mark.parametrize(
    ("conversations", "by", "test", "message"),
    [
        (2, "by_conversation", 0.2, r"by_conversation: .*conversations\b.*\b2\b.*\btrain, validation and test"),
        (6, "by_story", 0.2, r"by_story: .*stories\b.*\b2\b.*\btrain, validation and test"),
        (3, "by_story", 0.0, r"by_story: .*stories\b.*\b1\b.*\btrain and validation"),
    ],
)
def test_refuses_to_split_too_few(conversations, by, test, message):
    with pytest.raises(UserError, match=rf"prepare\.split {message}"):
        dialogue.split(made(conversations, per_story=3), validation=0.1, test=test, by=by, rng=np.random.default_rng(0))


# Describing


def test_description_gives_sizes_and_label_statistics():
    turns = [
        Turn("a", 0, "one two three", (), 1.0, 2.0, None, "s"),
        Turn("a", 1, "four", (), 3.0, 2.0, None, "s"),
        Turn("b", 0, "five six", (), None, 2.0, 4.0, "s"),
    ]
    found = dialogue.describe(turns)
    assert (found["stories"], found["conversations"], found["turns"], found["mean_words"]) == (1, 2, 3, 2.0)
    assert found["labels"]["emotion"] == {"n": 2, "missing": 1, "mean": 2.0, "sd": pytest.approx(2**0.5)}
    assert found["labels"]["polarity"] == {"n": 3, "missing": 0, "mean": 2.0, "sd": 0.0}
    assert found["labels"]["empathy"] == {"n": 1, "missing": 2, "mean": 4.0, "sd": None}


def test_description_of_nothing_has_no_numbers_that_are_not_finite():
    found = dialogue.describe([])
    assert (found["turns"], found["mean_words"]) == (0, None)
    assert found["labels"]["empathy"] == {"n": 0, "missing": 0, "mean": None, "sd": None}
