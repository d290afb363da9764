import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import gpu_step
import rehearse
from gpro_empathy import files, machine
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters, loading
from gpro_empathy.report import gpu_table
from gpro_empathy.response_format import messages
from gpro_empathy.tools import gpu_memory, profiles
from rehearsal import lengths, machine_check, models, plan, results, tasks

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def values():
    return profiles.values("llama-3.1-8b", ROOT / "profiles", ROOT / "params.yaml")


@pytest.fixture(scope="module")
def tokenizer():
    return models.full_tokenizer(3000)


# Settings


def test_full_size_keeps_the_profile_but_for_the_number_of_steps_and_the_random_models(values, tmp_path):
    changed = plan.settings(values, tmp_path, reduced=False)
    different = {
        (section, key) for section in values for key in values[section] if changed[section][key] != values[section][key]
    }
    # The commit of a random model is none; it differs where the profile pins one.
    assert different - {("rewards", "similarity_revision")} == {
        ("rewards", "similarity_model"), ("train_grpo", "steps"), ("train_grpo", "save_steps"), ("rollout", "prompts"),
    }  # fmt: skip


def test_a_smaller_card_is_a_smaller_share_for_vllm_in_training_and_rollouts(values, tmp_path):
    changed = plan.settings(values, tmp_path, reduced=False, part=0.3)
    shares = [changed[section]["vllm_gpu_memory_utilization"] for section in ("train_grpo", "rollout")]
    assert shares == [pytest.approx(0.18)] * 2


# What a machine must have


@pytest.fixture
def with_a_gpu(monkeypatch):
    """Return a machine with a GPU of 80 GiB, 100 GiB of disk, and both engines' locked packages."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(machine, "seen_by_torch", lambda gpus: gpus)
    monkeypatch.setattr(machine_check.doctor.installed, "driver_needed", lambda: "580")
    monkeypatch.setattr(machine_check, "find_spec", lambda name: name)
    monkeypatch.setattr(machine_check.installed, "differences", lambda wanted, found: [])
    _disk(monkeypatch, 100)
    return replace(machine.inspect(), gpus=(machine.Gpu("a GPU", 80.0, "580"),))


def _disk(monkeypatch, gib):
    monkeypatch.setattr(machine_check.shutil, "disk_usage", lambda folder: SimpleNamespace(free=gib * machine.GIB))


def _run_with_a_gpu(monkeypatch, here, main, *arguments):
    """Run a command on such a machine up to its first task, which stops it."""

    def run(self, *names):
        raise UserError(f"begun: {names}")

    monkeypatch.setattr(machine, "inspect", lambda: here)
    monkeypatch.setattr(plan.Plan, "run", run)
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    main()


def test_a_profile_that_does_not_fit_the_gpu_is_refused_before_the_rehearsal(with_a_gpu, tmp_path):
    laid_out = plan.lay_out("llama-3.1-8b", tmp_path, reduced=False)
    machine_check.check(laid_out, with_a_gpu, 0.3)
    with pytest.raises(UserError, match=r"\b8 GiB\b.*\b17\.9\b.*training"):
        machine_check.check(laid_out, with_a_gpu, 0.1)


def test_a_profile_of_several_processes_is_refused_on_gpus_before_the_build(with_a_gpu, monkeypatch):
    with pytest.raises(UserError, match=r"train_grpo\.launcher\b.*\bfsdp\b.*train_grpo\.vllm_mode\b.*\bserver\b"):
        _run_with_a_gpu(monkeypatch, with_a_gpu, rehearse.main, "llama-3.1-70b")
    with pytest.raises(UserError, match=r"begun: .*build"):
        _run_with_a_gpu(monkeypatch, with_a_gpu, rehearse.main, "llama-3.1-8b")


@pytest.mark.parametrize(("key", "value"), [("launcher", "fsdp"), ("vllm_mode", "server")])
def test_a_launcher_or_a_server_alone_is_refused_too(settings, key, value):
    assert machine_check._several_processes(settings) == []
    grpo = settings.train_grpo.model_copy(update={key: value})
    (line,) = machine_check._several_processes(settings.model_copy(update={"train_grpo": grpo}))
    assert line.startswith(f"train_grpo.{key} is {value}, and a rehearsal on a GPU is of one process")


def test_packages_of_the_engines_that_are_missing_are_named_with_what_needs_them(with_a_gpu, tmp_path, monkeypatch):
    laid_out = plan.lay_out("llama-3.1-8b", tmp_path, reduced=False)
    monkeypatch.setattr(machine_check, "find_spec", lambda name: None if name == "vllm" else name)
    with pytest.raises(UserError) as refused:
        machine_check.check(laid_out, with_a_gpu, 1.0)
    assert str(refused.value) == (
        "packages are missing: vllm (for train_grpo.vllm_mode colocate), vllm (for rollout.engine vllm); "
        "run `rm -rf .venv && make setup`"
    )
    monkeypatch.setattr(machine_check, "find_spec", lambda name: None if name == "unsloth" else name)
    with pytest.raises(UserError, match=r"\bmissing: unsloth\b.*policy\.backend"):
        machine_check.check(laid_out, with_a_gpu, 1.0)


def test_packages_of_other_versions_are_told_and_allowed(with_a_gpu, tmp_path, monkeypatch, capsys):
    laid_out = plan.lay_out("llama-3.1-8b", tmp_path, reduced=False)
    machine_check.check(laid_out, with_a_gpu, 1.0)
    assert capsys.readouterr().out == ""
    differing = "torch is 2.11.0 (the lock has 2.13.0)"
    monkeypatch.setattr(machine_check.installed, "differences", lambda wanted, found: [differing])
    machine_check.check(laid_out, with_a_gpu, 1.0)
    assert capsys.readouterr().out == f"Note: packages differ from the lock: {differing}\n"


def test_a_temporary_folder_without_room_for_the_models_is_refused(with_a_gpu, tmp_path, monkeypatch):
    laid_out = plan.lay_out("llama-3.1-8b", tmp_path, reduced=False)
    # 8.03 billion weights of two bytes, encoders of 1.78 GiB, and 2 beside them: 18.74.
    _disk(monkeypatch, 18.8)
    machine_check.check(laid_out, with_a_gpu, 1.0)
    _disk(monkeypatch, 18.7)
    with pytest.raises(UserError, match=rf"18\.7 GiB\b.*{tmp_path.parent}\b.*\b18\.7\b.*TMPDIR"):
        machine_check.check(laid_out, with_a_gpu, 1.0)


def test_the_comparison_of_steps_checks_the_machine_for_what_runs_the_profile_on_it(with_a_gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(machine_check, "find_spec", lambda name: None)
    for only in ("abcd", "b"):
        with pytest.raises(UserError, match="missing: unsloth"):
            _run_with_a_gpu(monkeypatch, with_a_gpu, gpu_step.main, "--only", only, "--output", str(tmp_path))
    with pytest.raises(UserError, match=r"begun: .*build"):
        _run_with_a_gpu(monkeypatch, with_a_gpu, gpu_step.main, "--only", "cd", "--output", str(tmp_path))


@pytest.mark.parametrize("card", [-3.0, 0.0, float("nan")])
def test_a_card_of_no_size_is_refused_by_its_name(with_a_gpu, card):
    with pytest.raises(UserError, match=rf"^--card {card:g}: .*\b0\b"):
        rehearse.part_of_gpu(card, with_a_gpu)
    assert rehearse.part_of_gpu(20.0, with_a_gpu) == 0.25


# Tasks


def test_a_task_that_the_kernel_killed_is_told_as_such(settings, tmp_path):
    laid_out = plan.Plan("some", settings, settings, {}, tmp_path, reduced=True)

    def ended(status):
        process = SimpleNamespace(start=lambda: None, join=lambda: None, exitcode=status)
        return SimpleNamespace(Process=lambda **_: process)

    with pytest.raises(UserError, match=r"\btrain\b.*-9\b.*memory"):
        laid_out._in_child(ended(-9), "train")
    with pytest.raises(UserError, match=r"\btrain\b.*\bexit status 1\b"):
        laid_out._in_child(ended(1), "train")


@pytest.mark.parametrize("name", ["build", "scorer", "reload"])
@pytest.mark.parametrize(
    ("error", "whose"),
    [(MemoryError("no room"), "machine's"), (torch.cuda.OutOfMemoryError("CUDA out of memory"), "GPU's")],
)
def test_a_task_that_runs_out_of_memory_says_so_in_one_line(name, error, whose, tmp_path, monkeypatch):
    def out_of_memory():
        raise error

    monkeypatch.setitem(tasks.TASKS, name, out_of_memory)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=rf"^error: .*\b{whose} memory\b.*close other programs"):
        tasks.task(name, (), tmp_path)


# Settings at the reduced size


def test_reduced_size_needs_no_gpu_and_leaves_the_profile_as_it_was(values, tmp_path):
    before = json.dumps(values)
    changed = plan.settings(values, tmp_path, reduced=True)
    assert changed["policy"]["backend"] == "transformers"
    assert changed["train_grpo"]["optimizer"] == "adamw_torch"
    assert changed["policy"]["max_prompt_tokens"] == values["policy"]["max_prompt_tokens"]
    assert json.dumps(values) == before


def test_a_model_whose_architecture_is_not_kept_is_refused_with_those_that_are(settings, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"policy\.model 'smollm2-135m-instruct': .*Llama-3\.1-8B-Instruct"):
        plan.architectures(settings)


# Models


def test_every_id_of_the_tokenizer_is_a_token_with_a_text(tokenizer):
    assert len(tokenizer) == 3000
    texts = [tokenizer.decode([number]) for number in range(1000, 3000)]
    assert all(re.fullmatch(r" ?[a-z]{4}", text) for text in texts[-1500:])


def test_a_policy_is_saved_without_a_padding_token_and_with_a_spare_one_as_llama_is(tmp_path):
    architecture = gpu_memory.architecture("Llama-3.1-8B-Instruct", ROOT / "profiles/architectures")
    architecture |= plan.REDUCED_POLICY | {"vocab_size": 2000}
    models.build_policy(architecture, "some", tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    assert saved.pad_token is None
    assert saved.get_vocab()["<|finetune_right_pad_id|>"] == 1999
    assert len(saved) == 2000
    for name in ("config", "generation_config"):
        assert files.read_json(tmp_path / f"{name}.json").get("pad_token_id") is None
    assert models.policy_tokenizer({"model_type": "other", "vocab_size": 2000}).pad_token is not None


def test_an_encoder_has_a_padding_token(tmp_path):
    architecture = gpu_memory.architecture("roberta-base", ROOT / "profiles/architectures")
    models.build_encoder(architecture | plan.REDUCED_ENCODER, AutoModel, tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token == "<|endoftext|>"


def test_prompts_have_exactly_the_length_that_is_asked_for(tokenizer):
    turns = models.longest_turns(tokenizer, 4, 300)
    assert [len(loading.prompt_ids(tokenizer, messages(turn.text))) for turn in turns] == [300] * 4
    assert len({turn.text for turn in turns}) == 4


def test_a_limit_below_the_system_prompt_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"policy\.max_prompt_tokens\b.*\b20\b"):
        models.longest_turns(tokenizer, 1, 20)


# The adapter


@pytest.fixture
def trained(lora, tiny_policy, policy_folder, settings, tmp_path, monkeypatch):
    """Lay out what the train task leaves: an adapter, and the saved model's log-probabilities."""
    import yaml

    values = settings.model_copy(update={"policy": tiny_policy}).model_dump()
    files.write_text(tmp_path / "params.yaml", yaml.safe_dump(values))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/policy").symlink_to(policy_folder)
    monkeypatch.chdir(tmp_path)
    tasks.note_log_probabilities(lora)
    adapters.save_with_card(lora, Path("models/tuned/seed-1"), "")
    return lora


def test_adapter_read_back_gives_the_log_probabilities_that_were_trained(trained):
    tasks.reload()
    found = files.read_json(Path("reload.json"))
    assert found["difference"] < 1e-5
    assert found["effect"] > 1e-3


def test_adapter_that_is_not_what_was_trained_is_told(trained, tiny_policy, policy_folder):
    other = loading.add_lora(loading.load_base(tiny_policy, policy_folder), tiny_policy, None)
    adapters.save(other, Path("models/tuned/seed-1"))
    with pytest.raises(UserError, match="not what was trained"):
        tasks.reload()


def test_training_that_changes_nothing_is_told(trained, tiny_policy, policy_folder):
    untrained = loading.add_lora(loading.load_base(tiny_policy, policy_folder), tiny_policy, None)
    tasks.note_log_probabilities(untrained)
    adapters.save_with_card(untrained, Path("models/tuned/seed-1"), "")
    with pytest.raises(UserError, match="training did nothing"):
        tasks.reload()


def test_log_probabilities_are_those_of_the_fixed_text(base, tokenizer, policy_folder, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/policy").symlink_to(policy_folder)
    monkeypatch.chdir(tmp_path)
    ids = loading.prompt_ids(loading.load_tokenizer(policy_folder), messages("It rains."))
    with torch.no_grad():
        logits = base(input_ids=torch.tensor([ids])).logits[0]
    expected = [float(torch.log_softmax(logits[i], -1)[ids[i + 1]]) for i in range(len(ids) - 1)]
    assert tasks.log_probabilities(base) == pytest.approx(expected, abs=1e-5)


# Numbers


def test_forecast_is_worked_out_by_hand(settings):
    grpo = settings.train_grpo.model_copy(update={"steps": 100, "seeds": [1, 2]})
    rollout = settings.rollout.model_copy(update={"prompts": 50, "samples_per_prompt": 4})
    whole = settings.model_copy(update={"train_grpo": grpo, "rollout": rollout})
    tasks = {"train": {"peak_gib": 3.0, "seconds": 9.0}, "rollout": {"peak_gib": 2.0, "seconds": 36.0}}
    rows = [{"model": name, "seed": seed} for name, seed in (("base", None), ("tuned", 1)) for _ in range(20)]
    # 200 steps of 18 s; 36 s for 40 responses, and 200 responses of base and two tuned policies.
    expected = {"train_hours": pytest.approx(1.0), "rollout_hours": pytest.approx(0.15), "peak_memory_gib": 3.0}
    assert results.forecast(whole, 18.0, tasks, rows, None) == expected
    # Two passes over 11,166 turns.
    found = results.forecast(whole, 18.0, tasks, rows, {"turns_per_second": 6.2})
    assert found["scorer_hours"] == pytest.approx(2 * 11_166 / 6.2 / 3600)
    real = {"seconds_per_step": {"step": 4.5}}
    found = results.forecast(whole, 18.0, tasks, rows, None, real)
    assert found == expected | {"train_hours_at_real_lengths": pytest.approx(0.25)}
    del tasks["rollout"]
    assert "rollout_hours" not in results.forecast(whole, 18.0, tasks, [], None)


def test_what_was_measured_is_kept_when_a_later_task_fails(settings, tmp_path, monkeypatch):
    laid_out = plan.Plan("some", settings, settings, {"policy": {}}, tmp_path, reduced=True)
    timing = pd.DataFrame({f"{name}_s": [9.0, 1.0] for name in (*results.PARTS, "step")})
    (tmp_path / "reports/training").mkdir(parents=True)
    timing.to_csv(tmp_path / "reports/training/timing.csv", index=False)
    pd.DataFrame({"completion_tokens": [30.0, 30.0]}).to_csv(tmp_path / "reports/training/log.csv", index=False)

    def run(self, name):
        if name == "rollout":
            raise UserError("rollout failed")
        return {name: {"seconds": 5.0, "peak_gib": 3.0}}

    monkeypatch.setattr(plan.Plan, "run", run)
    monkeypatch.setattr(rehearse, "_computed", lambda profile: ["a sum"])
    found = rehearse.measure(laid_out, machine.inspect())
    assert found["failed"] == {"rollout": "rollout failed"}
    assert found["seconds_per_step"]["step"] == 1.0
    assert found["real_lengths"] is None
    assert found["peak_memory_gib"] == {"scorer": 3.0, "train": 3.0}
    with pytest.raises(UserError, match="rollout failed"):
        rehearse.report(found | {"gpu": None})


def test_real_lengths_are_medians_too_and_shown_with_their_forecast():
    timing = [{f"{name}_s": seconds for name in (*results.PARTS, "step")} for seconds in (100.0, 1.0, 2.0, 6.0)]
    found = results.at_lengths({"prompt_tokens": 129, "completion_tokens": 130.0, "timing": timing})
    assert found["seconds_per_step"]["step"] == 2.0
    assert results._real_lengths(found, {"train_hours_at_real_lengths": 0.25}) == [
        "At real lengths, prompts of 129 and responses of 130 tokens: 2.00 (generation 2.00, reward 2.00, loss 2.00, "
        "update 2.00), and GRPO 0.25 h"
    ]


def test_real_lengths_are_those_of_a_message_and_a_response_within_the_profiles_limits(settings, tokenizer):
    empty = len(loading.prompt_ids(tokenizer, messages("")))
    wide = settings.policy.model_copy(update={"max_prompt_tokens": 4096, "max_completion_tokens": 512})
    found = lengths.real(wide, tokenizer)
    assert (found.max_prompt_tokens, found.max_completion_tokens) == (empty + 40, 130)
    narrow = wide.model_copy(update={"max_prompt_tokens": empty + 3, "max_completion_tokens": 24})
    assert lengths.real(narrow, tokenizer) == narrow


def test_seconds_are_medians_without_the_first_step():
    columns = {f"{name}_s": [100.0, 1.0, 2.0, 6.0] for name in (*results.PARTS, "step")}
    assert set(results.per_step(pd.DataFrame(columns)).values()) == {2.0}


MEASURED = {
    "profile": "llama-3.1-8b", "gpu": {"name": "NVIDIA H200 (SXM)", "memory_gib": 139.8, "driver": "580"},
    "seconds_per_step": {"step": 2.0, "generation": 1.0, "reward": 0.25, "loss": 0.5, "update": 0.25},
    "tokens_per_second": {"step": 768.0}, "peak_memory_gib": {"train": 17.5}, "versions": {"torch": "2.13.0", "trl": "1.14.2"},
}  # fmt: skip


def test_report_is_named_after_the_gpu_and_shown_as_a_row(tmp_path):
    assert gpu_table.table(tmp_path) == gpu_table.NOT_MEASURED
    assert gpu_table.write(MEASURED, tmp_path) == tmp_path / "nvidia-h200-sxm.json"
    assert gpu_table.table(tmp_path).splitlines()[-1] == (
        "| NVIDIA H200 (SXM) | llama-3.1-8b | 2.00 | 1.00 | 0.25 | 0.50 | 0.25 |  | 768 | 17.5 | torch 2.13.0, trl 1.14.2 |"
    )


def test_report_shows_the_step_at_real_lengths_where_it_was_measured(tmp_path):
    gpu_table.write(MEASURED | {"real_lengths": {"seconds_per_step": {"step": 1.25}}}, tmp_path)
    assert " | 0.25 | 1.25 | 768 | " in gpu_table.table(tmp_path)


def test_report_of_a_gpu_keeps_every_profile_that_was_rehearsed_on_it(tmp_path):
    for profile in ("b", "a", "b"):
        gpu_table.write(MEASURED | {"profile": profile}, tmp_path)
    assert [found["profile"] for found in gpu_table.read(tmp_path)] == ["a", "b"]


def test_what_failed_and_what_has_no_result_are_told_apart():
    found = MEASURED | {"failed": {}, "adapter": {"difference": 0.1}, "scorer": {"turns_per_second": 9.0}}
    found["peak_memory_gib"] = {"train": 1.0, "rollout": 1.0}
    assert gpu_table.not_passed(found) == ""
    found |= {"adapter": None, "scorer": None, "failed": {"rollout": "why"}}
    assert gpu_table.not_passed(found) == "rollout did not pass; reload and scorer gave no result"


def test_page_shows_the_reports_that_there_are():
    assert gpu_table.block(ROOT / "reports/gpu") in (ROOT / gpu_table.PAGE).read_text()


def test_new_reports_are_put_into_the_page(tmp_path):
    page = tmp_path / "measurements.md"
    page.write_text(f"before\n{gpu_table.block(tmp_path)}\nafter\n")
    gpu_table.write(MEASURED, tmp_path)
    gpu_table.update(page, tmp_path)
    assert page.read_text() == f"before\n{gpu_table.block(tmp_path)}\nafter\n"
    assert "NVIDIA H200" in page.read_text()
    page.write_text("no place for it")
    with pytest.raises(UserError, match=r"measurements\.md: "):
        gpu_table.update(page, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU, on which the rehearsal is of full size")
def test_rehearsal_without_a_gpu_runs_every_stage_and_says_first_and_last_that_it_is_reduced():
    without_gpu = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": "src",
        "CUDA_VISIBLE_DEVICES": "",
    }
    reports = list((ROOT / "reports/gpu").glob("*.json"))
    done = subprocess.run(
        [sys.executable, "bench/rehearse.py", "llama-3.1-8b"],
        cwd=ROOT, env=without_gpu | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert plan.SAYS_REDUCED in lines[0]
    assert plan.SAYS_REDUCED in lines[-1]
    assert re.search(
        r"Seconds per step, median of 2 after the first: \d+\.\d+ \(generation .*reward .*loss .*update ", done.stdout
    )
    assert re.search(
        r"At real lengths, prompts of \d+ and responses of 24 tokens: \d+\.\d+ \(.*, and GRPO \d", done.stdout
    )
    assert "Adapter reloaded" in done.stdout
    assert re.search(r"scorers \d+\.\d+ h, GRPO \d+\.\d+ h, rollouts \d+\.\d+ h, .* for 11166 turns", done.stdout)
    peak = float(re.search(r"Peak memory in GiB: .*train (\d+\.\d)", done.stdout)[1])
    assert 0.1 < peak < 4
    assert list((ROOT / "reports/gpu").glob("*.json")) == reports


@pytest.mark.slow
def test_a_task_that_fails_stops_the_rehearsal_and_names_it(settings, tmp_path):
    laid_out = plan.Plan("some", settings, settings, {}, tmp_path, reduced=True)
    with pytest.raises(UserError, match="train failed"):
        laid_out.run("train")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU, on which the comparison is of full size")
def test_comparison_without_a_gpu_measures_two_variants_and_says_what_the_others_need(tmp_path):
    command = [sys.executable, "bench/gpu_step.py", "--steps", "2", "--output", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": "src", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = files.read_json(tmp_path / "gpu_step.json")
    assert found["reduced"]
    seconds = {name: variant["seconds"] for name, variant in found["variants"].items()}
    assert seconds["a"] is seconds["b"] is None
    assert "needs a GPU" in found["variants"]["a"]["why_not"]
    for name in ("c", "d"):
        assert seconds[name]["step"] >= sum(seconds[name][part] for part in results.PARTS) > 0
    assert seconds["d"]["reward"] > seconds["c"]["reward"]
    text = (tmp_path / "gpu_step.md").read_text()
    assert text.startswith("NOT the profile's size")
    assert "| (a) " in text
    assert "not measured: needs a GPU" in text
