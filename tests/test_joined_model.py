import errno
import hashlib
import io
import shutil
import zipfile

import pytest

from gpro_empathy import joined_model
from gpro_empathy.files import UserError

WEIGHTS = bytes(range(256)) * 40
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def parts(tmp_path):
    """Write a zip with made-up weights in five parts; return their paths."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("all-mpnet-base-v2/model.safetensors", WEIGHTS)
        archive.writestr("all-mpnet-base-v2/config.json", "{}")
    data, paths = whole.getvalue(), []
    size = -(-len(data) // 5)
    for number in range(5):
        package = tmp_path / f"toy_part_{number + 1}"
        (package / "input").mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('must not be imported')\n")
        paths.append(package / "input" / f"all-mpnet-base-v2.zip.{number + 1:03}")
        paths[-1].write_bytes(data[number * size : (number + 1) * size])
    return paths


def refusal(parts, folder, sha256=SHA256):
    with pytest.raises(UserError) as caught:
        joined_model.join(parts, folder, sha256)
    assert "\n" not in str(caught.value)
    assert list(folder.parent.iterdir()) == []
    return str(caught.value)


def test_parts_are_joined_once(parts, tmp_path):
    folder = joined_model.join(parts, tmp_path / "kept/mpnet", SHA256)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert list(folder.parent.iterdir()) == [folder]
    assert joined_model.join([], folder, SHA256) == folder


def test_installed_parts_are_found_without_importing_them(parts, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    packages = [part.parents[1].name for part in parts]
    assert joined_model.installed_parts(packages) == parts
    parts[3].unlink()
    with pytest.raises(UserError, match=r"zip\.004: no such file; run `pip install"):
        joined_model.installed_parts(packages)
    with pytest.raises(UserError, match="the Python package no_such_part is not installed; run `pip install"):
        joined_model.installed_parts(["no_such_part"])


def test_refuses_missing_cut_and_altered_parts_and_goes_on_when_they_are_mended(parts, tmp_path):
    folder, last, second = tmp_path / "kept/mpnet", parts[4].read_bytes(), parts[1].read_bytes()
    parts[4].unlink()
    assert "zip.005: no such file" in refusal(parts, folder)
    parts[4].write_bytes(last[:-30])
    assert "make no whole zip" in refusal(parts, folder)
    parts[4].write_bytes(last)
    parts[1].write_bytes(second[:9] + b"?" + second[10:])
    assert "make no whole zip" in refusal(parts, folder)
    parts[1].write_bytes(second)
    assert f"SHA-256 is {SHA256}, expected 0" in refusal(parts, folder, "0" * 64)
    assert joined_model.join(parts, folder, SHA256).is_dir()


def test_full_disk_is_said_in_one_line_and_leaves_nothing(parts, tmp_path, monkeypatch):
    def full(source, target, *rest):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    assert refusal(parts, tmp_path / "kept/mpnet").endswith("the disk is full; free 1 GB and run it again")
