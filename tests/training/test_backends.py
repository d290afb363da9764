"""Test the backends without a GPU.

Profiles are held against the published settings, and arguments against the pinned signatures.
"""

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from peft.tuners.lora import LoraLayer

from conftest import ROOT, randomise
from gpro_empathy import calibration, entry_point, files, params
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters, loading, vllm_engine
from gpro_empathy.policy import sampling as policy_sampling
from gpro_empathy.tools import profiles
from gpro_empathy.training import backends, grpo_trainer, rollouts, unsloth_engine

PINNED = json.loads((ROOT / "tests/pinned_signatures.json").read_text(encoding="utf-8"))
ADAPTER = Path("models/warm_start")


def profile(name, tmp_path):
    """Return params.yaml with a profile laid over it."""
    target = tmp_path / "params.yaml"
    target.write_bytes((ROOT / "params.yaml").read_bytes())
    profiles.apply(name, ROOT / "profiles", target)
    return params.load_all(target)


@pytest.fixture
def published(tmp_path):
    return profile("llama-3.1-8b", tmp_path)


def values(config):
    return grpo_trainer.trl_values(config.train_grpo, config.rewards, config.policy, 23, Path("work"))


# Profiles


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml")))
def test_profile_gives_settings_that_are_valid(name, tmp_path):
    config = profile(name, tmp_path)
    own = yaml.safe_load((ROOT / f"profiles/{name}.yaml").read_text(encoding="utf-8"))
    for section, settings in own.items():
        found = getattr(config, section).model_dump()
        assert {key: found[key] for key in settings} == settings


def test_published_training_reaches_the_trainer_with_every_setting(published):
    """Compare with Appendix A.1 of the report.

    The batch of 1, and the share of warm-up, are in the form that TRL takes.
    """
    asked = values(published)
    expected = {
        "learning_rate": 1e-3, "adam_beta1": 0.9, "adam_beta2": 0.99, "weight_decay": 0.1, "warmup_steps": 25,
        "lr_scheduler_type": "cosine", "optim": "paged_adamw_8bit", "logging_steps": 1, "num_generations": 3,
        "per_device_train_batch_size": 3, "gradient_accumulation_steps": 1, "max_steps": 250, "max_grad_norm": 0.1,
        "max_completion_length": 512, "use_vllm": True, "vllm_gpu_memory_utilization": 0.6, "bf16": True,
    }  # fmt: skip
    assert {name: asked[name] for name in expected} == expected


def test_published_model_is_loaded_with_every_setting(published):
    model = unsloth_engine.model_arguments(published.policy, published.train_grpo, Path("weights"))
    expected = {
        "max_seq_length": 1024, "load_in_4bit": True, "fast_inference": True, "gpu_memory_utilization": 0.6,
        "max_lora_rank": 32, "use_gradient_checkpointing": "unsloth", "dtype": torch.bfloat16, "model_name": "weights",
    }  # fmt: skip
    assert {name: model[name] for name in expected} == expected
    lora = unsloth_engine.lora_arguments(published.policy, 23)
    assert (lora["r"], lora["lora_alpha"]) == (32, 32)
    assert lora["target_modules"] == [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
    assert published.policy.model == "meta-llama/Llama-3.1-8B-Instruct"


def test_published_rewards_scorer_and_inference_are_set(published):
    assert published.rewards.weights == {"semantic_similarity": 1.0, "empathy": 1.0}
    assert (published.rewards.calibration, published.rewards.calibration_temperature) == ("batch", 0.6)
    assert published.rewards.similarity_model == "cross-encoder/stsb-roberta-large"
    scorer = {
        "encoder": "roberta-base", "lora_rank": 32, "lora_alpha": 32, "lora_dropout": 0.05, "huber_delta": 0.5,
        "learning_rate": 1e-3, "batch_size": 64, "epochs": 5, "max_tokens": 256,
    }  # fmt: skip
    assert {name: getattr(published.train_scorer, name) for name in scorer} == scorer
    found = published.rollout
    assert (found.temperature, found.top_p, found.max_completion_tokens) == (0.8, 0.95, 1024)
    assert published.policy.max_prompt_tokens == 512


def test_current_profile_differs_from_the_published_one_in_training_alone(published, tmp_path):
    current = profile("llama-3.1-8b-current", tmp_path)
    for section in ("policy", "prepare", "train_scorer", "warm_start", "rollout", "analyse_rewards"):
        assert getattr(current, section) == getattr(published, section), section
    assert current.train_grpo.learning_rate < published.train_grpo.learning_rate
    assert current.train_grpo.num_generations > published.train_grpo.num_generations
    assert "well_formed" in current.rewards.weights


# What TRL or Unsloth has in another form


@pytest.mark.parametrize(
    ("prompts", "generations", "asked", "effective"),
    [(1, 3, 1, 3), (1, 3, 3, 3), (4, 4, 8, 8), (3, 4, 6, 12), (6, 2, 3, 4), (8, 16, 16, 16)],
)
def test_unsloth_is_given_whole_groups_that_divide_the_step(published, prompts, generations, asked, effective):
    update = {"prompts_per_step": prompts, "num_generations": generations, "completions_per_forward": asked}
    config = published.train_grpo.model_copy(update=update)
    assert config.completions_in_effect(published.policy.backend) == effective
    plain = published.policy.model_copy(update={"backend": "transformers"})
    assert config.completions_in_effect(plain.backend) == asked


@pytest.mark.parametrize(
    ("backend", "in_forward", "trained", "fewer"),
    [
        ("unsloth", 4, 4, False), ("unsloth", 8, 4, True),
        ("transformers", 4, 4, True), ("transformers", 1, 4, False),
        ("transformers", 4, 2, False), ("transformers", 8, 2, True),
    ],
)  # fmt: skip
def test_fewer_responses_in_a_forward_pass_are_possible_down_to_a_group_or_one(
    published, backend, in_forward, trained, fewer
):
    update = {"prompts_per_step": 2, "num_generations": 4}
    update |= {"completions_per_forward": in_forward, "trained_generations": trained}
    assert published.train_grpo.model_copy(update=update).can_take_fewer(backend) is fewer


def test_settings_that_are_overridden_are_named(published):
    asked = values(published)
    args = types.SimpleNamespace(**asked)
    expected = ["completions_per_forward 1 -> 3", "warmup_ratio 0.1 -> warmup_steps 25"]
    assert grpo_trainer.overridden_settings(published.train_grpo, asked, args) == expected
    args.scale_rewards = False  # as Unsloth does for the loss dr_grpo
    assert grpo_trainer.overridden_settings(published.train_grpo, asked, args) == [
        *expected,
        "scale_rewards group -> False",
    ]


# Arguments against the pinned signatures


def test_signatures_are_of_the_locked_versions():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for name, version in PINNED["versions"].items():
        assert re.search(rf"^{name}==(\S+)", lock, re.MULTILINE)[1] == version


def unknown(arguments, *called):
    return set(arguments) - {name for each in called for name in PINNED["parameters"][each]}


def test_arguments_are_parameters_of_the_pinned_functions(published):
    config, how = published.policy, policy_sampling.Sampling(0.8, 0.95, 9, (2,), 0)
    model = unsloth_engine.model_arguments(config, published.train_grpo, Path("weights"))
    engine = vllm_engine.engine_arguments(config, published.rollout, Path("policy"), Path("weights"))
    # What is not its own, it hands on to vLLM's loader.
    assert not unknown(model, "FastLanguageModel.from_pretrained", "load_vllm")
    assert not unknown(unsloth_engine.lora_arguments(config, 23), "FastLlamaModel.get_peft_model")
    assert not unknown(engine, "LLM.__init__", "EngineArgs")
    assert not unknown(vllm_engine.sampling_arguments(how, 7), "SamplingParams")
    assert {"save_directory", "load_tensors"} <= set(PINNED["parameters"]["load_lora"])
    assert list(vllm_engine.RANKS) == PINNED["vllm_lora_ranks"]
    grpo_trainer.checked_config(values(published) | {"use_cpu": True, "bf16": False, "optim": "adamw_torch"})


def test_engine_of_a_rollout_holds_the_four_bit_base_with_room_for_adapter_and_response(published):
    config = published.policy.model_copy(update={"lora_rank": 24})
    rollout = published.rollout.model_copy(update={"vllm_gpu_memory_utilization": 0.5, "vllm_gpus": 2})
    found = vllm_engine.engine_arguments(config, rollout, Path("policy"), Path("weights"))
    expected = {
        "model": "weights", "tokenizer": "policy", "quantization": "bitsandbytes", "load_format": "bitsandbytes",
        "max_model_len": 1536, "enable_lora": True, "max_lora_rank": 32, "dtype": "bfloat16",
        "gpu_memory_utilization": 0.5, "tensor_parallel_size": 2,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    with pytest.raises(UserError, match=r"\b513\b.*\b512\b.*policy\.lora_rank"):
        vllm_engine.engine_arguments(config.model_copy(update={"lora_rank": 513}), rollout, Path(), Path())


def test_engine_computes_in_16_bits_as_its_lora_kernels_do(published):
    config = published.policy.model_copy(update={"dtype": "float32"})
    assert vllm_engine.engine_arguments(config, published.rollout, Path("p"), Path("w"))["dtype"] == "bfloat16"


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.1-8b-current", "llama-3.1-70b"])
def test_rollouts_of_a_profile_are_as_long_as_the_published_ones(name, tmp_path):
    config = profile(name, tmp_path)
    assert config.rollout.max_completion_tokens == 1024
    assert config.policy.max_completion_tokens == 512


def test_vllm_beside_trl_makes_room_for_a_prompt_and_a_response_alone(published):
    plain = published.model_copy(update={"policy": published.policy.model_copy(update={"backend": "transformers"})})
    assert values(plain)["vllm_max_model_length"] == 1024
    assert "vllm_max_model_length" not in values(published)  # Unsloth's vLLM has max_seq_length


def test_engine_that_does_not_start_is_one_line_of_the_stage_that_starts_it(
    published, policy_folder, monkeypatch, tmp_path
):
    """Stand in for the engines, and raise as they do.

    The code that raises is theirs by its module's name.
    """
    files.write_text(tmp_path / "params.yaml", yaml.safe_dump(published.model_dump()))
    monkeypatch.chdir(tmp_path)
    raises = "def {0}(**arguments):\n    raise RuntimeError('Engine core initialization failed')\n"
    vllm, unsloth = types.ModuleType("vllm"), types.ModuleType("unsloth")
    exec(raises.format("LLM"), vllm.__dict__)
    exec(raises.format("from_pretrained"), unsloth.__dict__)
    unsloth.FastLanguageModel = types.SimpleNamespace(from_pretrained=unsloth.from_pretrained)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "unsloth", unsloth)
    starts = {
        "rollout": lambda: vllm_engine.load(published.policy, published.rollout, policy_folder),
        "train_grpo": lambda: unsloth_engine.load(published.policy, published.train_grpo, policy_folder, 23),
    }
    for (stage, start), engine in zip(starts.items(), ("vllm", "unsloth"), strict=True):
        with pytest.raises(SystemExit) as caught:
            entry_point.run_stage(start, stage)
        line = str(caught.value)
        assert line.startswith(f"error: {engine} failed (Engine core initialization failed); close other programs")
        assert f"{stage}.vllm_gpu_memory_utilization (0.6)" in line
        assert "\n" not in line


def test_rollouts_by_vllm_where_it_is_not_installed_are_one_line(published, policy_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"rollout\.engine is vllm.*rollout\.engine: transformers"):
        vllm_engine.load(published.policy, published.rollout, policy_folder)


# Rollouts by vLLM, which stands in as what the pinned signatures say of it


@pytest.fixture
def vllm(monkeypatch):
    """Put a stand-in where vLLM would be imported from; its records keep what they are made of."""

    def record(name):
        def make(**arguments):
            assert not unknown(arguments, name)
            return types.SimpleNamespace(**arguments)

        return make

    request = types.SimpleNamespace(LoRARequest=record("LoRARequest"))
    monkeypatch.setitem(sys.modules, "vllm", types.SimpleNamespace(SamplingParams=record("SamplingParams")))
    monkeypatch.setitem(sys.modules, "vllm.lora", types.SimpleNamespace(request=request))
    monkeypatch.setitem(sys.modules, "vllm.lora.request", request)


class Engine:
    """Answers with the seed's last digits, and the end token where the seed is even."""

    def __init__(self, eos):
        self.eos, self.calls = eos, []

    def generate(self, prompts, sampling_params, **others):
        assert not unknown(others, "LLM.generate")
        self.calls.append((prompts, sampling_params, others["lora_request"]))
        ids = [[100 + each.seed % 50] * 7 + [101 if each.seed % 2 else self.eos] for each in sampling_params]
        return [types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=tuple(one))]) for one in ids]


def test_rollout_by_vllm_gives_the_same_rows_with_the_adapter_as_a_request(vllm, settings, tokenizer):
    turns = [Turn(f"c{i}", i, text, (), None, None, None) for i, text in enumerate(["My dog died.", "he left"])]
    config = settings.rollout.model_copy(
        update={"engine": "vllm", "samples_per_prompt": 3, "max_completion_tokens": 8, "batch_size": 1}
    )
    engine = Engine(tokenizer.eos_token_id)
    folders = {("warm_start", None): Path("warm"), ("tuned", 23): Path("tuned")}
    found = rollouts.sample_policies(rollouts.VllmPolicies(engine, config), tokenizer, folders, turns, config)
    assert [(s.model, s.seed, s.turn.key, s.sample) for s in found] == [
        (*key, turn.key, k)
        for key, n in ((("base", None), 1), *((f, 3) for f in folders))
        for turn in turns
        for k in range(n)
    ]
    requests = [request and (request.lora_name, request.lora_int_id, request.lora_path) for *_, request in engine.calls]
    assert requests == [None, ("warm_start", 1, "warm"), ("tuned-23", 2, "tuned")]
    seeds = [[each.seed for each in sampling] for _, sampling, _ in engine.calls]
    assert seeds[1] == seeds[2] == np.random.default_rng(config.seed).integers(2**31, size=6).tolist()
    assert len(set(seeds[1])) == 6
    assert seeds[0] == seeds[1][::3]  # the base's one response to a prompt is that of the first number
    warm = [sample for sample in found if sample.model == "warm_start"]
    assert [sample.finish_reason for sample in warm] == ["length" if seed % 2 else "stop" for seed in seeds[1]]
    prompts = [prompt["prompt_token_ids"] for prompt in engine.calls[1][0]]
    assert [sample.prompt_tokens for sample in warm] == [len(ids) for ids in prompts]
    assert prompts[0] == prompts[2] != prompts[3]


def test_seeds_of_vllm_follow_the_generator(vllm):
    how = policy_sampling.Sampling(1.0, 1.0, 8, (2,), 0)
    sampler = vllm_engine.VllmSampler(Engine(2).generate)
    found = [sampler.sample([[5, 6]], 2, how, np.random.default_rng(s)) for s in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_server_samples_with_the_weights_of_the_moment_and_is_brought_every_prompt_once():
    """Stand in for TRL's side of the server, which takes a prompt once for each response."""
    calls = []

    def generate(prompts, images, num_generations):
        calls.append((prompts, images, num_generations))
        return prompts, [[*ids, number] for number, ids in enumerate(prompts)], None, None

    generation = types.SimpleNamespace(sync_weights=lambda: calls.append("weights sent"), generate=generate)
    sampler = backends.ServerSampler(types.SimpleNamespace(vllm_generation=generation))
    how = policy_sampling.Sampling(1.0, 1.0, 8, (2,), 0)
    responses = sampler.sample([[5, 6], [7]], 2, how, np.random.default_rng(0))
    assert calls == ["weights sent", ([[5, 6], [5, 6], [7], [7]], None, 2)]
    assert responses == [[5, 6, 0], [5, 6, 1], [7, 2], [7, 3]]


def test_other_processes_bring_the_server_no_prompt(monkeypatch):
    monkeypatch.setattr("gpro_empathy.distributed.is_main", lambda: False)
    monkeypatch.setattr("gpro_empathy.distributed.from_main", lambda make: [[9]])  # what the main process got
    brought = []
    generation = types.SimpleNamespace(
        sync_weights=lambda: None, generate=lambda prompts, *_, **__: brought.append(prompts) or (None, [], None, None)
    )
    sampler = backends.ServerSampler(types.SimpleNamespace(vllm_generation=generation))
    assert sampler.sample([[5]], 1, None, np.random.default_rng(0)) == [[9]]
    assert brought == [[]]


def test_unsloth_samples_by_its_vllm_with_the_adapter_of_the_moment_or_by_the_model_itself():
    plain = types.SimpleNamespace()
    assert isinstance(backends.Unsloth.sampler(plain), unsloth_engine.UnslothSampler)
    loaded = []
    beside = types.SimpleNamespace(
        vllm_engine=object(), fast_generate=None, load_lora=lambda folder, load_tensors: loaded.append(load_tensors)
    )
    assert isinstance(backends.Unsloth.sampler(beside), vllm_engine.VllmSampler)
    assert loaded == [True]


# Starting policies


@pytest.mark.parametrize("backend", sorted(backends.KINDS))
def test_warm_start_is_what_both_backends_start_from(
    backend, lora, tiny_policy, settings, policy_folder, tmp_path, monkeypatch
):
    adapters.save_with_card(lora, tmp_path / "warm", "")
    config = tiny_policy.model_copy(update={"backend": backend})
    # Unsloth loads its model on a GPU alone; what fills it with the adapter is run on the same
    # model of transformers.
    monkeypatch.setattr(
        unsloth_engine,
        "load",
        lambda *_: loading.add_lora(loading.load_base(tiny_policy, policy_folder), tiny_policy, None),
    )
    train = settings.train_grpo.model_copy(update={"kl_beta": 0.0, "vllm_mode": "colocate"})
    engine = backends.KINDS[backend](config, train, policy_folder, tmp_path / "warm")
    expected = {name: p for name, p in lora.named_parameters() if "lora_" in name}
    model = engine.start(23)
    for _ in range(2):
        found = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        randomise(model, seed=9)  # as if it had been trained
        model = engine.start(24)


@pytest.mark.parametrize("backend", sorted(backends.KINDS))
def test_new_matrices_depend_on_the_seed_alone(backend, tiny_policy, settings, policy_folder, monkeypatch):
    config = tiny_policy.model_copy(update={"backend": backend})
    monkeypatch.setattr(
        unsloth_engine,
        "load",
        lambda *_: loading.add_lora(loading.load_base(tiny_policy, policy_folder), tiny_policy, None),
    )
    train = settings.train_grpo.model_copy(update={"vllm_mode": "colocate"})
    engine = backends.KINDS[backend](config, train, policy_folder, None)

    def matrices(seed):
        layers = [m for m in engine.start(seed).modules() if isinstance(m, LoraLayer)]
        assert all(not layer.lora_B["default"].weight.any() for layer in layers)
        return torch.cat([layer.lora_A["default"].weight.detach().flatten().clone() for layer in layers])

    first, other, again = matrices(23), matrices(24), matrices(23)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_vllm_beside_trl_reads_the_revision_that_was_fetched(tiny_policy, settings, policy_folder, monkeypatch):
    monkeypatch.setattr(vllm_engine, "weights", lambda folder: Path("hub/snapshots/abc"))
    train = settings.train_grpo.model_copy(update={"vllm_mode": "colocate"})
    model = backends.Transformers(tiny_policy, train, policy_folder, None).start(23)
    assert model.name_or_path == "hub/snapshots/abc"


def test_refuses_an_adapter_of_another_rank(lora, base, tiny_policy, policy_folder, tmp_path):
    adapters.save_with_card(lora, tmp_path / "warm", "")
    wider = tiny_policy.model_copy(update={"lora_rank": 8})
    model = loading.add_lora(loading.load_base(tiny_policy, policy_folder), wider, None)
    with pytest.raises(UserError, match=r"adapter_config\.json: r\b.*\b4\b.*\b8\b.*`dvc repro warm_start`"):
        unsloth_engine.restart(model, tmp_path / "warm", 23)


def test_refuses_a_tokenizer_that_unsloth_cannot_tell_padding_by(published, tokenizer):
    unsloth_engine.check_padding(tokenizer, published.policy)
    end = types.SimpleNamespace(pad_token_id=7, eos_token_id=7, eos_token="<end>")
    with pytest.raises(UserError, match=r"padding token.*'<end>'.*policy\.backend"):
        unsloth_engine.check_padding(end, published.policy)


def test_unsloth_is_imported_before_what_it_patches(published, tmp_path):
    """End the stage as a stand-in for Unsloth is imported.

    The stand-in says what was imported before it.
    """
    files.write_text(tmp_path / "params.yaml", yaml.safe_dump(published.model_dump()))
    patched = ("trl", "transformers", "peft")
    stand_in = f"import sys\nprint([n for n in {patched} if n in sys.modules])\nsys.exit(0)\n"
    files.write_text(tmp_path / "unsloth.py", stand_in)
    code = (
        "import torch\ntorch.cuda.is_available = lambda: True\n"
        "from gpro_empathy.stages import train_grpo\ntrain_grpo.main()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(tmp_path)])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_unsloth_without_vllm_samples_with_the_model_itself(published):
    config = published.train_grpo.model_copy(update={"vllm_mode": "none"})
    model = unsloth_engine.model_arguments(published.policy, config, Path("weights"))
    assert model["fast_inference"] is False
    assert "max_num_seqs" not in model  # vLLM's alone
    assert unsloth_engine.cut([[5, 6, 2, 0], [7, 8, 9, 2], [2, 2, 2, 2], [1, 1, 1, 1]], (2,)) == [
        [5, 6, 2], [7, 8, 9, 2], [2], [1, 1, 1, 1]
    ]  # fmt: skip


def test_vllm_makes_room_for_a_step_and_for_the_reference_statistics(published):
    config = published.train_grpo
    assert unsloth_engine.responses_at_once(config) == calibration.REFERENCE_RESPONSES
    large = config.model_copy(update={"prompts_per_step": 10, "num_generations": 8})
    assert unsloth_engine.model_arguments(published.policy, large, Path("weights"))["max_num_seqs"] == 80


def test_refuses_unsloth_without_a_gpu_in_one_line(published, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"policy\.backend.*unsloth.*CUDA.*policy\.backend: transformers"):
        unsloth_engine.prepare(published.policy)
    assert unsloth_engine.prepare(published.policy.model_copy(update={"backend": "transformers"})) is None


def test_weights_are_those_of_the_folder_or_of_the_hub(policy_folder, tmp_path):
    assert vllm_engine.weights(policy_folder) == policy_folder
    source = {"model": "nobody/nothing-of-this-name", "revision": None, "name": "nobody/nothing-of-this-name"}
    (tmp_path / "source.json").write_text(json.dumps(source))
    with pytest.raises(UserError, match=r"policy\.model 'nobody/nothing-of-this-name'.*HF_TOKEN") as caught:
        vllm_engine.weights(tmp_path)
    assert "\n" not in str(caught.value)
