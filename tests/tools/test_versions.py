import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from gpro_empathy import installed
from gpro_empathy.files import UserError
from gpro_empathy.tools import versions

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    shutil.copy(ROOT / "versions.yaml", tmp_path)
    return tmp_path


def run(folder, *arguments):
    line = [sys.executable, "-m", "gpro_empathy.tools.versions", *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)


def alter(folder, **changed):
    values = installed.recorded(folder / "versions.yaml")
    (folder / "versions.yaml").write_text(yaml.safe_dump(values | changed))


def test_versions_are_those_of_the_whole_lock_as_make_lock_writes_them(folder):
    pinned = installed.pinned((ROOT / "requirements.lock").read_text())
    values = installed.recorded(ROOT / "versions.yaml")
    assert values == {name: pinned[name] for name in values}
    alter(folder, scipy="0.1", vllm="0.1")
    assert run(folder, "--lock", str(ROOT / "requirements.lock")).returncode == 0
    assert (folder / "versions.yaml").read_text() == (ROOT / "versions.yaml").read_text()


def test_environment_of_these_versions_passes_in_silence(folder):
    done = run(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_environment_of_another_version_is_refused_with_both_versions_and_the_ways_out(folder):
    alter(folder, scipy="0.1")
    done = run(folder)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: scipy is {metadata.version('scipy')} (versions.yaml has 0.1); run `rm -rf .venv && make setup` for the "
        "pinned packages, or `make versions` and `dvc repro` to make stale results anew with the installed ones\n"
    )


def test_installed_versions_are_written_and_those_of_absent_packages_kept(folder):
    alter(folder, scipy="0.1", torch="0.1")
    assert run(folder, "--installed").returncode == 0
    values = installed.recorded(folder / "versions.yaml")
    assert values["scipy"] == metadata.version("scipy")
    assert values["torch"] == metadata.version("torch").partition("+")[0]
    assert values.keys() == installed.recorded(ROOT / "versions.yaml").keys()
    assert versions.renewed({"vllm": "0.30.0", "torch": "2"}, {"torch": "3+cpu", "scipy": "1"}) == {
        "torch": "3", "vllm": "0.30.0",
    }  # fmt: skip
    assert run(folder).returncode == 0


def test_check_passes_where_a_package_is_absent():
    versions.check({"vllm": "0.30.0", "torch": "2.13.0"}, {"torch": "2.13.0+cu130"})
    with pytest.raises(UserError, match=r"\btorch\b.*\b2\.14\.0\b.*\bversions\.yaml\b.*\b2\.13\.0\b"):
        versions.check({"vllm": "0.30.0", "torch": "2.13.0"}, {"torch": "2.14.0"})
