import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpro_empathy import files

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def entries(folder):
    """Return the names in a folder, hidden ones included."""
    return sorted(path.name for path in folder.iterdir())


def test_written_json_is_sorted_and_ends_with_a_newline(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "a": "é",\n  "b": 1\n}\n'.encode()


@given(rows=st.lists(st.dictionaries(st.text(), json_values, max_size=4), max_size=4))
def test_json_lines_come_back_as_they_were_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    files.write_jsonl(path, rows)
    assert files.read_jsonl(path) == rows


def test_unicode_line_separators_do_not_break_a_json_line(tmp_path):
    rows = [{"text": "one\u2028two\u2029three\x85four\x0bfive"}]
    files.write_jsonl(tmp_path / "rows.jsonl", rows)
    assert files.read_jsonl(tmp_path / "rows.jsonl") == rows


def test_missing_folders_are_made_on_writing(tmp_path):
    files.write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("write", [files.write_json, lambda path, value: files.write_jsonl(path, [{}, value])])
def test_refuses_a_number_that_is_not_finite_and_keeps_the_old_file(tmp_path, write, number):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        write(path, {"x": [number]})
    assert path.read_text() == "old"
    assert entries(tmp_path) == ["a.json"]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted():
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert entries(tmp_path) == ["a.txt"]


def test_failed_write_of_a_folder_leaves_the_old_folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "weights").write_text("old")

    def interrupted():
        with files.atomic_path(path) as temporary:
            temporary.mkdir()
            (temporary / "weights").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert (path / "weights").read_text() == "old"
    assert entries(tmp_path) == ["model"]


def test_failed_first_write_leaves_nothing(tmp_path):
    def interrupted():
        with files.atomic_path(tmp_path / "new") as temporary:
            temporary.mkdir()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert entries(tmp_path) == []


def test_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "model"
    for name in ("old", "new"):
        with files.atomic_path(path) as temporary:
            temporary.mkdir()
            (temporary / name).write_text("")
    assert entries(path) == ["new"]
    assert entries(tmp_path) == ["model"]


def test_folder_that_cannot_be_put_in_its_place_keeps_the_old_one(tmp_path, monkeypatch):
    path, replace = tmp_path / "model", os.replace
    path.mkdir()
    (path / "weights").write_text("old")

    def busy(source, target):
        if Path(target) == path and Path(source).name == path.name:
            raise OSError("busy")
        replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    with pytest.raises(OSError, match="busy"), files.atomic_path(path) as temporary:
        temporary.mkdir()
    assert entries(tmp_path) == ["model"]
    assert (path / "weights").read_text() == "old"


def test_block_that_makes_nothing_keeps_the_old_folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "weights").write_text("old")

    def forgetful():
        with files.atomic_path(path):
            pass

    with pytest.raises(FileNotFoundError):
        forgetful()
    assert (path / "weights").read_text() == "old"


def test_refuses_a_missing_file_by_name(tmp_path):
    with pytest.raises(files.UserError, match=r"gone\.json: .*`make reproduce`"):
        files.read_json(tmp_path / "gone.json")


def test_refuses_bytes_that_are_not_utf8_with_line_and_byte(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes(b"one\ntwo\ncaf\xe9\n")
    with pytest.raises(files.UserError, match=r"latin\.csv, line 3: .*\b0xe9\b.*UTF-8"):
        files.read_text(path)


def test_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbfid\n")
    assert files.read_text(path) == "id\n"


def test_refuses_broken_json_with_line_and_column(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{\n  "a": 1,\n  "b": }\n')
    with pytest.raises(files.UserError, match=r"a\.json, line 3, column 8: .*JSON"):
        files.read_json(path)


def test_refuses_a_broken_json_line_by_its_number_in_the_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(files.UserError, match=r"a\.jsonl, line 3, column \d+: .*JSON"):
        files.read_jsonl(path)


def test_refuses_a_line_that_is_no_object_by_its_number_in_the_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n[1, 2]\n')
    with pytest.raises(files.UserError, match=r"a\.jsonl, line 3: .*\[1, 2\]"):
        files.read_jsonl(path)


def test_reading_gives_back_what_json_itself_reads(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2.5, null, "x"]}')
    assert files.read_json(path) == json.loads(path.read_text())


def test_full_disk_names_the_file_that_is_written(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, files.atomic_path(tmp_path / "out.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "out.csv")


def test_folder_that_a_killed_process_left_is_deleted_at_the_next_write_and_that_of_a_living_one_is_not(tmp_path):
    code = (
        "import pathlib, sys, time\nfrom gpro_empathy import files\n"
        "with files.atomic_path(pathlib.Path(sys.argv[1])) as path:\n"
        "    path.write_text('half')\n    print('writes', flush=True)\n    time.sleep(60)\n"
    )
    path = tmp_path / "tuned"
    other = tmp_path / ".tuned-mine"
    other.mkdir()
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writes\n"
    files.write_text(path, "whole")
    assert len(entries(tmp_path)) == 3
    process.kill()
    process.communicate()
    files.write_text(path, "whole again")
    assert entries(tmp_path) == [".tuned-mine", "tuned"]
