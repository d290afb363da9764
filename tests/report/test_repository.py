import ast
import subprocess
from pathlib import Path

import pytest

from gpro_empathy.files import UserError
from gpro_empathy.report import repository


def git(root, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path):
    """Make a repository with one commit of two files."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/kept file.txt").write_text("one\n")
    (tmp_path / "gone.txt").write_text("two\n")
    (tmp_path / ".gitignore").write_text("/ignored/\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_commit_is_the_one_that_git_names(clone):
    assert repository.head(clone) == git(clone, "rev-parse", "HEAD")


def test_changed_new_and_deleted_files_are_listed_and_ignored_ones_not(clone):
    assert repository.changed(clone) == []
    (clone / "folder/kept file.txt").write_text("three\n")
    (clone / "gone.txt").unlink()
    (clone / "new").mkdir()
    (clone / "new/caf\xe9.txt").write_text("x")
    (clone / "ignored").mkdir()
    (clone / "ignored/b.txt").write_text("x")
    assert repository.changed(clone) == ["folder/kept file.txt", "gone.txt", "new/caf\xe9.txt"]


def test_a_renamed_file_is_two_changes(clone):
    git(clone, "mv", "gone.txt", "here.txt")
    assert repository.changed(clone) == ["gone.txt", "here.txt"]


def test_committed_bytes_are_those_of_the_revision(clone):
    (clone / "gone.txt").write_text("later\n")
    git(clone, "commit", "--quiet", "--all", "--message", "second")
    (clone / "gone.txt").write_text("not committed\n")
    assert repository.committed("gone.txt", root=clone) == b"later\n"
    assert repository.committed("gone.txt", "HEAD~1", clone) == b"two\n"
    assert repository.committed("absent.txt", root=clone) is None


def test_an_unknown_revision_is_refused(clone):
    with pytest.raises(UserError, match="no such commit"):
        repository.committed("gone.txt", "nowhere", clone)


def test_a_folder_outside_of_git_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UserError, match=r"not in git\b.*git clone"):
        repository.head(tmp_path)


def test_a_repository_without_a_commit_is_refused(tmp_path):
    git(tmp_path, "init", "--quiet")
    with pytest.raises(UserError, match="no commit yet"):
        repository.head(tmp_path)


def test_a_copy_inside_another_repository_is_not_in_git(clone):
    (clone / "ignored/copy").mkdir(parents=True)
    with pytest.raises(UserError, match="inside another repository"):
        repository.head(clone / "ignored/copy")


def test_whatever_else_works_without_git():
    """Two modules call git: this one, whose callers take its refusal, and the one of the copies."""
    calling = {
        path.name
        for path in Path(repository.__file__).parents[1].rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.List) and node.elts and getattr(node.elts[0], "value", None) == "git"
    }
    assert calling == {"repository.py", "tree_copy.py"}


def test_missing_git_is_named(clone, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"git.*installed"):
        repository.head(clone)


def test_a_folder_of_another_user_is_named_with_the_command_that_makes_git_trust_it(clone, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    with pytest.raises(UserError, match=f"git config --global --add safe.directory '?{clone}"):
        repository.head(clone)
