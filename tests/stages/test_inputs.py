import json
import os
import shlex

import pytest
import yaml

from conftest import ROOT
from gpro_empathy.files import UserError
from gpro_empathy.stages import inputs


@pytest.fixture
def noted(tmp_path, monkeypatch):
    """Note a path by the command of dvc.yaml, in an empty folder."""
    command = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["inputs"]["do"]["cmd"]
    monkeypatch.chdir(tmp_path)

    def run(path):
        line = command.replace("${key}", "mine").replace("${item}", path)
        monkeypatch.setattr("sys.argv", shlex.split(line)[2:])
        inputs.main()
        return json.loads((inputs.INPUTS / "mine.json").read_text())

    return run


@pytest.mark.parametrize("path", ["turns.csv", "-my turns.csv", "caf\u00e9's #1.csv"])
def test_a_file_is_noted_whatever_its_name(noted, path):
    with open(path, "w") as file:
        file.write("a")
    assert noted(path) == {path: "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}


def test_a_folder_is_noted_by_file_and_links_to_nothing_are_none(noted, tmp_path):
    (tmp_path / "model/deep").mkdir(parents=True)
    (tmp_path / "model/deep/weights").write_text("a")
    (tmp_path / "model/link").symlink_to("nowhere")
    assert list(noted("model")) == ["deep/weights"]


@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_what_may_never_end_is_refused(noted, kind):
    os.mkfifo("pipe")
    path = "/dev/zero" if kind == "device" else "pipe"
    with pytest.raises(UserError, match=rf"\b{path}\b|{path} "):
        noted(path)


def test_what_is_not_there_is_named(noted):
    with pytest.raises(UserError, match="gone"):
        noted("gone.csv")
