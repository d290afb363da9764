"""Each way in which a hub refuses, against a hub of this test that answers as the real one does."""

import http.server
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from gpro_empathy import files
from gpro_empathy.tools import hub_access
from gpro_empathy.tools.hub_access import Access, Repository

MODEL = Repository("policy.model", "owner/model")
DATA = Repository("prepare.hub_dataset", "owner/data", "dataset")
# Status and headers by the last part of the path that is asked for.
ANSWERS = {
    "open": (200, {}),
    "gated": (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted."}),
    "absent": (404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}),
    "hidden": (401, {"X-Error-Message": "Invalid username or password."}),
    "stale": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
    "narrow": (403, {"X-Error-Message": "Please enable access to public gated repositories in your token"}),
    "busy": (503, {}),
}


class Hub(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = next(part for part in self.path.split("/") if part in ANSWERS)
        status, headers = ANSWERS[name]
        if "/revision/" in self.path and not self.path.startswith("/api/models/owner/open/revision/known"):
            status, headers = 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}
        body = b'{"id": "owner/open"}'
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def endpoint():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def online(monkeypatch, tmp_path):
    """Lift the offline mode of the tests, and give the cache a folder of its own."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return set_cache(monkeypatch, tmp_path)


def set_cache(monkeypatch, folder):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HOME", str(folder))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    return folder


@pytest.mark.parametrize(
    ("name", "token", "state"),
    [
        ("open", None, "reachable"), ("gated", None, "no token"), ("gated", "hf_x", "no access"),
        ("absent", "hf_x", "no such id"), ("hidden", None, "no such id"), ("stale", "hf_x", "wrong token"),
        ("narrow", "hf_x", "no access"), ("busy", "hf_x", "trouble"),
    ],
)  # fmt: skip
def test_every_answer_of_the_hub_is_told_apart(online, endpoint, name, token, state):
    repository = replace(MODEL, id=f"owner/{name}")
    assert hub_access.ask(repository, HfApi(endpoint=endpoint), token) == state


def test_a_commit_that_the_model_lacks_is_told_apart(online, endpoint):
    asked = replace(MODEL, id="owner/open", revision="known")
    assert hub_access.ask(asked, HfApi(endpoint=endpoint), None) == "reachable"
    assert hub_access.ask(replace(asked, revision="0" * 40), HfApi(endpoint=endpoint), None) == "no such revision"


def test_an_id_that_can_be_none_is_no_such_id(online, endpoint):
    assert hub_access.ask(replace(MODEL, id="a/b/c"), HfApi(endpoint=endpoint), None) == "no such id"


def test_without_a_network_the_cache_will_do_if_it_is_whole(online):
    api = HfApi(endpoint="http://127.0.0.1:9")  # the port that discards; nothing listens there
    assert hub_access.ask(MODEL, api, None) == "no network"
    fill(online, "model.safetensors")
    assert hub_access.ask(MODEL, api, None) == "cached"


def fill(home, *names):
    """Put a snapshot of MODEL into the cache, as huggingface_hub lays it out."""
    folder = home / "hub/models--owner--model"
    files.write_text(folder / "refs/main", "abc")
    for name in ("config.json", *names):
        files.write_text(folder / "snapshots/abc" / name, "{}")
    return folder / "snapshots/abc"


def test_a_model_without_its_weights_or_without_a_shard_is_not_cached(online):
    assert not hub_access.in_cache(MODEL)
    snapshot = fill(online)
    assert not hub_access.in_cache(MODEL)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    files.write_json(snapshot / "model.safetensors.index.json", index)
    files.write_text(snapshot / "model-1.safetensors", "")
    assert not hub_access.in_cache(MODEL)
    files.write_text(snapshot / "model-2.safetensors", "")
    assert hub_access.in_cache(MODEL)
    assert not hub_access.in_cache(replace(MODEL, revision="def"))


def test_a_data_set_is_cached_once_its_tables_are_made(online):
    assert not hub_access.in_cache(DATA)
    files.write_text(online / "datasets/owner___data/default/0.0.0/abc/data-train.arrow", "")
    assert hub_access.in_cache(DATA)


def test_offline_mode_asks_the_cache_alone(monkeypatch, tmp_path):
    home = set_cache(monkeypatch, tmp_path)
    assert constants.is_offline_mode()
    fill(home, "model.safetensors")
    assert hub_access.look_up([MODEL, DATA]) == [
        Access(MODEL, "cached", in_cache=True), Access(DATA, "not cached")
    ]  # fmt: skip


def test_disk_of_the_cache_counts_apart_only_where_it_is_another(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    set_cache(monkeypatch, tmp_path / "not there yet")
    assert hub_access.separate_disk() is None
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    set_cache(monkeypatch, other / "not there yet")
    assert hub_access.separate_disk() == pytest.approx(shutil.disk_usage(other).free / 2**30, abs=0.1)


def test_nothing_to_look_up_is_nothing_to_ask():
    assert hub_access.look_up([]) == []


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("no token", "set HF_TOKEN or run `hf auth login`"), ("wrong token", "/settings/tokens"),
        ("no access", "huggingface.co/owner/model"), ("no such id", "the hub has no such model"),
        ("no such revision", "no revision 'abc'"), ("no network", "connect to the network"),
        ("not cached", "`hf download owner/model`"), ("trouble", "try again later"),
    ],
)  # fmt: skip
def test_every_failure_has_its_own_line_that_names_the_setting_and_the_way_out(state, words):
    line = Access(replace(MODEL, revision="abc"), state).problem
    assert line.startswith("policy.model 'owner/model': ")
    assert words in line
    assert "\n" not in line


def test_every_failure_is_covered_and_the_data_set_has_its_own_page():
    assert len({Access(MODEL, state).problem for state in hub_access.PROBLEMS}) == len(hub_access.PROBLEMS) == 8
    assert "/datasets/owner/data" in Access(DATA, "no access").problem
    assert "hf download --repo-type dataset owner/data" in Access(DATA, "not cached").problem
    assert "no such data set" in Access(DATA, "no such id").problem
