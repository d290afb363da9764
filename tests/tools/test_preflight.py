import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpro_empathy import machine
from gpro_empathy.machine import Gpu, Machine
from gpro_empathy.tools import doctor, hub_access, preflight, profiles
from gpro_empathy.tools.hub_access import Access, Repository

ROOT = Path(__file__).parents[2]
H200 = Gpu("NVIDIA H200", 139.8, "580.65.06")
ENOUGH = Machine(python="3.11.9", disk=200, memory=100, cores=16, latexmk="/usr/bin/latexmk", gpus=(H200,))
LLAMA = Repository("policy.model", "meta-llama/Llama-3.1-8B-Instruct")


@pytest.fixture(scope="module")
def llama():
    return profiles.preview("llama-3.1-8b", ROOT / "profiles", ROOT / "params.yaml")


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)  # which keeps the architectures


def problems(config, here=ENOUGH, **found):
    return preflight.failing(preflight.checks(here, config, preflight.Environment(**{"driver_needed": "580"} | found)))


def only(lines):
    assert len(lines) == 1, lines
    assert "\n" not in lines[0]
    return lines[0]


# The machine


def test_a_large_enough_machine_has_no_problems(llama, settings):
    assert problems(llama) == []
    assert problems(settings, replace(ENOUGH, gpus=())) == []


def test_no_gpu_is_one_line_with_the_way_out(llama):
    line = only(problems(llama, replace(ENOUGH, gpus=())))
    assert line.startswith("policy.backend is unsloth, which needs an NVIDIA GPU, and none is found")
    assert "git checkout params.yaml" in line


def test_an_optimizer_of_cuda_needs_a_gpu_with_any_backend(llama):
    on_transformers = llama.model_copy(update={"policy": llama.policy.model_copy(update={"backend": "transformers"})})
    line = only(problems(on_transformers, replace(ENOUGH, gpus=())))
    assert line.startswith("train_grpo.optimizer is paged_adamw_8bit, which needs an NVIDIA GPU")


def test_a_vllm_server_needs_a_gpu(settings):
    grpo = settings.train_grpo.model_copy(update={"vllm_mode": "server"})
    line = only(problems(settings.model_copy(update={"train_grpo": grpo}), replace(ENOUGH, gpus=())))
    assert line.startswith("train_grpo.vllm_mode is server, which needs an NVIDIA GPU")


def test_too_little_gpu_memory_is_one_line_with_the_sum_and_what_to_lower(llama):
    small = replace(ENOUGH, gpus=(Gpu("NVIDIA T4", 15.0, "580.65.06"),))
    line = only(problems(llama, small))
    wanted = preflight.need(llama).gpu_memory[0].sum
    assert line.startswith(
        f"the GPU has 15 GiB, {wanted.total:.1f} are needed for training (weights 5.3 + LoRA and optimizer "
    )
    # Unsloth takes the three responses of a group together, so that fewer cannot be set.
    assert "; lower policy.max_completion_tokens, " in line
    assert "train_grpo.vllm_gpu_memory_utilization" in line


def test_rollouts_have_a_sum_of_their_own(llama):
    rollout = llama.rollout.model_copy(update={"vllm_gpu_memory_utilization": 0.1})
    line = only(
        problems(llama.model_copy(update={"rollout": rollout}), replace(ENOUGH, gpus=(Gpu("A100", 40, "580"),)))
    )
    assert re.match(r"the GPU has 40 GiB, \d+\.\d are needed for rollouts \(weights 5\.3 ", line)
    assert "; change rollout.vllm_gpu_memory_utilization, raise rollout.vllm_gpus, or take a larger GPU" in line


def spread(llama, launcher, **rollout):
    update = {"launcher": launcher, "vllm_mode": "server", "prompts_per_step": 8}
    changes = {"train_grpo": llama.train_grpo.model_copy(update=update)}
    return llama.model_copy(update=changes | {"rollout": llama.rollout.model_copy(update=rollout)})


def gpus(count, memory):
    return replace(ENOUGH, gpus=(Gpu("a GPU", memory, "580.65.06"),) * count)


def test_one_process_takes_one_gpu_however_many_there_are(llama):
    assert only(problems(llama, gpus(2, 15))).startswith("the GPU has 15 GiB, 17.9 are needed for training (")


def test_each_gpu_of_several_processes_holds_all_weights_unless_they_are_sharded(llama):
    wanted = {name: preflight.need(spread(llama, name)).gpu_memory[0] for name in ("multi_gpu", "fsdp")}
    assert [wanted[name].gpus for name in wanted] == [8, 4]
    parts = {name: share.sum.parts for name, share in wanted.items()}
    assert parts["fsdp"]["weights"] == pytest.approx(parts["multi_gpu"]["weights"] / 4)
    assert "gathered weights" in parts["fsdp"]
    assert "gathered weights" not in parts["multi_gpu"]
    enough = wanted["multi_gpu"].sum.total
    assert problems(spread(llama, "multi_gpu"), gpus(8, enough + 0.1)) == []
    line = only(problems(spread(llama, "multi_gpu"), gpus(8, enough - 0.1)))
    assert line.startswith("each of 8 GPUs has ")


def test_smallest_of_the_gpus_that_are_taken_counts(llama):
    mixed = replace(ENOUGH, gpus=(*gpus(3, 80).gpus, Gpu("a small one", 8, "580"), *gpus(1, 80).gpus))
    assert problems(spread(llama, "fsdp"), mixed) == []
    assert only(problems(spread(llama, "fsdp"), replace(mixed, gpus=mixed.gpus[:4]))).startswith(
        "each of 4 GPUs has 8 GiB"
    )


def test_fewer_gpus_than_processes_or_than_vllm_spreads_over_are_a_line(llama):
    assert problems(spread(llama, "fsdp", vllm_gpus=4), gpus(2, 140)) == [
        "train_grpo.launcher fsdp takes 4 GPUs, and this machine has 2; lower num_processes in accelerate/fsdp.yaml, or run on "
        "a machine with as many",
        "rollout.vllm_gpus 4 takes 4 GPUs, and this machine has 2; lower it, or run on a machine with as many",
    ]


def test_a_launcher_that_keeps_to_the_processor_takes_no_gpu(llama):
    names = [share.name for share in preflight.need(spread(llama, "two_cpu")).gpu_memory]
    assert names == ["rollouts"]


def test_large_profile_fits_eight_gpus_of_80_gb_and_no_two(monkeypatch):
    large = profiles.preview("llama-3.1-70b", ROOT / "profiles", ROOT / "params.yaml")
    assert problems(large, replace(gpus(8, 79.6), disk=500, memory=600)) == []
    assert len(problems(large, replace(gpus(2, 79.6), disk=500, memory=600))) == 2


def test_an_old_driver_stops_no_run_that_asks_for_no_gpu(settings):
    assert problems(settings, replace(ENOUGH, gpus=(Gpu("NVIDIA L4", 22.5, "535.1"),))) == []


@pytest.mark.parametrize(("driver", "is_old"), [("570.86.15", True), ("580.65.06", False), ("1000.1", False)])
def test_an_older_driver_is_named_with_the_one_that_is_needed(llama, driver, is_old):
    found = problems(llama, replace(ENOUGH, gpus=(Gpu("NVIDIA L4", 22.5, driver),)))
    expected = f"the NVIDIA driver is {driver}, the CUDA of the pinned torch needs 580 or newer; update the driver"
    assert found == ([expected] if is_old else [])


def test_oldest_of_several_drivers_counts(llama):
    mixed = replace(ENOUGH, gpus=(H200, Gpu("NVIDIA H200", 139.8, "99.5")))
    assert only(problems(llama, mixed)).startswith("the NVIDIA driver is 99.5,")


def test_little_disk_memory_and_no_tex_are_a_line_each(settings):
    bare = replace(ENOUGH, disk=1.25, memory=2.0, latexmk=None, gpus=())
    assert problems(settings, bare) == [
        "1.2 GiB of disk are free, the run needs 3; free some",
        "2.0 GiB of memory are free, the run needs 6; close programs",
        "latexmk is missing; the report needs it; run `make tex`",
    ]


def test_what_the_hub_sends_needs_disk_unless_it_is_in_the_cache(llama):
    wanted = preflight.need(llama)
    sizes = {setting: round(size, 1) for setting, size in wanted.downloads.items()}
    assert sizes == {"policy.model": 15.0, "rewards.similarity_model": 1.3, "train_scorer.encoder": 0.5}
    little = replace(ENOUGH, disk=6.0)
    assert only(problems(llama, little)) == "6.0 GiB of disk are free, the run needs 20; free some"
    assert problems(llama, little, hub=[Access(LLAMA, "cached", in_cache=True)]) == []


def test_a_policy_in_a_folder_of_the_users_is_no_download(llama, tmp_path):
    folder = tmp_path / "Llama-3.1-8B-Instruct"
    folder.mkdir()
    local = llama.model_copy(update={"policy": llama.policy.model_copy(update={"model": str(folder)})})
    wanted = preflight.need(local)
    assert sorted(wanted.downloads) == ["rewards.similarity_model", "train_scorer.encoder"]
    assert wanted.memory == preflight.need(llama).memory


def test_the_reader_models_encoder_is_counted_beside_the_scorers(llama):
    def training(weights):
        rewards = llama.rewards.model_copy(update={"weights": weights})
        return preflight.need(llama.model_copy(update={"rewards": rewards})).gpu_memory[0].sum.total

    assert training({"empathy": 1.0, "reader_sense": 1.0}) > training({"empathy": 1.0})


def test_cache_on_a_disk_of_its_own_is_checked_apart(llama):
    little = replace(ENOUGH, disk=6.0)
    assert problems(llama, little, hub_disk=30.0) == []
    line = only(problems(llama, little, hub_disk=10.0))
    assert line.startswith("10.0 GiB of disk for the hub's cache are free, the run needs 17; free some, or set HF_HOME")


def test_packages_that_differ_are_named_with_the_way_out(settings):
    line = only(problems(settings, differences=[f"p{n} is not installed (the lock has 1)" for n in range(6)]))
    assert line.startswith("packages differ from the lock: p0 is not installed (the lock has 1), p1 ")
    assert line.endswith("and 2 more; run `rm -rf .venv && make setup`")


def test_versions_that_results_are_not_recorded_under_are_named_with_the_ways_out(settings):
    line = only(problems(settings, unrecorded=["scipy is 1.18.0 (versions.yaml has 1.17.1)"]))
    assert line.startswith("scipy is 1.18.0 (versions.yaml has 1.17.1); run `rm -rf .venv && make setup`")
    assert "`make versions` and `dvc repro`" in line


def test_a_repository_that_cannot_be_read_is_a_line_and_one_that_can_is_none(llama):
    hub = [Access(LLAMA, "no access"), Access(replace(LLAMA, id="a/b"), "reachable"), Access(LLAMA, "cached")]
    assert only(problems(llama, hub=hub)).startswith("policy.model 'meta-llama/Llama-3.1-8B-Instruct': the account of ")


def test_table_shows_every_check_and_what_to_do_below_the_failing_ones(llama):
    found = preflight.Environment(driver_needed="580", hub=[Access(LLAMA, "no token")])
    lines = doctor.check_lines(preflight.checks(replace(ENOUGH, disk=1.0), llama, found)).splitlines()
    failing = [number for number, line in enumerate(lines) if line.startswith("  FAIL")]
    assert [lines[number].split()[1] for number in failing] == ["disk", "hub:"]
    assert all(lines[number + 1].strip().startswith("-> ") for number in failing)
    assert {line.split()[1] for line in lines if line.startswith("  ok")} >= {
        "memory",
        "TeX",
        "packages",
        "GPU",
        "driver",
    }


def test_nvidia_smi_is_read_with_any_name_and_without_cards_in_trouble():
    output = "NVIDIA H200, Rev. B, 143771, 580.65.06\nNVIDIA A2, [N/A], 580.65.06\nUnable to determine\n"
    assert machine.parse_gpus(output) == (Gpu("NVIDIA H200, Rev. B", 143771 / 1024, "580.65.06"),)
    assert machine.parse_gpus("No devices were found\n") == ()


def test_each_process_with_a_shard_needs_memory_for_the_whole_model(llama):
    one, four = (preflight.need(spread(llama, name)).memory for name in ("multi_gpu", "fsdp"))
    assert four - one == pytest.approx(3 * 15.0, abs=0.2)


def test_gpus_that_torch_does_not_find_are_told_from_none(llama):
    line = only(problems(llama, replace(ENOUGH, gpus=(), listed=2)))
    assert "nvidia-smi lists 2, and torch finds none; run `rm -rf .venv && make setup`" in line
    assert "CUDA_VISIBLE_DEVICES" in line


def test_torch_is_asked_for_the_gpus_that_it_finds(monkeypatch):
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.seen_by_torch((H200,)) == ()
    answer = "print('[[\"NVIDIA A2\", 16106127360]]')"
    monkeypatch.setattr(machine, "_ASK_TORCH", answer)
    assert machine.seen_by_torch((H200,)) == (Gpu("NVIDIA A2", 15.0, H200.driver),)
    assert torch.cuda.device_count() == 0


def test_torch_is_asked_only_where_a_gpu_is(llama, settings, monkeypatch):
    monkeypatch.setattr(machine, "seen_by_torch", lambda gpus: gpus[:0])
    assert doctor.with_usable_gpus(ENOUGH, llama).gpus == ()
    assert doctor.with_usable_gpus(ENOUGH, settings).gpus == (H200,)


def test_what_grpo_would_refuse_is_found_before_the_scorer_is_trained(llama, monkeypatch):
    monkeypatch.setattr(doctor.installed, "driver_needed", lambda: "580")
    monkeypatch.setattr(doctor.hub_access, "look_up", lambda repositories: [])
    mixed = llama.model_copy(update={"train_grpo": llama.train_grpo.model_copy(update={"launcher": "multi_gpu"})})
    found = doctor.examine(mixed, ENOUGH)
    lines = preflight.failing(preflight.checks(gpus(8, 80), mixed, replace(found, differences=(), unrecorded=())))
    assert only(lines).startswith("train_grpo.launcher multi_gpu: policy.backend unsloth trains in one process; ")
    assert doctor.examine(llama, ENOUGH).launch is None


def test_stage_is_stopped_by_its_gpus_alone(llama, monkeypatch, capsys):
    """What `doctor --gpus` looks at, on a machine that lacks everything else too."""
    bare = replace(ENOUGH, disk=0.1, memory=0.1, latexmk=None)
    monkeypatch.setattr(doctor.installed, "driver_needed", lambda: "580")
    assert doctor.gpu_problems(bare, llama) == []
    assert only(doctor.gpu_problems(replace(bare, gpus=()), llama)).startswith("policy.backend is unsloth, which needs")
    assert only(doctor.gpu_problems(gpus(1, 15), llama)).startswith(
        "the GPU has 15 GiB, 17.9 are needed for training ("
    )


def test_stage_of_the_embedded_default_is_let_through_without_a_gpu(settings):
    assert doctor.gpu_problems(replace(ENOUGH, gpus=()), settings) == []


# What is looked up


def test_embedded_default_needs_nothing_from_a_hub_and_no_gpu(settings):
    assert preflight.need(settings) == preflight.Need(preflight.DISK, {}, preflight.MEMORY, False, (), ())


def test_published_profile_reads_three_models_and_a_data_set(llama):
    assert [(one.setting, one.id, one.kind) for one in preflight.need(llama).hub] == [
        ("policy.model", "meta-llama/Llama-3.1-8B-Instruct", "model"),
        ("rewards.similarity_model", "cross-encoder/stsb-roberta-large", "model"),
        ("train_scorer.encoder", "roberta-base", "model"),
        ("prepare.hub_dataset", "miladsolo/wassa-conv-turn-empathy", "dataset"),
    ]


def test_a_model_in_a_folder_is_not_looked_for_on_the_hub(settings, tmp_path):
    changed = settings.rewards.model_copy(update={"similarity_model": str(tmp_path)})
    assert hub_access.needed(settings.model_copy(update={"rewards": changed})) == []


def test_doctor_of_the_embedded_default_imports_neither_torch_nor_a_hub_client_and_opens_no_socket():
    code = (
        "import sys\n"
        "sys.addaudithook(lambda event, _: sys.exit('a socket') if event.startswith('socket.connect') else None)\n"
        "from gpro_empathy import machine, params\n"
        "from gpro_empathy.tools import doctor\n"
        "config = params.load_all()\n"
        "doctor.examine(config, machine.inspect())\n"
        "print({'torch', 'transformers', 'huggingface_hub', 'httpx'} & set(sys.modules))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
