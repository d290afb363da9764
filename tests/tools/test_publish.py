import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from safetensors.numpy import load_file, save_file

from gpro_empathy import files, response_format
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters
from gpro_empathy.tools import policy_card, publish
from run_folder import write_run

ROOT = Path(__file__).parents[2]
DATA, ANALYSIS = (files.read_json(ROOT / "reports" / name) for name in ("data.json", "reward_analysis.json"))
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
# The graph of a run in short: what each stage reads, its parameters, and what it writes.
GRAPH = {
    "prepare": ([], ["policy", "prepare"], ["reports/data.json"]),
    "train_grpo": (["src/train.py"], ["policy", "rewards", "train_grpo"], ["models/tuned", "reports/training"]),
    "rollout": (["models/tuned"], ["policy", "rewards", "rollout"], []),
    "analyse_rewards": ([], ["analyse_rewards"], ["reports/reward_analysis.json"]),
}


ask_dvc = publish.dvc_status


def dvc(*arguments):
    subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, capture_output=True)


def record_run(root):
    """Let DVC record what is on disk as the results of a run."""
    stages = {
        name: {"cmd": "true", "deps": deps, "params": sections, "outs": [{path: {"cache": False}} for path in outs]}
        for name, (deps, sections, outs) in GRAPH.items()
    }
    files.write_text(root / "src/train.py", "pass")
    files.write_text(root / "dvc.yaml", yaml.safe_dump({"stages": stages}))
    dvc("init", "--no-scm")
    dvc("commit", "--force")


def make_run(root, config, data=DATA):
    write_run(root, config, seeds=[23])
    name = config.policy.model
    source = {"model": name if "/" in name else None, "revision": config.policy.revision, "name": name}
    files.write_json(root / "models/policy/source.json", source)
    adapter = root / "models/tuned/seed-23"
    files.write_json(adapter / "adapter_config.json", {"base_model_name_or_path": None, "peft_type": "LORA", "r": 32})
    save_file({"x.q_proj.lora_A.weight": np.ones((32, 4), np.float32)}, adapter / adapters.WEIGHTS)
    files.write_json(root / "reports/data.json", data)
    files.write_json(root / "reports/reward_analysis.json", ANALYSIS)


@pytest.fixture
def run(tmp_path, settings, monkeypatch):
    rollout = settings.rollout.model_copy(update={"max_completion_tokens": 200})
    make_run(tmp_path, settings.model_copy(update={"rollout": rollout}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # Tests of the results' origin ask DVC itself, which takes seconds.
    monkeypatch.setattr(publish, "dvc_status", dict)
    return tmp_path


@pytest.fixture
def recorded(run, monkeypatch):
    """Return the run as DVC records it, and let DVC say what has changed since."""
    monkeypatch.setattr(publish, "dvc_status", ask_dvc)
    record_run(run)
    return run


@pytest.fixture
def llama(run, settings):
    policy = settings.policy.model_copy(update={"model": LLAMA, "revision": "abc"})
    prepare = settings.prepare.model_copy(update={"source": "hub", "split": "by_turn"})
    make_run(
        run, settings.model_copy(update={"policy": policy, "prepare": prepare}),
        DATA | {"source": "hub", "split": "by_turn"},
    )  # fmt: skip
    return run


def refusal(repo="jane/empathy", **options):
    with pytest.raises(UserError) as caught:
        publish.run(repo, None, push=False, **options)
    assert not publish.FOLDER.exists()
    return str(caught.value)


# The dry run


def test_dry_run_writes_and_shows_the_folder_and_pushes_nothing(run, capsys):
    publish.run("jane/empathy", None, push=False)
    folder = run / "tmp/publish"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "adapter_config.json", adapters.WEIGHTS]
    adapter = files.read_json(folder / "adapter_config.json")
    assert adapter == {
        "base_model_name_or_path": policy_card.HUB_SMOLLM2, "revision": None, "peft_type": "LORA", "r": 32
    }  # fmt: skip
    assert load_file(folder / adapters.WEIGHTS)["x.q_proj.lora_A.weight"].sum() == 128
    out = capsys.readouterr().out
    assert (folder / "README.md").read_text() in out
    assert f"  {adapters.WEIGHTS:<28} {(folder / adapters.WEIGHTS).stat().st_size:>12,} bytes\n" in out
    assert out.endswith(
        "`make publish REPO=jane/empathy PUSH=1` pushes tmp/publish to https://huggingface.co/jane/empathy\n"
    )


def test_card_has_the_metadata_of_the_hub(run):
    publish.run("jane/empathy", None, push=False)
    card = ModelCard.load("tmp/publish/README.md")
    assert card.data.to_dict() == {
        "base_model": policy_card.HUB_SMOLLM2, "base_model_relation": "adapter", "language": "en", "library_name": "peft",
        "license": "apache-2.0", "pipeline_tag": "text-generation", "tags": ["lora", "grpo", "empathy", "conversational"],
    }  # fmt: skip


def test_card_quotes_every_metric_with_its_interval(run):
    publish.run("jane/empathy", None, push=False)
    text = Path("tmp/publish/README.md").read_text()
    found = ANALYSIS["metrics"]["empathy_raw"]
    means = found["means"]
    start = means[ANALYSIS["starting_policy"]]
    # No sign stands before a zero.
    interval = f"{found['low']:.2f}, {found['high']:.2f}".replace("-0.00", "0.00")
    p = "< 0.001" if found["p_holm"] < 0.001 else f"{found['p_holm']:.3f}"
    assert (
        f"| empathy, reward's scorer (label units) | {start:.2f} | {means['tuned']:.2f} | {found['difference']:+.2f} "
        f"[{interval}] | {p} | {found['by_seed']['23']:+.2f} |\n"
    ) in text
    assert text.count("\n| ") == 1 + len(ANALYSIS["metric_order"])
    assert f"On {ANALYSIS['prompts']} held-out prompts of {ANALYSIS['conversations']} conversations." in text


def test_card_says_data_settings_limits_and_licence(run):
    publish.run("jane/empathy", None, push=False)
    text = Path("tmp/publish/README.md").read_text()
    train = DATA["splits"]["train"]
    for words in (
        "synthetic turns", f"train {train['turns']} turns in {train['conversations']} conversations", "LoRA rank 32", "An automatic score is not empathy",
        "not for use with people in distress without the oversight", "Apache-2.0, as the base.", "training seed 23",
        repr(response_format.SYSTEM_PROMPT), "rounded to Q4_1", "max_new_tokens=200,",
    ):  # fmt: skip
        assert words in text
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")


def test_llama_brings_its_name_notice_and_licence(llama, capsys):
    assert refusal("jane/empathy") == (
        f"REPO=jane/empathy: the licence of {LLAMA} wants a name that begins with Llama: REPO=jane/Llama-empathy"
    )
    publish.run("jane/Llama-empathy", None, push=False)
    card = ModelCard.load("tmp/publish/README.md")
    assert (card.data.license, card.data.base_model) == ("llama3.1", LLAMA)
    assert card.data.datasets == "miladsolo/wassa-conv-turn-empathy"
    assert "Built with Llama" in card.text
    assert "Turns of one conversation stand on both sides" in card.text
    notice = "Llama 3.1 is licensed under the Llama 3.1 Community License, Copyright © Meta Platforms, Inc. All Rights Reserved.\n"
    assert Path("tmp/publish/NOTICE").read_text(encoding="utf-8") == notice
    assert files.read_json(Path("tmp/publish/adapter_config.json"))["revision"] == "abc"
    assert f"will be fetched from {LLAMA}; it could not be now" in capsys.readouterr().out


def test_llama_is_not_pushed_without_its_licence(llama, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    with pytest.raises(UserError, match=r"LICENSE\b.*\bmeta-llama/"):
        publish.run("jane/Llama-empathy", None, push=True)


# What is refused


@pytest.mark.parametrize("repo", ["empathy", "a/b/c", "jane/emp athy", "jane/-x", "jane/a--b", ""])
def test_refuses_a_malformed_name(run, repo):
    assert refusal(repo).startswith(f"REPO={repo}: ")


def test_refuses_to_push_without_a_token(run):
    with pytest.raises(UserError, match=r"HF_TOKEN.*`hf auth login`"):
        publish.run("jane/empathy", None, push=True)


def test_refuses_where_there_is_no_adapter(run):
    (run / "models/tuned/seed-23" / adapters.WEIGHTS).unlink()
    assert (
        refusal()
        == f"models/tuned/seed-23/{adapters.WEIGHTS}: no such file; run `make reproduce`, which trains the policy"
    )


def test_refuses_the_random_model(run, settings):
    make_run(run, settings.model_copy(update={"policy": settings.policy.model_copy(update={"model": "random"})}))
    assert "its base is random, which is not on the hub" in refusal()


def test_results_of_the_recorded_run_are_published_although_the_code_has_changed(recorded):
    (recorded / "src/train.py").write_text("changed")
    assert publish.dvc_status() == {"train_grpo": [{"changed deps": {"src/train.py": "modified"}}]}
    publish.run("jane/empathy", None, push=False)
    assert (recorded / "tmp/publish/README.md").is_file()


def test_refuses_results_of_another_run(recorded):
    path = recorded / "reports/reward_analysis.json"
    files.write_json(path, ANALYSIS | {"changed": 1})
    line = "modified since analyse_rewards ran, as `dvc status` says; run `make reproduce`"
    assert refusal() == f"reports/reward_analysis.json: {line}"


def test_refuses_reports_on_another_adapter_than_the_last_training_wrote(recorded):
    path = recorded / "models/tuned/seed-23/adapter_config.json"
    files.write_json(path, files.read_json(path) | {"changed": 1})
    assert refusal().startswith("models/tuned: modified since train_grpo ran")
    dvc("commit", "--force", "train_grpo")
    assert refusal().startswith("models/tuned: modified since rollout ran")


def test_refuses_settings_that_have_changed_since(recorded):
    path = recorded / "params.yaml"
    values = yaml.safe_load(path.read_text())
    values["train_grpo"]["steps"] += 1
    path.write_text(yaml.safe_dump(values))
    assert refusal() == (
        "params.yaml: train_grpo has changed since train_grpo ran; run `make reproduce`, or undo the change with "
        "`git checkout params.yaml`"
    )


def test_refuses_a_run_that_is_not_recorded_or_not_known_to_dvc(recorded):
    (recorded / "dvc.lock").unlink()
    assert refusal() == "dvc.lock: no run of prepare is recorded; run `make reproduce`"
    (recorded / "dvc.yaml").unlink()
    assert re.match(r"`dvc status` cannot tell of which run the results are \(.*\); run `make reproduce`", refusal())


# The push, by the real client to a hub on this machine


class Hub(BaseHTTPRequestHandler):
    """Be enough of the hub for one upload.

    It creates a repository, takes every file inline, and keeps the commit.
    """

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.calls.append((self.path, self.headers.get("Authorization"), body))
        status, answer = 200, {}
        if self.path == "/api/repos/create":
            status = self.server.create_status
            answer = {"url": f"{self.server.url}/jane/empathy", "error": "not yours"}
        elif self.path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            answer = {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
        elif self.path.endswith("/commit/main"):
            answer = {"commitUrl": f"{self.server.url}/jane/empathy/commit/1", "commitOid": "1"}
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url, server.calls, server.create_status = f"http://127.0.0.1:{server.server_port}", [], 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def push(recorded, hub):
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_x", "PYTHONPATH": str(ROOT / "src")}
    environment.pop("HF_HUB_OFFLINE")
    line = [sys.executable, "-m", "gpro_empathy", "publish", "jane/empathy", "--push"]
    return subprocess.run(line, cwd=recorded, env=environment, capture_output=True, text=True, check=False)


def test_push_creates_the_repository_and_commits_just_the_folder(recorded, hub):
    done = push(recorded, hub)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"pushed: {hub.url}/jane/empathy/commit/1\n")
    paths = [path for path, _, _ in hub.calls]
    assert paths[:2] == ["/api/repos/create", "/api/validate-yaml"]
    path, authorization, body = hub.calls[-1]
    assert (path, authorization) == ("/api/models/jane/empathy/commit/main", "Bearer hf_x")
    rows = [json.loads(line) for line in body.splitlines()]
    sent = {row["value"]["path"]: base64.b64decode(row["value"]["content"]) for row in rows if row["key"] == "file"}
    assert sent == {path.name: path.read_bytes() for path in (recorded / "tmp/publish").iterdir()}


def test_hub_that_refuses_is_one_line(recorded, hub):
    hub.create_status = 403
    done = push(recorded, hub)
    assert done.returncode == 1
    assert done.stderr.startswith("error: REPO=jane/empathy: the hub did not take it (")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
