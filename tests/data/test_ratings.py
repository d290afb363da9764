import json

import pytest

from gpro_empathy.data import ratings
from gpro_empathy.files import UserError

HASH, OTHER = ratings.text_hash("I am sad.", "I am sorry."), ratings.text_hash("I am sad.", "Why?")
SINGLE = {"rater": "Ann", "kind": "person", "form": "single", "left": HASH, "sense": "2", "empathy": "4"}
PAIR = {"rater": "Ann", "kind": "person", "form": "pair", "left": HASH, "right": OTHER, "choice": "both"}


def table(*rows, delimiter=",", end="\n"):
    lines = [ratings.COLUMNS, *([row.get(name, "") for name in ratings.COLUMNS] for row in rows)]
    return end.join(delimiter.join(line) for line in lines) + end


def write(folder, *rows, name="ann.csv", **how):
    path = folder / name
    path.write_text(table(*rows, **how))
    return path


def test_both_forms_are_read_with_their_marks(tmp_path):
    single, pair = ratings.read(write(tmp_path, SINGLE, PAIR))
    assert (single.left, single.right, single.sense, single.empathy, single.choice) == (HASH, None, 2, 4, None)
    assert (pair.left, pair.right, pair.choice, pair.sense) == (HASH, OTHER, "both", None)


def test_what_is_written_is_read_back(tmp_path):
    before = ratings.read(write(tmp_path, SINGLE, PAIR))
    ratings.write(tmp_path / "again.csv", before)
    after = ratings.read(tmp_path / "again.csv")
    assert [[getattr(one, name) for name in ratings.COLUMNS] for one in after] == [
        [getattr(one, name) for name in ratings.COLUMNS] for one in before
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_table_that_a_spreadsheet_saved_reads_the_same(tmp_path, delimiter, mark):
    path = tmp_path / "ann.csv"
    path.write_bytes((mark + table(SINGLE, PAIR, delimiter=delimiter, end="\r\n")).encode())
    assert [one.left for one in ratings.read(path)] == [HASH, HASH]


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        (SINGLE, "sense", "3"),
        (SINGLE, "sense", ""),
        (SINGLE, "empathy", "0"),
        (SINGLE, "left", "12. Mrz"),
        (SINGLE, "choice", "left"),
        (SINGLE, "kind", "robot"),
        (SINGLE, "form", "triple"),
        (SINGLE, "rater", " "),
        (PAIR, "choice", "middle"),
        (PAIR, "right", ""),
        (PAIR, "empathy", "4"),
    ],
)
def test_refuses_what_no_column_holds_and_says_where(tmp_path, row, column, value):
    path = write(tmp_path, SINGLE, row | {column: value})
    with pytest.raises(UserError, match=rf"ann\.csv, line 3: {column}: ") as refused:
        ratings.read(path)
    assert "\n" not in str(refused.value)


def test_refuses_a_line_that_ends_in_the_middle(tmp_path):
    path = write(tmp_path, SINGLE)
    path.write_text(path.read_text() + "Ann,person,single")
    with pytest.raises(UserError, match=r"line 3: .*\b3\b.*\b8\b"):
        ratings.read(path)


def test_refuses_a_table_without_a_column(tmp_path):
    path = tmp_path / "ann.csv"
    path.write_text("rater,kind\nAnn,person\n")
    with pytest.raises(UserError, match="'form'"):
        ratings.read(path)


def test_refuses_a_table_of_json_in_one_line(tmp_path):
    path = tmp_path / "ann.csv"
    path.write_text(json.dumps(SINGLE) + "\n")
    with pytest.raises(UserError, match=r"ann\.csv: .*JSON.*CSV") as refused:
        ratings.read(path)
    assert "\n" not in str(refused.value)


def test_a_name_in_capitals_is_the_same_rater(tmp_path):
    write(tmp_path, SINGLE)
    write(tmp_path, SINGLE | {"rater": "ANN"}, name="later.csv")
    with pytest.raises(UserError, match=r"later\.csv, line 2: 'ANN'.*\bann\.csv, line 2"):
        ratings.read_folder(tmp_path)


def test_the_same_rater_counts_once_whichever_side_and_file(tmp_path):
    write(tmp_path, PAIR)
    write(tmp_path, PAIR | {"left": OTHER, "right": HASH}, name="later.csv")
    with pytest.raises(UserError, match=r"later\.csv, line 2: 'Ann'.*\bann\.csv, line 2"):
        ratings.read_folder(tmp_path)


def test_a_folder_is_read_by_file(tmp_path):
    write(tmp_path, SINGLE)
    write(tmp_path, SINGLE | {"rater": "Bob"}, name="bob.csv")
    assert {name: len(rows) for name, rows in ratings.read_folder(tmp_path).items()} == {"ann.csv": 1, "bob.csv": 1}
    assert ratings.read_folder(tmp_path / "none") == {}


def test_ending_in_capitals_is_read_and_other_files_are_none_that_would_be_passed_over(tmp_path):
    write(tmp_path, SINGLE, name="ANN.CSV")
    for name in ("README.md", ".DS_Store", "~$ann.xlsx"):
        (tmp_path / name).write_text("")
    assert list(ratings.read_folder(tmp_path)) == ["ANN.CSV"]
    for name in ("bob.tsv", "bob.xlsx", "bob.csv.txt"):
        write(tmp_path, SINGLE | {"rater": "Bob"}, name=name)
        with pytest.raises(UserError, match=name):
            ratings.read_folder(tmp_path)
        (tmp_path / name).unlink()


def test_a_hash_is_of_message_and_answer_and_not_of_how_lines_end():
    assert ratings.text_hash("a\r\nb ", " c") == ratings.text_hash("a\nb", "c")
    assert ratings.text_hash("a", "b c") != ratings.text_hash("a b", "c")
