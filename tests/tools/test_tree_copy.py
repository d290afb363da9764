"""The copies in which `make tiny` and `make seeds` run."""

import os
import subprocess

import pytest

from conftest import ROOT
from gpro_empathy.files import UserError
from gpro_empathy.tools import tree_copy

GRAPH = "stages:\n  a:\n    outs:\n      - models/policy\n      - reports/data.json:\n          cache: false\n"


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def tree(folder):
    """Return each file's content below a folder by its path, and the target of links to folders."""
    paths = {path for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_text() for path in paths
    }


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "src").mkdir(parents=True)
    (folder / ".gitignore").write_text("/tmp/\n/models/\n__pycache__/\n")
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "src/caf\u00e9 \n.py").write_text("code")
    for ignored in ("tmp", "models", "src/__pycache__"):
        (folder / ignored).mkdir()
        (folder / ignored / "large").write_text("x")
    return folder


PLAIN = {".gitignore": "/tmp/\n/models/\n__pycache__/\n", "dvc.yaml": GRAPH, "src/caf\u00e9 \n.py": "code"}


@pytest.mark.parametrize("in_git", [False, True])
def test_copy_holds_what_is_not_ignored_with_git_and_without(source, in_git, tmp_path):
    if in_git:
        git(source, "init")
        git(source, "add", ".")
        git(source, "commit", "-m", "a")
        (source / "my_rewards.py").write_text("new")
    tree_copy.copy(source, source / "tmp/copy")
    assert tree(source / "tmp/copy") == PLAIN | ({"my_rewards.py": "new"} if in_git else {})


def test_deleted_files_are_missing_and_ignored_ones_that_were_committed_are_there(source):
    git(source, "init")
    git(source, "add", ".")
    git(source, "add", "--force", "models/large")
    (source / "src/caf\u00e9 \n.py").unlink()
    tree_copy.copy(source, source / "tmp/copy")
    expected = PLAIN | {"models/large": "x"}
    del expected["src/caf\u00e9 \n.py"]
    assert tree(source / "tmp/copy") == expected


def test_nested_repositories_come_without_their_history_and_what_they_ignore(source):
    nested = source / "nested/deep"
    nested.mkdir(parents=True)
    git(nested, "init")
    (nested / ".gitignore").write_text("*.log\n")
    (nested / "a.py").write_text("a")
    (nested / "a.log").write_text("a")
    tree_copy.copy(source, source / "tmp/copy")
    assert tree(source / "tmp/copy") == PLAIN | {"nested/deep/.gitignore": "*.log\n", "nested/deep/a.py": "a"}


def test_links(source, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "turns.csv").write_text("turns")
    (source / "data").symlink_to("../outside")
    (source / "inside").symlink_to("src")
    (source / "file.csv").symlink_to("../outside/turns.csv")
    (source / "dangling").symlink_to("nowhere")
    (source / "loop").symlink_to("loop")
    # Through these a run of the copy would write into the user's own results.
    for name in ("work", "reports"):
        (source / name).symlink_to(outside)
    tree_copy.copy(source, source / "tmp/copy")
    links = {"data": str(outside.resolve()), "inside": "src", "file.csv": "turns"}
    assert tree(source / "tmp/copy") == PLAIN | links


def test_second_copy_replaces_the_first_but_for_its_checkpoints(source, tmp_path):
    copy = source / "tmp/copy"
    tree_copy.copy(source, copy)
    for name in ("work/checkpoint", "models/a"):
        (copy / name).parent.mkdir()
        (copy / name).write_text("made")
    (copy / "link").symlink_to(source)
    tree_copy.copy(source, copy)
    assert tree(copy) == PLAIN | {"work/checkpoint": "made"}
    assert (source / "dvc.yaml").is_file()


def test_a_folder_that_is_no_earlier_copy_is_left_alone(source, tmp_path):
    other = tmp_path / "other"
    (other / "work").mkdir(parents=True)
    (other / "thesis.tex").write_text("dear")
    with pytest.raises(UserError, match=r"other: is no earlier copy"):
        tree_copy.copy(source, other)
    for around in (source, tmp_path):
        with pytest.raises(UserError, match="holds the folder that is copied"):
            tree_copy.copy(source, around)
    assert (other / "thesis.tex").read_text() == "dear"
    assert (source / "dvc.yaml").is_file()
    (other / "thesis.tex").unlink()
    tree_copy.copy(source, other)
    assert tree(other) == PLAIN


def test_copy_of_this_repository_has_its_files():
    listed = {str(path) for path in tree_copy.listed(ROOT)}
    assert {"dvc.yaml", "Makefile", ".dvc/config", "src/gpro_empathy/__init__.py"} <= listed
    assert not any(name.startswith((".git/", "tmp/", "models/", ".dvc/cache/")) for name in listed)
