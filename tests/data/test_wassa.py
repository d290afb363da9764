import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from gpro_empathy import labels
from gpro_empathy.data import dialogue, records, wassa
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
    return wassa.read_labelled(path)


def table(content, escapes="auto"):
    return wassa.read(io.BytesIO(content), "t", escapes)


# Labelled turns


def test_train_layout_is_read_with_escapes_and_missing_labels(tmp_path):
    assert read(tmp_path, f"{TRAIN}\n{TRAIN_ROWS}") == [
        Turn("1", 0, "did you read it?", (), 0.6667, 1.0, 0.6667, "35"),
        Turn("1", 1, 'Yes, "all" of it. It hurt.', ("did you read it?",), 3.0, 2.0, 4.3333, "35"),
        Turn("2", 0, "hi", (), None, None, None, "35"),
    ]


def test_dev_layout_is_read(tmp_path):
    assert read(tmp_path, f"{DEV}\n{DEV_ROWS}") == [
        Turn("68", 1, "Hello how are you?", (), 1.0, 1.0, 1.0, "8"),
        Turn("68", 2, "Fine.", ("Hello how are you?",), 2.0, 1.0, 2.0, "8"),
    ]


@pytest.mark.parametrize("article", ["NULL", "", " nan ", "NA", "<NA>"])
def test_turn_of_no_article_is_of_the_story_of_its_conversation(tmp_path, article):
    (turn,) = read(tmp_path, f"{TEST}\n0,{article},5,0,7,so sad\n")
    # And of no other: an article may have the conversation's number.
    assert turn.story == "conversation 5"


def test_file_without_label_columns_has_no_labels(tmp_path):
    (turn,) = read(tmp_path, f"{TEST}\n0,1,5,0,7,so sad\n")
    assert (turn.emotion, turn.polarity, turn.empathy) == (None, None, None)


def test_spreadsheet_line_ends_and_byte_order_mark_make_no_difference(tmp_path):
    text = f"{TRAIN}\n{TRAIN_ROWS}"
    assert read(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()) == read(tmp_path, text)


@effort(deadline=None)
@given(st.lists(texts.filter(lambda text: not dialogue.is_blank(text)), min_size=1, max_size=5))
def test_any_text_survives_the_official_escaping(tmp_path_factory, written):
    text = io.StringIO()
    writer = csv.writer(text, escapechar="\\", doublequote=False, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(TEST.split(","))
    for number, value in enumerate(written):
        writer.writerow([number, 1, 5, number, 7, value])
    turns = read(tmp_path_factory.mktemp("csv"), text.getvalue().encode("utf-8", "replace"))
    clean = [value.encode("utf-8", "replace").decode() for value in written]
    assert [turn.text for turn in turns] == [dialogue.normalise(value) for value in clean]


@effort(deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            texts.filter(lambda text: not dialogue.is_blank(text)),
            *[st.none() | st.sampled_from([0.0, 0.6667, 1.0, 2.0])] * 3,
        ),
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
    for number, (value, *values) in enumerate(rows):
        known = {
            column: "NULL" if label is None else label
            for column, label in zip(dialogue.COLUMNS.values(), values, strict=True)
        }
        writer.writerow({"id": number, "conversation_id": "c", "turn_id": number, "text": value} | known)
    turns = read(tmp_path_factory.mktemp("csv"), text.getvalue().encode())
    written = [dialogue.normalise(value) for value, *_ in rows]
    assert [turn.text for turn in turns] == written
    assert [turn.context for turn in turns] == [tuple(written[:i]) for i in range(len(rows))]
    labels = [(None,) * 3 if layout == TEST else tuple(labels) for _, *labels in rows]
    assert [(turn.emotion, turn.polarity, turn.empathy) for turn in turns] == labels


@effort(deadline=None)
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


@pytest.mark.parametrize("value", ["NULL", "", "nan", "None", " null ", "unknown", "NA", "<NA>", "#N/A"])
def test_words_for_a_missing_label_are_understood(tmp_path, value):
    (turn,) = read(tmp_path, f"{TRAIN}\n0,1,1,0,x,hello,p,q,{value},1,1,NULL\n")
    assert turn.emotion is None
    assert turn.empathy == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"turns\.csv: .*empty"),
        ("id,text\n1,a\n", r"conversation_id, turn_id\b.*\bid, text"),
        ("id,words\n1,a\n", r"\btext\b.*\bid, words"),
        (f"{TEST}\n", r"turns\.csv: .*rows"),
        (f"{TEST}\n0,1,5,0,7\n", r"line 2: .*\b5\b.*\b6\b"),
        (f"{TEST}\n0,1,5,0,7,a\n0,1,5,1,7,a,b\n", r"line 3: .*\b7\b.*\b6\b"),
        (f"{TEST}\n0,1,5,0,7,  \n", r"line 2: .*\btext\b.*empty"),
        (f"{TEST}\n0,1,5,0,7,\u200b\n", r"line 2: .*\btext\b.*empty"),
        (f"{TEST}\n0,1,5,one,7,a\n", r"line 2: .*\bturn_id\b.*'one'"),
        (f"{TEST}\n0,1,5,-1,7,a\n", r"line 2: .*\bturn_id\b.*'-1'"),
        (f"{TEST}\n0,1,5,1.0,7,a\n", r"line 2: .*\bturn_id\b.*'1\.0'"),
        (f"{TEST}\n0,1,,0,7,a\n", r"line 2: .*\bconversation_id\b.*empty"),
        (f'{TEST}\n0,1,5,0,7,"a" b\n', r"line 2: .*quotes"),
        (f'{TEST}\n0,1,5,0,7,"a "quoted" word"\n', r"line 2: .*quotes"),
        (f'{TEST}\n0,1,5,0,7,a\n0,1,5,1,7,"never closed\nb\nc\n', r"line 3: .*quotes"),
        (f'{TEST}\n0,1,5,0,7,"\n\n"\n', r"line 2: .*\btext\b.*empty"),
        (f"{TEST}\n0,1,5,{'9' * 5000},7,a\n", r"line 2: .*\bturn_id\b.*'9{60}'$"),
        (f"{TEST}\n0,1,5,\u0661,7,a\n", r"line 2: .*\bturn_id\b"),
        (f'{TEST}\n0,1,"5\n6",0,7,a\n1,1,"5\n6",0,7,b\n', r"turns\.csv: .*'5\\n6\.0'"),
        (f"{TRAIN},Empathy\n", r"'Empathy'.*header"),
        (f"{TRAIN}\n{TRAIN_ROWS}".replace("Empathy", "empathy"), r"turns\.csv: .*\bEmpathy\b.*\bid, .*\bempathy\b"),
        ("id,te\0xt\n1,a\n", r"\btext\b.*\bid, 'te\\x00xt'$"),
        (f'{TEST}\n0,1,5,0,7,"ends in \\', r"line \d: .*quotes"),
        (f"{TRAIN}\n0,1,1,0,x,a,p,q,5.1,1,1,1\n", r"line 2: .*\bEmotion\b.*\b0\b.*\b5\b.*'5\.1'"),
        (f"{TRAIN}\n0,1,1,0,x,a,p,q,1,-0.1,1,1\n", r"line 2: .*\bEmotionalPolarity\b.*\b0\b.*\b3\b.*'-0\.1'"),
        (f"{TRAIN}\n0,1,1,0,x,a,p,q,1,1,inf,1\n", r"line 2: .*\bEmpathy\b.*\b0\b.*\b5\b.*'inf'"),
        (f"{TRAIN}\n0,1,1,0,x,a,p,q,1,1,high,1\n", r"line 2: .*\bEmpathy\b.*\bNULL\b.*'high'"),
        (f'{TRAIN}\n0,1,1,0,x,"two\nlines",p,q,1,1,1,1\n1,1,1,1,x,a,p,q,9,1,1,1\n', r"line 4: .*\bEmotion\b"),
        (f"{TEST}\n0,1,5,0,7,a\n1,1,5,0,7,b\n", r"turns\.csv: .*\b5\.0\b"),
        (f"{TEST}\n0,1,5,0,7,caf".encode() + b"\xe9\n", r"turns\.csv, line 2, byte 14: .*\b0xe9\b.*UTF-8"),
        (f"{TRAIN}\n0,1,1,0,x,a,p,q,0_4,1,1,1\n", r"line 2: .*\bEmotion\b.*'0_4'"),
        # Merged cells of a spreadsheet leave all rows but the first without the article.
        (f"{TEST}\n0,3,5,0,7,a\n1,,5,1,7,b\n", r"line 3: .*\barticle_id\b.*'5'.*\bno article\b.*'3'"),
        (f"{TEST}\n0,3,5,0,7,a\n1,4,5,1,7,b\n", r"line 3: .*\barticle_id\b.*'5'.*'4'.*'3'"),
        (f"{TEST}\n0,3,5,0,7,a\n1,3, 5,1,7,b\n", r"line 3: .*\bconversation_id\b.*' 5'.*'5'"),
        ('[{"text": "a"}]', r"turns\.csv: .*JSON lines"),
        ('[\n  {\n    "text": "a"\n  }\n]\n', r"turns\.csv: .*JSON lines"),
        ('["' + "a" * 200_000 + '"]', r"turns\.csv: .*\btext\b"),
    ],
)  # fmt: skip
def test_refuses_a_malformed_file_with_its_place(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"gone\.csv: .*path"):
        wassa.read_labelled(tmp_path / "gone.csv")


def test_json_lines_are_read_as_the_same_table_in_csv_is(tmp_path):
    rows = [
        {"article_id": 35, "conversation_id": 1, "turn_id": 0, "text": "did you read it?", "Emotion": 0.6667, "EmotionalPolarity": 1, "Empathy": 0.6667},
        {"article_id": 35, "conversation_id": 1, "turn_id": 1, "text": 'Yes, "all" of it. It hurt.', "Emotion": 3, "EmotionalPolarity": 2, "Empathy": 4.3333},
        {"article_id": 35, "conversation_id": 2, "turn_id": 0, "text": "hi", "Emotion": None, "EmotionalPolarity": None, "Empathy": "NULL"},
    ]  # fmt: skip
    assert read(tmp_path, "\n".join(map(json.dumps, rows))) == read(tmp_path, f"{TRAIN}\n{TRAIN_ROWS}")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"Emotion": True}, "line 2: .*Emotion.*'True'"),
        ({"turn_id": None}, "line 2: .*turn_id.*'None'"),
        ({"conversation_id": None}, "line 2: .*conversation_id.*empty"),
        ({"id": "LARGE"}, "line 2: .*1e400"),
    ],
)
def test_refuses_a_malformed_json_line_with_its_place(tmp_path, row, message):
    turn = {"conversation_id": 1, "turn_id": 0, "text": "a", "Emotion": 1, "EmotionalPolarity": 1, "Empathy": 1}
    with pytest.raises(UserError, match=message):
        read(tmp_path, json.dumps(turn) + "\n" + json.dumps(turn | {"turn_id": 1} | row).replace('"LARGE"', "1e400"))


# Readers, on tables made at random

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(lambda text: not dialogue.is_blank(text))
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def rows_read(content, escapes):
    return [(row.ids["id"], row.text) for row in table(content, escapes).rows]


@effort(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(names, words), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(",;\t"),
    st.booleans(),
)
def test_written_csv_is_read_back(rows, end, delimiter, backslash):
    text = io.StringIO(newline="")
    how = {"escapechar": "\\", "doublequote": False} if backslash else {}
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=end, **how)
    writer.writerow(["id", "text"])
    writer.writerows(rows)
    content = text.getvalue().encode()
    assert rows_read(content, "backslash" if backslash else "none") == rows
    if not backslash:
        assert rows_read(content, "auto") == rows


# Backslashes


@pytest.mark.parametrize(
    ("content", "read_as", "expected"),
    [
        # Plain CSV, of several columns, of one, and with a backslash before the end of a field.
        ('id,text\nLAB\\anna,"C:\\new"\nLAB\\bo,"ends \\"\nLAB\\c,no\\\n', "none", ["C:\\new", "ends \\", "no\\"]),
        ("text\nI give up \\\nNobody answers\nGood night\n", "none", ["I give up \\", "Nobody answers", "Good night"]),
        ('id,text\n1,"C:\\""x"" \\"\n', "none", ['C:\\"x" \\']),
        # Escapes, shown by a quote within a field, at its beginning or after an escaped backslash.
        ('id,text\n1,"so \\"sad\\""\n2,"a\\\\b"\n', "backslash", ['so "sad"', "a\\b"]),
        ('id,text\n1,"\\"sad"\n', "backslash", ['"sad']),
        ('id,text\n1,"a\\\\\\"b"\n', "backslash", ['a\\"b']),
        # The official header: escapes, unless quotes are doubled.
        (f'{TEST}\n0,1,5,0,7,"a\\\\b"\n', "backslash", ["a\\b"]),
        (f'{TEST}\n0,1,5,0,7,"say ""a\\b"""\n', "none", ['say "a\\b"']),
        (f'{TEST}\n0,1,5,0,7,"""a\\b"""\n', "none", ['"a\\b"']),
        # No backslash, nothing to say.
        ("text\nfine\n", None, ["fine"]),
    ],
)  # fmt: skip
def test_backslash_is_what_the_file_shows_and_this_is_said(content, read_as, expected):
    read = table(content.encode())
    assert [row.text for row in read.rows] == expected
    assert (read.assumption is None) if read_as is None else read.assumption.endswith(f"(escapes: {read_as})")


def test_backslash_in_an_id_and_in_the_context_stays():
    (row,) = table(b"person_id_1,text,context\nLAB\\anna,sad,he said \\\n").rows
    assert (row.ids, row.context) == ({"person_id_1": "LAB\\anna"}, ("he said \\",))


def test_option_goes_before_what_the_file_shows():
    escaped, plain = b'text\n"so \\"sad\\""\n', b"text\nC:\\new\n"
    assert [row.text for row in table(plain, "backslash").rows] == ["C:new"]
    assert table(plain, "backslash").assumption is None
    with pytest.raises(UserError, match="quotes"):
        list(table(escaped, "none").rows)


def test_what_decides_may_stand_far_from_the_beginning_but_takes_bounded_memory(monkeypatch):
    monkeypatch.setattr(records, "LOOK_AHEAD", 1000)
    rows = b"a\\b\n" * 100 + b'"c \\"d\\""\n'
    assert [row.text for row in table(b"text\n" + rows).rows][-2:] == ["ab", 'c "d"']
    with pytest.raises(UserError, match="row that begins in line 1002: "):
        list(table(b"text\n" + b"a\\b\n" * 1000 + b'"c \\"d\\""\n').rows)


# Delimiters and columns without a name


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiter_is_that_of_the_header(delimiter):
    header, row = delimiter.join(["turn_id", "text"]), delimiter.join(["0", '"sad, or; so\tso"'])
    (read,) = table(f"{header}\n{row}\n".encode()).rows
    assert (read.ids, read.text) == ({"turn_id": "0"}, "sad, or; so\tso")


def test_columns_without_a_name_are_passed_over():
    read = table(b"text,context,,\nsad,hello,,\nfine,,,x\n")
    assert read.unknown_columns == [""]
    assert [(row.text, row.context) for row in read.rows] == [("sad", ("hello",)), ("fine", ())]


@effort(max_examples=150, deadline=None)
@given(st.lists(st.tuples(names | st.integers() | st.none(), words, st.lists(words)), min_size=1), st.booleans())
def test_written_jsonl_is_read_back(rows, ascii_only):
    lines = [json.dumps({"id": i, "text": t, "context": c}, ensure_ascii=ascii_only) for i, t, c in rows]
    found = [(row.ids["id"], row.text, list(row.context)) for row in table("\n".join(lines).encode()).rows]
    assert found == rows


@effort(max_examples=300, deadline=None)
@given(st.binary(max_size=80) | st.text(alphabet='{}[]",:\\\n\r\0text1é', max_size=60).map(str.encode))
def test_any_bytes_are_a_table_or_refused_in_one_line(content):
    for head in (b"", b"id,text\n", b'{"text": "a"}\n'):
        message = None
        try:
            for row in table(head + content).rows:
                assert not dialogue.is_blank(row.text)
        except UserError as error:
            message = str(error)
        assert message is None or (message.startswith("t") and "\n" not in message)


@pytest.mark.skipif("WASSA_DIR" not in os.environ, reason="the official files are not free to copy: set WASSA_DIR")
def test_official_files_are_read_whole():
    folder = Path(os.environ["WASSA_DIR"])
    train = wassa.read_labelled(folder / "trac2_CONVT_train.csv")
    assert len(train) == 11166
    means = [np.mean([getattr(t, name) for t in train if getattr(t, name) is not None]) for name in labels.LABELS]
    assert means == pytest.approx([2.2197, 1.2865, 2.0862], abs=5e-5)
    assert len(wassa.read_labelled(folder / "trac2_CONVT_dev.csv")) == 990
