from pathlib import Path

import pytest

from gpro_empathy import installed
from gpro_empathy.files import UserError

ROOT = Path(__file__).parents[1]
LOCK = """# Compiled
numpy==2.3.5 \\
    --hash=sha256:00
My_Package[extra]==1.0 ; sys_platform != 'nowhere' \\
    --hash=sha256:11
pywin32==312 ; sys_platform == 'nowhere' \\
torch==2.13.0
"""


def test_lock_is_read_with_its_markers_extras_and_names():
    assert installed.pinned(LOCK) == {"numpy": "2.3.5", "my-package": "1.0", "torch": "2.13.0"}


def test_differences_name_package_both_versions_and_what_is_missing():
    found = {"numpy": "2.3.4", "torch": "2.13.0+cu130", "extra": "1"}
    assert installed.differences(installed.pinned(LOCK), found) == [
        "my-package is not installed (the lock has 1.0)", "numpy is 2.3.4 (the lock has 2.3.5)",
    ]  # fmt: skip


def test_installed_packages_are_found_by_canonical_name():
    assert installed.present()["pytest"] == pytest.__version__
    assert "huggingface-hub" in installed.present()


def test_locks_of_the_repository_are_read_whole():
    for lock in (installed.WHOLE, installed.SUBSET):
        text = (ROOT / lock).read_text()
        pins = installed.pinned(text)
        lines = [line for line in text.splitlines() if "==" in line and line[0] not in " #" and ";" not in line]
        assert len(pins) >= len(lines) > 100


def test_driver_is_the_oldest_of_the_pinned_cuda_release(tmp_path):
    assert installed.driver_needed(ROOT / "requirements.lock") == "580"
    (tmp_path / "lock").write_text("nvidia-cuda-runtime==12.8.90 \\\n")
    assert installed.driver_needed(tmp_path / "lock") == "525"
    (tmp_path / "lock").write_text("nvidia-cuda-runtime==14.0.1 \\\n")
    with pytest.raises(UserError, match=r"lock: nvidia-cuda-runtime\b.*\b14\.0\.1\b.*CUDA 12, 13"):
        installed.driver_needed(tmp_path / "lock")


def test_whole_lock_is_used_beside_a_driver_unless_another_is_asked_for(monkeypatch):
    monkeypatch.delenv("LOCK", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert installed.lock_in_use() == installed.WHOLE
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert installed.lock_in_use() == installed.SUBSET
    monkeypatch.setenv("LOCK", "other.lock")
    assert installed.lock_in_use() == Path("other.lock")


def test_versions_are_read_as_text_or_refused_with_the_package(tmp_path):
    path = tmp_path / "versions.yaml"
    path.write_text("torch: 2.13.0\nscipy: '2.10'\n")
    assert installed.recorded(path) == {"torch": "2.13.0", "scipy": "2.10"}
    path.write_text("torch: 2.13.0\nscipy: 2.10\n")
    with pytest.raises(UserError, match=r"versions\.yaml: .*\bscipy\b.*\b2\.1\b.*quotes"):
        installed.recorded(path)
    for text, problem in (("torch: [", "YAML"), ("", "packages"), ("torch", "packages")):
        path.write_text(text)
        with pytest.raises(UserError, match=rf"versions\.yaml: .*{problem}.*`git checkout"):
            installed.recorded(path)


def test_packages_that_are_not_installed_are_in_no_other_version():
    present = {"torch": "2.13.0+cpu", "scipy": "1.18.0"}
    wanted = {"scipy": "1.17.1", "torch": "2.13.0", "vllm": "0.30.0"}
    assert installed.unrecorded(wanted, present) == ["scipy is 1.18.0 (versions.yaml has 1.17.1)"]
