import csv
import io
import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from gpro_empathy.data import dialogue, records, wassa
from gpro_empathy.files import UserError
from gpro_empathy.scorer import empathy_scorer, score_table

TRAIN = """id,article_id,conversation_id,turn_id,speaker,text,person_id_1,person_id_2,Emotion,EmotionalPolarity,Empathy,SelfDisclosure
0,35,1,0,"Person 1","did you read it?","p019","p012",0.6667,1,0.6667,1
1,35,1,1,"Person 2","Yes, \\"all\\" of it.","p019","p012",NULL,,x,2
2,35,2,0,"Person 1","hi","p001","p002",NULL,NULL,NULL,NULL
"""
SCORES = "Emotion,EmotionalPolarity,Empathy"


class Letters:
    """Rates a text by its letters, the letters of its context, and how many turns that has."""

    def __init__(self, context_turns=2):
        self.context_turns = context_turns

    def score(self, texts, contexts):
        assert len(texts) <= score_table.LARGEST_CHUNK
        return np.array([[len(t), sum(map(len, c)), len(c)] for t, c in zip(texts, contexts, strict=True)], dtype=float)


def run(tmp_path, content, *, context_turns=2, name="turns.csv", target="out.csv"):
    """Score a file of this content; return what is written and the notes."""
    source, notes = tmp_path / name, []
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    score_table.score_file(str(source), str(tmp_path / target), lambda: Letters(context_turns), notes.append)
    return (tmp_path / target).read_text(encoding="utf-8"), notes


def refusal(tmp_path, content, **options):
    with pytest.raises(UserError) as caught:
        run(tmp_path, content, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert not (tmp_path / "out.csv").exists()
    return message.removeprefix(f"{tmp_path}/")


# What is written


def test_names_and_scores_are_written_in_the_order_of_the_rows(tmp_path):
    written, notes = run(tmp_path, TRAIN)
    assert written == (
        f"id,article_id,conversation_id,turn_id,speaker,person_id_1,person_id_2,{SCORES}\n"
        "0,35,1,0,Person 1,p019,p012,16.0000,0.0000,0.0000\n"
        "1,35,1,1,Person 2,p019,p012,17.0000,16.0000,1.0000\n"
        "2,35,2,0,Person 1,p001,p002,2.0000,0.0000,0.0000\n"
    )
    assert [note.removeprefix(f"{tmp_path}/") for note in notes] == [
        "turns.csv: backslashes are read as escapes, like those of the official files (escapes: backslash)"
    ]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("id,article_id,conversation_id,turn_id,speaker_id,text,person_id,person_id_1,person_id_2", '1,8,68,1,"38","Hi",38,38,75'),
        ("text", "Hi"),
    ],
)  # fmt: skip
def test_labels_need_not_be_there(tmp_path, header, row):
    written, _ = run(tmp_path, f"{header}\n{row}\n")
    assert written.splitlines()[1].endswith("2.0000,0.0000,0.0000")
    assert written.splitlines()[0].replace(SCORES, "").strip(",") == header.replace("text,", "").replace("text", "")


def test_context_is_the_last_turns_of_the_same_conversation(tmp_path):
    rows = "conversation_id,turn_id,text\n7,1,a\n7,2,bb\n7,5,ccc\n7,6,dddd\n8,1,e\n"
    written, _ = run(tmp_path, rows)
    assert [line.split(",")[3:] for line in written.splitlines()[1:]] == [
        ["0.0000", "0.0000"], ["1.0000", "1.0000"], ["3.0000", "2.0000"], ["5.0000", "2.0000"], ["0.0000", "0.0000"],
    ]  # fmt: skip


def test_context_column_goes_before_the_rows_above(tmp_path):
    rows = "conversation_id,turn_id,text,context\n7,1,a,\n7,2,bb,hello\n"
    written, _ = run(tmp_path, rows)
    assert [line.split(",")[3:] for line in written.splitlines()[1:]] == [["0.0000", "0.0000"], ["5.0000", "1.0000"]]


def test_scorer_of_single_turns_gets_no_context_and_asks_for_no_order(tmp_path):
    rows = "conversation_id,turn_id,text\n7,2,a\n8,x,b\n7,1,c\n"
    written, _ = run(tmp_path, rows, context_turns=0)
    assert [line.split(",")[4] for line in written.splitlines()[1:]] == ["0.0000"] * 3


def test_jsonl_is_read_and_written(tmp_path):
    rows = (
        '{"id": 3, "text": "a\\u2028b", "context": ["x", "yy", "zzz"]}\n\n{"text": "cd", "id": null, "context": null}\n'
    )
    written, _ = run(tmp_path, rows, name="turns.jsonl", target="out.jsonl")
    assert [json.loads(line) for line in written.splitlines()] == [
        {"id": 3, "Emotion": 3.0, "EmotionalPolarity": 5.0, "Empathy": 2.0},
        {"id": None, "Emotion": 2.0, "EmotionalPolarity": 0.0, "Empathy": 0.0},
    ]


def test_ending_of_the_output_names_its_format_and_else_the_input_does(tmp_path):
    assert run(tmp_path, "id,text\n1,a\n", target="o.jsonl")[0].startswith('{"id": "1"')
    assert run(tmp_path, '{"text": "a"}', target="o.csv")[0] == f"{SCORES}\n1.0000,0.0000,0.0000\n"
    assert run(tmp_path, '{"text": "a"}', target="o.txt")[0].startswith("{")


def test_turns_of_the_project_itself_are_scored_with_their_context(tmp_path):
    turns = [dialogue.Turn("a", i, "x" * (i + 1), ("x",) * i, None, None, None) for i in range(4)]
    dialogue.write_turns(tmp_path / "turns.jsonl", turns)
    written, notes = run(tmp_path, (tmp_path / "turns.jsonl").read_bytes(), name="t.jsonl")
    assert written.splitlines()[0] == f"conversation,turn,{SCORES}"
    assert written.splitlines()[4] == "a,3,4.0000,2.0000,2.0000"
    assert notes == []


def test_unknown_columns_and_missing_conversations_are_said(tmp_path):
    _, notes = run(tmp_path, "text,mood,conversaton\nhi,1,2\n")
    assert notes == [
        "columns that are neither read nor written: mood, conversaton",
        "no column conversation_id or context: every turn is scored without context",
    ]


@pytest.mark.parametrize(
    "text",
    ["\U0001f622\U0001f468\u200d\U0001f469", "\u0645\u0631\u062d\u0628\u0627", "\u4f60\u597d", "a\0b", "word " * 10_000, "x" * 200_000],
    ids=["emoji", "Arabic", "Chinese", "null byte", "10,000 words", "200,000 letters"],
)  # fmt: skip
def test_any_text_is_scored(tmp_path, text):
    written, _ = run(tmp_path, f'id,text\n1,"{text}"\n')
    assert written.splitlines()[1].split(",")[1] == f"{len(text)}.0000"


def test_conversation_without_earlier_turns_is_scored_without_context(tmp_path):
    rows = (
        '{"id": 1, "text": "a", "context": []}\n{"id": 2, "text": "b", "context": ["", " "]}\n{"id": 3, "text": "c"}\n'
    )
    written, _ = run(tmp_path, rows, name="turns.jsonl")
    assert [line.split(",")[2:] for line in written.splitlines()[1:]] == [["0.0000", "0.0000"]] * 3


def test_odd_and_endless_names_of_columns_are_shown_in_one_short_line(tmp_path):
    _, notes = run(tmp_path, f'text,"a\nb",{"x" * 5000}\nhi,1,2\n')
    assert notes[0].startswith("columns that are neither read nor written: 'a\\nb', xxx")
    assert len(notes[0]) < 260


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path, end):
    mixed = TRAIN.replace("\n", end, 2)
    assert run(tmp_path, b"\xef\xbb\xbf" + mixed.encode()) == run(tmp_path, TRAIN)


class Made(io.RawIOBase):
    """A table that is made as it is read, so that only what the code keeps takes memory."""

    def __init__(self, rows):
        head = [b"conversation_id,turn_id,text\n"]
        self.left = itertools.chain(head, (b"%d,%d,hello\n" % divmod(i, 20) for i in range(rows)))

    def readline(self, size=-1):
        return next(self.left, b"")


def test_five_times_the_rows_take_no_more_memory_and_keep_their_order(monkeypatch):
    monkeypatch.setattr(score_table, "PAUSE", 0.0)
    peaks, notes = {}, []
    for rows in (4_000, 20_000):
        pairs = score_table.with_contexts(wassa.read(Made(rows), "t"), 2)
        tracemalloc.start()
        scored = score_table._reported(
            score_table.score_rows(pairs, Letters()), lambda line: notes.__setitem__(slice(None), [line])
        )
        places = (int(row.ids["conversation_id"]) * 20 + int(row.ids["turn_id"]) for row, _ in scored)
        assert all(place == i for i, place in enumerate(places))
        peaks[rows] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert notes[0].startswith(f"{rows} turns scored, ")
    assert peaks[20_000] < 1.15 * peaks[4_000]


# What is refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "turns.csv: the file is empty"),
        ("\n \n", "turns.csv: the file is empty"),
        ("id,text\n", "turns.csv: no rows after the header"),
        ("id,Text\n1,a\n", "turns.csv: no column text; the columns are id, Text"),
        ("id,text,text\n1,a,b\n", "turns.csv: column 'text' stands in the header more than once"),
        ("id,text\n1,a,b\n", 'turns.csv, line 2: 3 fields where the header has 2; quotes inside a text must be doubled (escapes: none)'),
        ('id,text\n1,"a\nb"\n2\n', 'turns.csv, line 4: 1 fields where the header has 2; quotes inside a text must be doubled (escapes: none)'),
        ('id,text\n1,a\n2,"b\n', 'turns.csv, row that begins in line 3: unexpected end of data; quotes inside a text must be doubled (escapes: none)'),
        ("id,text\n1,a\n2, \n", "turns.csv, line 3: column text is empty; delete the row or fill it in"),
        (b"id,text\n1,a\n2,caf\xe9\n", "turns.csv, line 3, byte 6: 0xe9 is not UTF-8; save the file as UTF-8"),
        ("conversation_id,turn_id,text\n,1,a\n", "turns.csv, line 2: column conversation_id is empty; a turn must belong to a conversation"),
        ("conversation_id,turn_id,text\n1,1,a\n1,one,b\n", "turns.csv, line 3: column turn_id must be a whole number, got 'one'"),
        ("conversation_id,turn_id,text\n1,2,a\n1,2,b\n", "turns.csv, line 3: column turn_id: turn 2 stands after turn 2 of its conversation; sort the rows"),
        ("conversation_id,turn_id,text\n1,1,a\n2,1,b\n1,2,c\n", "turns.csv, line 4: column conversation_id: conversation '1' goes on after another has begun; bring the rows of each conversation together"),
        ('{"text": "a"}\n{"text": 3}\n', "turns.csv, line 2: column text must be a text, got 3"),
        ('{"text": "a"}\n{"txt": "a"}\n', "turns.csv, line 2: column text is missing, which the first row has"),
        ('{"text": "a"}\n[1]\n', "turns.csv, line 2: expected a JSON object, got [1]"),
        ('{"text": "a"\n', "turns.csv, line 1: not JSON (expecting ',' delimiter: line 2 column 1 (char 13))"),
        ('{"text": "a", "id": NaN}\n', "turns.csv, line 1: not JSON (nan is no number that can be computed with)"),
        ('{"text": "a", "id": [1]}\n', "turns.csv, line 1: column id must be a text or a number, got [1]"),
        ('{"text": "a", "id": "\\ud800"}\n', "turns.csv, line 1: column id holds half a character (a lone surrogate)"),
        ('{"text": "a", "context": 5}\n', "turns.csv, line 1: column context must be a text or a list of texts, got 5"),
        ('{"text": "a", "x": ' + "[" * 100_000 + "\n", "turns.csv, line 1: not a turn (nested too deeply)"),
    ],
)  # fmt: skip
def test_refuses(tmp_path, content, message):
    assert refusal(tmp_path, content) == message


def test_refuses_a_row_without_end_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "LONGEST_ROW", 1000)
    assert (
        refusal(tmp_path, "text\n" + "a" * 2000) == "turns.csv, line 2: longer than 1000 bytes; is it a table of turns?"
    )
    open_quote = 'text\n"' + "abc\n" * 1000
    assert refusal(tmp_path, open_quote).startswith(
        "turns.csv, row that begins in line 2: field larger than field limit (1000)"
    )


def test_refuses_targets_that_would_destroy_something(tmp_path):
    (tmp_path / "folder").mkdir()
    assert refusal(tmp_path, TRAIN, target="folder").startswith("folder: not an ordinary file")
    assert refusal(tmp_path, TRAIN, target="turns.csv").startswith("turns.csv: the output would replace the input")
    assert (tmp_path / "turns.csv").read_text() == TRAIN
    with pytest.raises(UserError, match="/dev/null: "):
        score_table.check_target("x", "/dev/null")


def test_ending_in_capitals_says_the_format_and_one_that_is_not_written_is_refused_first(tmp_path):
    written, _ = run(tmp_path, '{"id": 1, "text": "a"}\n', name="turns.jsonl", target="OUT.CSV")
    assert written.startswith(f"id,{SCORES}\n")
    for target in ("out.json", "out.TSV", "out.xlsx"):
        with pytest.raises(UserError, match=r"\.csv\b.*\.jsonl"):
            score_table.score_file(str(tmp_path / "nowhere"), str(tmp_path / target), Letters, print)


def test_refuses_an_input_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.csv: "):
        score_table.score_file(str(tmp_path / "nowhere.csv"), str(tmp_path / "out.csv"), Letters, print)


def test_refuses_a_score_that_is_no_number(tmp_path, monkeypatch):
    monkeypatch.setattr(Letters, "score", lambda self, texts, contexts: np.array([[1.0, 1.0, 1.0], [1.0, np.nan, 1.0]]))
    assert refusal(tmp_path, "text\na\nb\n").startswith("turns.csv, line 3: the model gives a score that is no number")


def test_label_that_the_scorer_has_not_learned_is_an_empty_cell_or_null(tmp_path, monkeypatch):
    monkeypatch.setattr(Letters, "score", lambda self, texts, contexts: np.array([[np.nan, np.nan, 1.5]] * len(texts)))
    assert run(tmp_path, "text\na\nb\n")[0] == f"{SCORES}\n,,1.5000\n,,1.5000\n"
    (first, _) = run(tmp_path, "text\na\nb\n", target="o.jsonl")[0].splitlines()
    assert json.loads(first) == {"Emotion": None, "EmotionalPolarity": None, "Empathy": 1.5}


def test_standard_output_is_utf_8_whatever_the_locale(tmp_path, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii", newline="\r\n"))
    (tmp_path / "t.csv").write_text("id,text\nZo\u00eb,a\n", encoding="utf-8")
    score_table.score_file(str(tmp_path / "t.csv"), "-", Letters, lambda line: None)
    assert written.getvalue().decode() == f"id,{SCORES}\nZo\u00eb,1.0000,0.0000,0.0000\n"


def test_closed_standard_streams_are_said(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text("text\na\n")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError, match="standard input"):
        score_table.score_file("-", str(tmp_path / "out.csv"), Letters, print)
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(UserError, match="standard output"):
        score_table.score_file(str(tmp_path / "t.csv"), "-", Letters, lambda line: None)


@pytest.mark.parametrize("exists", [True, False])
def test_output_that_is_a_link_stays_one(tmp_path, exists):
    (tmp_path / "results").mkdir()
    real = tmp_path / "results/real.csv"
    if exists:
        real.write_text("earlier")
    (tmp_path / "out.csv").symlink_to(real)
    run(tmp_path, "text\na\n")
    assert (tmp_path / "out.csv").is_symlink()
    assert real.read_text().startswith(SCORES)


def test_full_disk_names_the_output(tmp_path, monkeypatch):
    # Not closed: that would try to write once more.
    monkeypatch.setattr("sys.stdout", open("/dev/full", "w"))  # noqa: SIM115
    (tmp_path / "t.csv").write_text("text\na\n")
    with pytest.raises(OSError, match="No space left") as caught:
        score_table.score_file(str(tmp_path / "t.csv"), "-", Letters, lambda line: None)
    assert caught.value.filename == "standard output"


def test_failed_run_leaves_an_earlier_output_as_it_was(tmp_path):
    (tmp_path / "out.csv").write_text("earlier")
    with pytest.raises(UserError, match="line 3"):
        run(tmp_path, "id,text\n1,a\n2\n")
    assert (tmp_path / "out.csv").read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "turns.csv"]


# Beside training

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(lambda text: not dialogue.is_blank(text))


@effort(max_examples=60, deadline=None)
@given(st.lists(st.lists(words, min_size=1, max_size=4), min_size=1, max_size=3), st.sampled_from(["\n", "\r\n", "\r"]))
def test_scoring_sees_the_texts_and_contexts_that_training_sees(tmp_path_factory, conversations, end):
    text = io.StringIO(newline="")
    writer = csv.writer(text, escapechar="\\", doublequote=False, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerow(["id", "conversation_id", "turn_id", "text", "Emotion", "EmotionalPolarity", "Empathy"])
    for c, texts in enumerate(conversations):
        writer.writerows([f"{c}.{t}", c, t, value, "NULL", "", 1.3333] for t, value in enumerate(texts))
    path = tmp_path_factory.mktemp("csv") / "turns.csv"
    path.write_bytes(text.getvalue().encode())
    turns = wassa.read_labelled(path, "backslash")  # a text of one quote alone does not show how it is written
    pairs = list(score_table.with_contexts(wassa.read(io.BytesIO(path.read_bytes()), "t", "backslash"), 3))
    assert [dialogue.normalise(row.text) for row, _ in pairs] == [turn.text for turn in turns]
    assert [tuple(map(dialogue.normalise, context)) for _, context in pairs] == [turn.context[-3:] for turn in turns]


# The real thing


@pytest.fixture(scope="module")
def folder(settings, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "scorer"
    torch.manual_seed(0)
    config = settings.train_scorer.model_copy(update={"encoder": "random", "context_turns": 2})
    empathy_scorer.save(empathy_scorer.build(config), path, {"encoder": "random", "revision": None})
    return path


@pytest.mark.slow
def test_command_reads_standard_input_and_gives_the_scores_of_the_scorer(folder):
    command = [sys.executable, "-m", "gpro_empathy", "score", "-", "--output", "-", "--model", str(folder)]
    done = subprocess.run(command, input=TRAIN.encode(), capture_output=True, check=True)
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    expected = empathy_scorer.load(folder).score(
        ["did you read it?", 'Yes, "all" of it.', "hi"], [(), ("did you read it?",), ()]
    )
    found = np.array([[float(row[name]) for name in SCORES.split(",")] for row in rows])
    assert found == pytest.approx(expected, abs=2e-4)
    assert [row["id"] for row in rows] == ["0", "1", "2"]


def test_command_says_a_mistake_in_one_line_and_loads_no_model_for_it(tmp_path):
    (tmp_path / "turns.csv").write_text("id,words\n1,a\n")
    command = [sys.executable, "-m", "gpro_empathy", "score", "turns.csv", "--output", "out.csv"]
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(source)}
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: turns.csv: no column text; the columns are id, words\n"


@pytest.mark.skipif("WASSA_DIR" not in os.environ, reason="WASSA_DIR names no folder of the official files")
@pytest.mark.parametrize("name", ["trac2_CONVT_train.csv", "trac2_CONVT_dev.csv"])
def test_official_files_give_the_contexts_that_training_sees(name):
    path = Path(os.environ["WASSA_DIR"]) / name
    turns = wassa.read_labelled(path)
    with path.open("rb") as stream:
        pairs = list(score_table.with_contexts(wassa.read(stream, name), 3))
    assert len(pairs) == len(turns)
    for (row, context), turn in zip(pairs, turns, strict=True):
        assert (row.ids["conversation_id"], int(row.ids["turn_id"])) == (turn.conversation, turn.turn)
        assert dialogue.normalise(row.text) == turn.text
        assert tuple(map(dialogue.normalise, context)) == turn.context[-3:]


def test_chunks_end_where_a_conversation_ends_unless_it_has_no_end(monkeypatch):
    monkeypatch.setattr(score_table, "CHUNK", 3)
    monkeypatch.setattr(score_table, "LARGEST_CHUNK", 6)
    two_talks = [(i, ("before",) if i not in (0, 5) else ()) for i in range(8)]
    assert [len(chunk) for chunk in score_table._chunks(two_talks)] == [5, 3]
    endless = [(i, ("before",)) for i in range(14)]
    assert [len(chunk) for chunk in score_table._chunks(endless)] == [6, 6, 2]
