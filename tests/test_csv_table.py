import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from gpro_empathy import csv_table, files
from gpro_empathy.analysis import scorer_accuracy
from gpro_empathy.data import wassa
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError

ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["solo, 0", 'a "quoted" id', "007", "1e5", "NA", "null", "", " 5 ", "\r", "a\rb", "a\r\nb", "a\nb", "LAB\\anna", "5.0", "\ufeffa", "#1"]
)  # fmt: skip


@effort(max_examples=200, deadline=None)
@given(st.lists(ids, min_size=1, max_size=5))
def test_any_id_of_a_conversation_comes_back_from_the_table_of_predictions(tmp_path_factory, names):
    turns = [Turn(name, i, "so sad", (), None, None, None) for i, name in enumerate(names)]
    path = tmp_path_factory.mktemp("csv") / "predictions.csv"
    values = np.arange(len(names)) / 8
    files.write_text(path, scorer_accuracy.table(turns, values, values + 1))
    table = csv_table.read(path, scorer_accuracy.COLUMNS)
    assert table["conversation"].tolist() == names
    assert table["turn"].tolist() == list(range(len(names)))
    assert table["audit_empathy"].tolist() == (values + 1).tolist()
    assert table["label_empathy"].isna().all()


@effort(max_examples=200, deadline=None)
@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=5))
def test_any_row_that_is_written_is_read_as_a_table_of_turns(rows):
    file = io.StringIO(newline="")
    csv_table.write_rows(file, [("id", "conversation_id", "text"), *((*row, "so sad") for row in rows)])
    read = wassa.read(io.BytesIO(file.getvalue().encode()), "t")
    assert [tuple(row.ids.values()) for row in read.rows] == rows


def test_table_has_a_header_plain_line_ends_and_empty_cells_for_none():
    written = csv_table.text(["a", "b"], [{"a": 0.1, "b": None}, {"b": "x,\r", "a": 2}])
    assert written == 'a,b\n0.1,\n2,"x,\r"\n'


def test_refuses_a_row_of_other_columns():
    with pytest.raises(ValueError, match="c"):
        csv_table.text(["a"], [{"a": 1, "c": 2}])


@pytest.mark.parametrize(
    "content", ["", "conversation,turn\n", "turn\n1\n", 'conversation\n"a\n', "conversation\na,b\nc,d,e\n"]
)
def test_refuses_what_is_no_table_with_these_columns(tmp_path, content):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(UserError, match=r"t\.csv: "):
        csv_table.read(tmp_path / "t.csv", ["conversation"])
