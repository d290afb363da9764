"""Test which code decides a run.

It is all that the stage reaches and all that a user's reward module imports.
"""

import sys

import pytest

from gpro_empathy.training import checkpoints, reached_code
from stage_graph import ROOT, reached


def test_files_of_a_stage_are_those_that_the_import_graph_names():
    paths = reached_code.files_of(["gpro_empathy.stages.train_grpo"]).values()
    modules = {path.relative_to(ROOT).as_posix() for path in paths if path.name != "__init__.py"}
    assert modules == {path for path in reached("train_grpo") if not path.endswith("__init__.py")}


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    """Make a user's module that imports others in every way that there is."""
    texts = {
        "mine.py": "import json\nimport numpy as np\nfrom helpers import words\n\ndef f():\n    import late\n",
        "late.py": "",
        "unused.py": "",
        "helpers/__init__.py": "",
        "helpers/words.py": "from . import more\nfrom .deep import lists\n",
        "helpers/more.py": "",
        "helpers/deep/__init__.py": "",
        "helpers/deep/lists.py": "from .. import more\nimport mine\n",
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return texts.keys() - {"unused.py"}


def test_files_of_a_users_module_are_those_it_imports_and_none_is_run(user_code, tmp_path):
    paths = reached_code.files_of(["mine"]).values()
    assert {path.relative_to(tmp_path).as_posix() for path in paths} == user_code
    assert not {"mine", "helpers", "late"} & sys.modules.keys()


def test_edited_code_begins_a_run_anew_and_says_which(user_code, tmp_path, capsys):
    def checkpoint():
        made_by = checkpoints.fingerprint((), 1, [], reached_code.files_of(["mine"]))
        return checkpoints.newest(tmp_path / "work", made_by)

    whole = tmp_path / "work/checkpoint-5"
    assert checkpoint() is None
    for edited in ("late.py", "helpers/words.py"):
        whole.mkdir()
        (whole / checkpoints.RUN).write_text("{}")
        assert checkpoint() == whole
        assert capsys.readouterr().out == ""
        with (tmp_path / edited).open("a") as file:
            file.write("changed = True\n")
        assert checkpoint() is None
        assert not whole.exists()
        module = edited.removesuffix(".py").replace("/", ".")
        assert f"the code of {module} " in capsys.readouterr().out
