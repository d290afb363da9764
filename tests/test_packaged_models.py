import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gpro_empathy import packaged_models
from gpro_empathy.files import UserError
from gpro_empathy.packaged_models import MPNET

ROOT = Path(__file__).parents[1]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put a package with one small model file on the path; return the file.

    `packaged` knows it as `toy`.
    """
    file = tmp_path / "toy_package" / "model.bin"
    file.parent.mkdir()
    (file.parent / "__init__.py").write_text("raise RuntimeError('a package with a model must not be imported')\n")
    file.write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(
        packaged_models.FILES, "toy", ("toy_package", "model.bin", hashlib.sha256(b"weights").hexdigest())
    )
    return file


@pytest.mark.parametrize("name", list(packaged_models.FILES))
def test_installed_models_are_the_expected_ones(name):
    assert packaged_models.find(name).stat().st_size > 10_000_000


def test_digests_are_the_published_ones():
    assert [entry[2] for entry in packaged_models.FILES.values()] == [
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ]


def test_file_is_found_without_importing_its_package(package):
    assert packaged_models.find("toy") == package


def test_refuses_an_altered_file(package):
    package.write_bytes(b"weightz")
    found = hashlib.sha256(b"weightz").hexdigest()
    with pytest.raises(UserError, match=rf"model\.bin: .*{found}.*`rm -rf \.venv"):
        packaged_models.find("toy")


def test_refuses_a_missing_file(package):
    package.unlink()
    with pytest.raises(UserError, match=r"model\.bin: .*run"):
        packaged_models.find("toy")


def test_refuses_a_missing_package(monkeypatch):
    monkeypatch.setitem(packaged_models.FILES, "toy", ("no_such_package_here", "x", ""))
    with pytest.raises(UserError, match=r"toy: .*no_such_package_here.*`make setup`"):
        packaged_models.find("toy")


# The model that is joined from parts

WEIGHTS = bytes(range(256)) * 40
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Put packages with a zip of made-up weights in five parts on the path; return the parts."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr(f"{MPNET}/model.safetensors", WEIGHTS)
        archive.writestr(f"{MPNET}/config.json", "{}")
    size = -(-len(whole.getvalue()) // 5)
    paths, known = [], []
    for number, (package, relative, _) in enumerate(packaged_models.PARTS):
        paths.append(tmp_path / "packages" / package / relative)
        paths[-1].parent.mkdir(parents=True)
        (paths[-1].parents[1] / "__init__.py").write_text("raise RuntimeError('must not be imported')\n")
        paths[-1].write_bytes(whole.getvalue()[number * size : (number + 1) * size])
        known.append((package, relative, hashlib.sha256(paths[-1].read_bytes()).hexdigest()))
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setattr(packaged_models, "PARTS", tuple(known))
    monkeypatch.setattr(packaged_models, "WEIGHTS_SHA256", SHA256)
    monkeypatch.setattr(packaged_models, "SHARED", tmp_path / "share")
    return paths


def refused(match):
    with pytest.raises(UserError, match=match) as caught:
        packaged_models.find(MPNET)
    assert "\n" not in str(caught.value)
    shared = packaged_models.SHARED
    assert not shared.is_dir() or list(shared.iterdir()) == []


def test_parts_are_joined_once(parts):
    path = packaged_models.find(MPNET)
    assert path == packaged_models.SHARED / MPNET / "model.safetensors"
    assert path.read_bytes() == WEIGHTS
    assert sorted(file.name for file in path.parent.iterdir()) == ["config.json", "model.safetensors"]
    assert list(packaged_models.SHARED.iterdir()) == [path.parent]
    made = path.stat().st_ino
    shutil.rmtree(parts[0].parents[2])
    assert packaged_models.find(MPNET).stat().st_ino == made


@pytest.mark.parametrize("number", range(5))
def test_missing_or_altered_part_is_named_and_a_rerun_goes_on_once_it_is_mended(parts, number):
    part = parts[number]
    whole = part.read_bytes()
    part.unlink()
    refused(rf"zip\.00{number + 1}: no such file; run `make mpnet ARGS=--force-reinstall`")
    for altered in (whole[:-1], whole[:-1] + b"?"):
        part.write_bytes(altered)
        refused(rf"zip\.00{number + 1}: SHA-256 .*; run `make mpnet ARGS=--force-reinstall`")
    shutil.rmtree(part.parents[1])
    refused(rf"{MPNET}: .*{part.parents[1].name} is not installed; run `make mpnet`")
    part.parent.mkdir(parents=True)
    part.write_bytes(whole)
    (part.parents[1] / "__init__.py").touch()
    assert packaged_models.find(MPNET).read_bytes() == WEIGHTS


def test_parts_of_another_model_are_refused(parts, monkeypatch):
    monkeypatch.setattr(packaged_models, "WEIGHTS_SHA256", "0" * 64)
    refused(rf"model\.safetensors: SHA-256 is {SHA256}, expected 0+; run")


def test_joined_weights_that_were_altered_are_refused_until_they_are_deleted(parts):
    path = packaged_models.find(MPNET)
    path.write_bytes(WEIGHTS[:-1])
    with pytest.raises(UserError, match=rf"model\.safetensors: SHA-256 .*; run `rm -r {re.escape(str(path.parent))}`"):
        packaged_models.find(MPNET)
    shutil.rmtree(path.parent)
    assert packaged_models.find(MPNET).read_bytes() == WEIGHTS


JOIN = """
import os, resource, signal, sys
from gpro_empathy import entry_point, packaged_models
packaged_models.PARTS, packaged_models.WEIGHTS_SHA256, shared, limit, fatal = eval(sys.argv[1])
packaged_models.SHARED = type(packaged_models.SHARED)(shared)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if fatal:
    packaged_models.zipfile.ZipFile.extractall = lambda self, path: (self.extract(self.namelist()[0], path), os.kill(os.getpid(), 9))
entry_point.run_stage(lambda: packaged_models.find(packaged_models.MPNET))
"""


def join(parts, limit=0, fatal=False):
    """Join the parts in a process of its own; no file in it grows beyond `limit` bytes.

    If `fatal`, it is killed while it unpacks.
    """
    given = (packaged_models.PARTS, SHA256, str(packaged_models.SHARED), limit, fatal)
    path = os.pathsep.join([str(parts[0].parents[2]), str(ROOT / "src")])
    return subprocess.run(
        [sys.executable, "-c", JOIN, repr(given)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )


def test_full_disk_is_one_line_and_leaves_nothing(parts):
    done = join(parts, limit=len(WEIGHTS) // 2)
    assert done.returncode == 1
    assert done.stderr == f"error: {packaged_models.SHARED / MPNET}: file too large\n"
    assert list(packaged_models.SHARED.iterdir()) == []
    assert join(parts).returncode == 0
    assert packaged_models.find(MPNET).read_bytes() == WEIGHTS


def test_next_call_clears_what_a_killed_one_left_and_goes_on(parts):
    assert join(parts, fatal=True).returncode == -9
    assert not (packaged_models.SHARED / MPNET).exists()
    assert len(list(packaged_models.SHARED.iterdir())) == 1
    packaged_models.find(MPNET)
    assert [folder.name for folder in packaged_models.SHARED.iterdir()] == [MPNET]


def test_lock_pins_the_parts_that_are_joined_by_hash_and_no_other_lock_has_them():
    lock = (ROOT / "requirements-mpnet.lock").read_text()
    pinned = re.findall(r"^(\S+)==0\.0\.1 --hash=sha256:[0-9a-f]{64}$", lock, re.MULTILINE)
    assert pinned == [package.replace("part_", "part-") for package, _, _ in packaged_models.PARTS]
    assert len(lock.splitlines()) == 1 + len(pinned)
    for other in ROOT.glob("requirements*"):
        assert other.name == "requirements-mpnet.lock" or MPNET not in other.read_text()
