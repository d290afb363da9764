"""Test the training stage in two processes against the same stage in one.

Both take equal steps, and leave one set of outputs.
"""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from gpro_empathy import distributed, files
from gpro_empathy.data import dialogue
from gpro_empathy.labels import LABELS, MARKS

ROOT = Path(__file__).parents[1]
PATIENCE = 1800.0  # seconds: two processes that share a busy core
UTTERANCES = [
    "My dog died last night and I cannot sleep.", "the rent went up again", "I lost it all in the flood",
    "They closed the only hospital we had", "he never called back", "My gran lives alone near a canal",
]  # fmt: skip
# Sums over the step are taken in another order, and prompts are padded to the longest of fewer. The
# numbers are those of a first step of 1e-2, 100 times the tolerance.
TOLERANCE = 1e-4


def test_process_that_nothing_launched_is_the_only_one(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (distributed.count(), distributed.index(), distributed.is_main(), distributed.launched()) == (
        1,
        0,
        True,
        False,
    )
    assert distributed.gather({"a": 1}) == [{"a": 1}]
    assert distributed.from_main(lambda: 5) == 5
    distributed.start()
    distributed.end()


def test_launched_process_knows_its_place(monkeypatch, capsys):
    for name, value in (("RANK", "5"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "8")):
        monkeypatch.setenv(name, value)
    assert (distributed.count(), distributed.index(), distributed.is_main(), distributed.launched()) == (
        8,
        5,
        False,
        True,
    )
    distributed.say("unheard")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("engine", ["FSDP", "DEEPSPEED"])
def test_sharded_weights_are_placed_by_the_engine(monkeypatch, engine):
    assert distributed.device_map() in ({"": 0}, {"": "cpu"})
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "true")
    assert distributed.device_map() is None
    assert distributed.device_map(whole=True) in ({"": 0}, {"": "cpu"})


@pytest.fixture
def second_process(monkeypatch):
    """Be a machine's second process under accelerate/fsdp.yaml, as far as transformers asks."""
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)


def sizes(policy_folder):
    """Load a model; return the sum of its weights' sizes."""
    from transformers import AutoModelForCausalLM

    return sum(
        float(weight.detach().abs().sum())
        for weight in AutoModelForCausalLM.from_pretrained(policy_folder).parameters()
    )


def test_model_that_is_not_sharded_is_loaded_whole(second_process, policy_folder):
    assert sizes(policy_folder) == 0.0  # left to the first process, which sends shards
    with distributed.whole_models():
        assert sizes(policy_folder) > 1.0
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "true"
    assert sizes(policy_folder) == 0.0


def test_whole_models_leave_no_trace_where_nothing_is_sharded(monkeypatch):
    monkeypatch.delenv("FSDP_CPU_RAM_EFFICIENT_LOADING", raising=False)
    with distributed.whole_models():
        pass
    assert "FSDP_CPU_RAM_EFFICIENT_LOADING" not in os.environ


def test_stage_loads_rewards_whole_and_the_policy_by_the_engine(
    second_process, settings, tiny_policy, policy_folder, tmp_path, monkeypatch
):
    from gpro_empathy import rewards
    from gpro_empathy.stages import train_grpo
    from gpro_empathy.training import backends

    (tmp_path / "models").mkdir()
    (tmp_path / "models/policy").symlink_to(policy_folder)
    values = settings.model_copy(update={"policy": tiny_policy}).model_dump()
    files.write_text(tmp_path / "params.yaml", yaml.safe_dump(values))
    for split in ("train", "validation"):
        dialogue.write_turns(tmp_path / f"data/prepared/prompts_{split}.jsonl", [])
    found = []

    class Backend:
        def __init__(self, *arguments):
            found.append(sizes(policy_folder))
            raise files.UserError("far enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rewards, "load", lambda *arguments: found.append(sizes(policy_folder)))
    monkeypatch.setitem(backends.KINDS, "transformers", Backend)
    with pytest.raises(files.UserError, match="far enough"):
        train_grpo.main()
    reward, policy = found
    assert reward > 1.0
    assert policy == 0.0


def untrained_approach():
    from gpro_empathy.scorer import approach
    from gpro_empathy.scorer.lexical_features import Features, Linear

    features = Features.learn(UTTERANCES * 2)
    nothing = Linear(np.zeros((2, features.of([""]).shape[1])), np.zeros(2))
    usual = {name: np.zeros(2) for name in approach.USUAL}
    return approach.ApproachModel(features, ("first", "second"), nothing, nothing, np.ones(2, int), usual)


@pytest.fixture(scope="module")
def folders(settings, tiny_policy, policy_folder, tmp_path_factory):
    """Run the stage of two steps in one process, and in two by its launcher; return both folders.

    With the KL divergence, down-sampling and accumulation, which all depend on what a process holds
    of the step.
    """
    import torch

    from gpro_empathy.scorer import approach, empathy_scorer

    torch.manual_seed(0)
    here = tmp_path_factory.mktemp("runs")
    encoder = settings.train_scorer.model_copy(update={"encoder": "random"})
    for name, of in (("scorer", LABELS), ("reader", MARKS)):
        built = empathy_scorer.build(encoder, of)
        empathy_scorer.save(built, here / name, {"encoder": "random", "revision": None, "max_tokens": 32})
    approach.save(untrained_approach(), here / "approach", "Made up.\n")
    changes = {
        "steps": 2, "prompts_per_step": 4, "num_generations": 3, "trained_generations": 2, "advantage_on": "answer",
        "completions_per_forward": 3,
        "save_steps": 1, "learning_rate": 1e-2, "lr_scheduler": "linear", "kl_beta": 0.05, "loss_type": "dapo",
        "scale_rewards": "group", "temperature": 1.0, "top_p": 1.0, "seeds": [23],
    }  # fmt: skip
    turns = [dialogue.Turn("1", i, text, (), None, None, None) for i, text in enumerate(UTTERANCES, start=1)]
    found = {}
    for launcher in ("none", "two_cpu"):
        folder = here / launcher
        (folder / "models").mkdir(parents=True)
        (folder / "models/policy").symlink_to(policy_folder)
        for name in ("scorer", "reader", "approach"):
            (folder / "models" / name).symlink_to(here / name)
        (folder / "accelerate").symlink_to(ROOT / "accelerate")
        grpo = settings.train_grpo.model_copy(update=changes | {"launcher": launcher})
        rewards = settings.rewards.model_copy(update={"calibration": "batch"})
        values = settings.model_copy(
            update={"policy": tiny_policy, "train_grpo": grpo, "rewards": rewards}
        ).model_dump()
        files.write_text(folder / "params.yaml", yaml.safe_dump(values))
        for split in ("train", "validation"):
            dialogue.write_turns(folder / f"data/prepared/prompts_{split}.jsonl", turns)
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "gpro_empathy.stages.train_grpo"],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        found[launcher] = (folder, done.stdout)
    return found


def rows(folder, name):
    with (folder / "reports/training" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_two_processes_take_the_same_steps_as_one(folders):
    (one, _), (two, _) = folders.values()
    for mine, other in zip(rows(one, "log.csv"), rows(two, "log.csv"), strict=True):
        for column, value in mine.items():
            assert float(other[column]) == pytest.approx(float(value), abs=TOLERANCE), column
    assert (one / "reports/training/samples.jsonl").read_text() == (two / "reports/training/samples.jsonl").read_text()


@pytest.mark.slow
def test_two_processes_score_the_same_responses_as_one(folders):
    (one, _), (two, _) = folders.values()
    for mine, other in zip(rows(one, "groups.csv"), rows(two, "groups.csv"), strict=True):
        assert {name: mine[name] for name in ("step", "group", "sample")} == {
            name: other[name] for name in ("step", "group", "sample")
        }
        assert float(other["empathy_raw"]) == pytest.approx(float(mine["empathy_raw"]), abs=TOLERANCE)


@pytest.mark.slow
def test_two_processes_train_the_same_adapter_as_one(folders):
    from safetensors.numpy import load_file

    weights = [load_file(f / "models/tuned/seed-23/adapter_model.safetensors") for f, _ in folders.values()]
    assert weights[0].keys() == weights[1].keys()
    moved = max(np.abs(value).max() for name, value in weights[0].items() if "lora_B" in name)
    assert moved > 5e-3  # matrices B start at zero
    # By norm, not matrix by matrix: Adam divides by the gradient's size, so that where it is all
    # but zero rounding counts.
    one, two = (np.concatenate([adapter[name].ravel() for name in sorted(adapter)]) for adapter in weights)
    assert np.linalg.norm(two - one) < 1e-3 * np.linalg.norm(one)


@pytest.mark.slow
def test_two_processes_write_one_set_of_outputs_and_print_each_line_once(folders):
    (one, _), (two, printed) = folders.values()
    names = [
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.parts[-2] != "accelerate")
        for folder in (one, two)
    ]  # fmt: skip
    assert names[0] == names[1]
    assert not (two / "work/train_grpo").exists()
    settings = files.read_json(two / "reports/training/settings.json")
    assert (settings["processes"], settings["accumulation_steps"], settings["completions_per_step"]) == (2, 2, 12)
    for line in ("GRPO step 1/2", "GRPO step 2/2", "GRPO: reference statistics"):
        assert printed.count(line) == 1
    assert "accelerate launch --config_file accelerate/two_cpu.yaml -m gpro_empathy.stages.train_grpo" in printed
