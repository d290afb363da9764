import csv
import io
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpro_empathy.data import dialogue
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError

# The columns of the official train file, and of the dev file, which names speakers otherwise.
TRAIN = "id,article_id,conversation_id,turn_id,speaker,text,person_id_1,person_id_2,Emotion,EmotionalPolarity,Empathy,SelfDisclosure"
DEV = "id,article_id,conversation_id,turn_id,speaker_id,text,person_id,person_id_1,person_id_2,Emotion,EmotionalPolarity,Empathy,SelfDisclosure"
TRAIN_ROWS = r"""0,35,1,0,"Person 1","did you read it?","p019","p012",0.6667,1,0.6667,1
1,35,1,1,"Person 2","Yes, \"all\" of it. It hurt.","p019","p012",3,2,4.3333,2
2,35,2,0,"Person 1","hi","p001","p002",NULL,NULL,NULL,NULL
"""
DEV_ROWS = '1,8,68,1,"38","Hello how are you?",38,38,75,1,1,1,NULL\n2,8,68,2,"75","Fine.",75,38,75,2,1,2,NULL\n'
TEST = "id,article_id,conversation_id,turn_id,speaker_id,text"

texts = st.text(max_size=60)


def read(tmp_path, text):
    path = tmp_path / "turns.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return dialogue.read_wassa_csv(path)


def made(conversations, turns=3):
    return [Turn(f"c{c}", t, f"text {c} {t}", (), 1.0, 1.0, 1.0) for c in range(conversations) for t in range(turns)]


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
        ("a\u0000b\u200bc\u0007", "abc"),
        (" a \t\n b\u00a0c ", "a b c"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
        ("", ""),
    ],
)
def test_normalised_text_is(text, expected):
    assert dialogue.normalise(text) == expected


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


# Reading


def test_train_layout_is_read_with_escapes_and_missing_labels(tmp_path):
    assert read(tmp_path, f"{TRAIN}\n{TRAIN_ROWS}") == [
        Turn("1", 0, "did you read it?", (), 0.6667, 1.0, 0.6667),
        Turn("1", 1, 'Yes, "all" of it. It hurt.', ("did you read it?",), 3.0, 2.0, 4.3333),
        Turn("2", 0, "hi", (), None, None, None),
    ]


def test_dev_layout_is_read(tmp_path):
    assert read(tmp_path, f"{DEV}\n{DEV_ROWS}") == [
        Turn("68", 1, "Hello how are you?", (), 1.0, 1.0, 1.0),
        Turn("68", 2, "Fine.", ("Hello how are you?",), 2.0, 1.0, 2.0),
    ]


def test_file_without_label_columns_has_no_labels(tmp_path):
    (turn,) = read(tmp_path, f"{TEST}\n0,1,5,0,7,so sad\n")
    assert (turn.emotion, turn.polarity, turn.empathy) == (None, None, None)


def test_spreadsheet_line_ends_and_byte_order_mark_make_no_difference(tmp_path):
    text = f"{TRAIN}\n{TRAIN_ROWS}"
    assert read(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()) == read(tmp_path, text)


def test_context_is_the_earlier_turns_of_the_conversation_whatever_the_order_of_rows(tmp_path):
    rows = ["0,1,b,2,x,three", "1,1,a,0,x,other", "2,1,b,0,x,one", "3,1,b,10,x,four", "4,1,b,1,x,two"]
    turns = read(tmp_path, "\n".join([TEST, *rows]) + "\n")
    assert [(t.key, t.context) for t in turns] == [
        ("b.0", ()),
        ("b.1", ("one",)),
        ("b.2", ("one", "two")),
        ("b.10", ("one", "two", "three")),
        ("a.0", ()),
    ]


@given(st.lists(texts.filter(dialogue.normalise), min_size=1, max_size=5))
def test_any_text_survives_the_official_escaping(tmp_path_factory, written):
    text = io.StringIO()
    writer = csv.writer(text, escapechar="\\", doublequote=False, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(TEST.split(","))
    for number, value in enumerate(written):
        writer.writerow([number, 1, 5, number, 7, value])
    turns = read(tmp_path_factory.mktemp("csv"), text.getvalue().encode("utf-8", "replace"))
    clean = [value.encode("utf-8", "replace").decode() for value in written]
    assert [turn.text for turn in turns] == [dialogue.normalise(value) for value in clean]


@given(
    rows=st.lists(
        st.tuples(texts.filter(dialogue.normalise), *[st.none() | st.sampled_from([0.0, 0.6667, 1.0, 2.0])] * 3),
        min_size=1,
        max_size=5,
    ),
    layout=st.sampled_from([TRAIN, DEV, TEST]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_turns_written_in_an_official_layout_come_back_with_labels_and_context(tmp_path_factory, rows, layout, end):
    text = io.StringIO(newline="")
    columns = layout.split(",")
    writer = csv.DictWriter(
        text,
        columns,
        "x",
        extrasaction="ignore",
        escapechar="\\",
        doublequote=False,
        quoting=csv.QUOTE_ALL,
        lineterminator=end,
    )
    writer.writeheader()
    for number, (value, *labels) in enumerate(rows):
        known = {
            column: "NULL" if label is None else label
            for column, label in zip(dialogue.COLUMNS.values(), labels, strict=True)
        }
        writer.writerow({"id": number, "conversation_id": "c", "turn_id": number, "text": value} | known)
    turns = read(tmp_path_factory.mktemp("csv"), text.getvalue().encode())
    written = [dialogue.normalise(value) for value, *_ in rows]
    assert [turn.text for turn in turns] == written
    assert [turn.context for turn in turns] == [tuple(written[:i]) for i in range(len(rows))]
    labels = [(None,) * 3 if layout == TEST else tuple(labels) for _, *labels in rows]
    assert [(turn.emotion, turn.polarity, turn.empathy) for turn in turns] == labels


@given(st.binary(max_size=80) | st.text(alphabet='",\\\n\r\0text1\u00e9', max_size=60).map(str.encode))
def test_any_bytes_are_turns_or_refused_in_one_line(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("csv")
    for head in (
        b"",
        b"conversation_id,turn_id,text\n",
        b'conversation_id,turn_id,text,Emotion,EmotionalPolarity,Empathy\n1,1,"a"',
    ):
        message = None
        try:
            turns = read(folder, head + content)
        except UserError as error:
            message = str(error)
        assert turns if message is None else message.startswith(str(folder)) and "\n" not in message


@pytest.mark.parametrize("words", [10_000, 100_000])
def test_turn_of_any_length_is_read_whole(tmp_path, words):
    (turn,) = read(tmp_path, f'{TEST}\n0,1,5,0,7,"{"word " * words}"\n')
    assert len(turn.text.split()) == words


def test_columns_that_are_not_known_change_nothing(tmp_path):
    (turn,) = read(tmp_path, f"mood,{TEST},\nx,0,1,5,0,7,so sad,y\n")
    assert (turn.key, turn.text) == ("5.0", "so sad")


def test_one_odd_polarity_of_the_official_file_is_accepted(tmp_path):
    (turn,) = read(tmp_path, f"{TRAIN}\n" + '0,1,1,0,x,"a b",p,q,1,2.67,1,NULL\n')
    assert turn.polarity == 2.67


@pytest.mark.parametrize("value", ["NULL", "", "nan", "None", " null ", "unknown"])
def test_words_for_a_missing_label_are_understood(tmp_path, value):
    (turn,) = read(tmp_path, f"{TRAIN}\n0,1,1,0,x,hello,p,q,{value},1,1,NULL\n")
    assert turn.emotion is None
    assert turn.empathy == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"turns\.csv: no column conversation_id, turn_id, text; the header has nothing"),
        ("id,text\n1,a\n", r"no column conversation_id, turn_id; the header has id, text"),
        (f"{TEST}\n", r"turns\.csv: no rows after the header"),
        (f"{TEST}\n0,1,5,0,7\n", r"line 2: 5 fields where the header has 6"),
        (f"{TEST}\n0,1,5,0,7,a\n0,1,5,1,7,a,b\n", r"line 3: 7 fields where the header has 6"),
        (f"{TEST}\n0,1,5,0,7,  \n", r"line 2: column text is empty"),
        (f"{TEST}\n0,1,5,0,7,\u200b\n", r"line 2: column text is empty"),
        (f"{TEST}\n0,1,5,one,7,a\n", r"line 2: column turn_id must be a whole number, got 'one'"),
        (f"{TEST}\n0,1,5,-1,7,a\n", r"line 2: column turn_id must be a whole number, got '-1'"),
        (f"{TEST}\n0,1,5,1.0,7,a\n", r"line 2: column turn_id must be a whole number, got '1\.0'"),
        (f"{TEST}\n0,1,,0,7,a\n", r"line 2: column conversation_id is empty"),
        (f'{TEST}\n0,1,5,0,7,"a" b\n', r"line 2: .*quotes inside a text must be written as"),
        (f'{TEST}\n0,1,5,0,7,"a "quoted" word"\n', r"line 2: .*quotes inside a text must be written as"),
        (f'{TEST}\n0,1,5,0,7,a\n0,1,5,1,7,"never closed\nb\nc\n', r"row that begins in line 3: .*quotes inside a text"),
        (f'{TEST}\n0,1,5,0,7,"\n\n"\n', r"line 2: column text is empty"),
        (f"{TEST}\n0,1,5,{'9' * 5000},7,a\n", r"line 2: column turn_id must be a whole number, got '9{60}'$"),
        (f"{TEST}\n0,1,5,\u0661,7,a\n", r"line 2: column turn_id must be a whole number"),
        (f'{TEST}\n0,1,"5\n6",0,7,a\n1,1,"5\n6",0,7,b\n', r"conversation and turn '5\\n6\.0' stand in more than one row"),
        (f"{TRAIN},Empathy\n", r"column 'Empathy' stands in the header more than once"),
        (TRAIN.replace("Empathy", "empathy"), r"turns\.csv: no column Empathy; the header has id, "),
        ("id,te\0xt\n1,a\n", r"no column conversation_id, turn_id, text; the header has id, 'te\\x00xt'$"),
        (f'{TEST}\n0,1,5,0,7,"ends in \\', r"line \d: .*quotes inside a text must be written as"),
        (f"{TRAIN}\n0,1,1,0,x,a,p,q,5.1,1,1,1\n", r"line 2: column Emotion must be between 0 and 5, got '5\.1'"),
        (f"{TRAIN}\n0,1,1,0,x,a,p,q,1,-0.1,1,1\n", r"column EmotionalPolarity must be between 0 and 3, got '-0\.1'"),
        (f"{TRAIN}\n0,1,1,0,x,a,p,q,1,1,inf,1\n", r"column Empathy must be between 0 and 5, got 'inf'"),
        (f"{TRAIN}\n0,1,1,0,x,a,p,q,1,1,high,1\n", r"column Empathy must be a number or NULL, got 'high'"),
        (f'{TRAIN}\n0,1,1,0,x,"two\nlines",p,q,1,1,1,1\n1,1,1,1,x,a,p,q,9,1,1,1\n', r"line 4: column Emotion"),
        (f"{TEST}\n0,1,5,0,7,a\n1,1,5,0,7,b\n", r"turns\.csv: conversation and turn 5\.0 stand in more than one row"),
        (f"{TEST}\n0,1,5,0,7,caf".encode() + b"\xe9\n", r"turns\.csv, line 2: byte 0xe9 is not UTF-8"),
    ],
)  # fmt: skip
def test_refuses_a_malformed_file_with_its_place(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"gone\.csv: no such file; check its path"):
        dialogue.read_wassa_csv(tmp_path / "gone.csv")


def test_turns_come_back_as_they_were_written(tmp_path):
    turns = read(tmp_path, f"{TRAIN}\n{TRAIN_ROWS}")
    dialogue.write_turns(tmp_path / "turns.jsonl", turns)
    assert dialogue.read_turns(tmp_path / "turns.jsonl") == turns


@pytest.mark.parametrize("line", ['{"text": "a"}', '{"context": [], "words": 3}', '{"context": null}'])
def test_refuses_lines_that_are_no_turns(tmp_path, line):
    path = tmp_path / "turns.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=r"turns\.jsonl: not a file of turns"):
        dialogue.read_turns(path)


# Splitting


@given(
    lengths=st.lists(st.integers(1, 5), min_size=3, max_size=30),
    shares=st.sampled_from([(0.1, 0.2), (0.3, 0.3), (0.1, 0.0), (0.01, 0.01)]),
    seed=st.integers(0, 100),
)
def test_splits_share_no_conversation_and_lose_no_turn(lengths, shares, seed):
    turns = [Turn(f"c{c}", t, "x", (), None, None, None) for c, n in enumerate(lengths) for t in range(n)]
    parts = dialogue.split(turns, validation=shares[0], test=shares[1], by_turn=False, rng=np.random.default_rng(seed))
    assert sorted(t.key for part in parts.values() for t in part) == sorted(t.key for t in turns)
    conversations = [{t.conversation for t in part} for part in parts.values()]
    assert sum(map(len, conversations)) == len(lengths)
    assert [bool(part) for part in parts.values()] == [True, True, shares[1] > 0]


def test_split_takes_the_stated_shares_of_conversations():
    parts = dialogue.split(made(50), validation=0.1, test=0.2, by_turn=False, rng=np.random.default_rng(0))
    assert {name: len(part) for name, part in parts.items()} == {"train": 105, "validation": 15, "test": 30}


def test_split_depends_on_the_seed_and_not_on_the_order_of_turns():
    turns = made(30)
    one, again = (
        dialogue.split(order, validation=0.2, test=0.2, by_turn=False, rng=np.random.default_rng(1))
        for order in (turns, turns[::-1])
    )
    other = dialogue.split(turns, validation=0.2, test=0.2, by_turn=False, rng=np.random.default_rng(2))
    assert {t.key for t in one["test"]} == {t.key for t in again["test"]}
    assert {t.key for t in one["test"]} != {t.key for t in other["test"]}


def test_split_by_turn_takes_conversations_apart():
    parts = dialogue.split(made(20), validation=0.2, test=0.3, by_turn=True, rng=np.random.default_rng(0))
    assert [len(part) for part in parts.values()] == [30, 12, 18]
    assert {t.conversation for t in parts["train"]} & {t.conversation for t in parts["test"]}


def test_refuses_to_split_too_few_conversations():
    with pytest.raises(UserError, match="2 conversations cannot fill train, validation and test"):
        dialogue.split(made(2), validation=0.1, test=0.2, by_turn=False, rng=np.random.default_rng(0))


# Describing


def test_description_gives_sizes_and_label_statistics():
    turns = [
        Turn("a", 0, "one two three", (), 1.0, 2.0, None),
        Turn("a", 1, "four", (), 3.0, 2.0, None),
        Turn("b", 0, "five six", (), None, 2.0, 4.0),
    ]
    found = dialogue.describe(turns)
    assert (found["conversations"], found["turns"], found["mean_words"]) == (2, 3, 2.0)
    assert found["labels"]["emotion"] == {"n": 2, "missing": 1, "mean": 2.0, "sd": pytest.approx(2**0.5)}
    assert found["labels"]["polarity"] == {"n": 3, "missing": 0, "mean": 2.0, "sd": 0.0}
    assert found["labels"]["empathy"] == {"n": 1, "missing": 2, "mean": 4.0, "sd": None}


def test_description_of_nothing_has_no_numbers_that_are_not_finite():
    found = dialogue.describe([])
    assert (found["turns"], found["mean_words"]) == (0, None)
    assert found["labels"]["empathy"] == {"n": 0, "missing": 0, "mean": None, "sd": None}


@pytest.mark.skipif("WASSA_DIR" not in os.environ, reason="the official files are not free to copy: set WASSA_DIR")
def test_official_files_are_read_whole():
    folder = Path(os.environ["WASSA_DIR"])
    train = dialogue.read_wassa_csv(folder / "trac2_CONVT_train.csv")
    assert len(train) == 11166
    means = [np.mean([getattr(t, name) for t in train if getattr(t, name) is not None]) for name in dialogue.LABELS]
    assert means == pytest.approx([2.2197, 1.2865, 2.0862], abs=5e-5)
    assert len(dialogue.read_wassa_csv(folder / "trac2_CONVT_dev.csv")) == 990
