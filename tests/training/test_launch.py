"""Test the launchers.

The tests are on what they start, what they refuse before that, and what is left to read when a
process fails.
"""

import http.server
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from gpro_empathy import params
from gpro_empathy.files import UserError
from gpro_empathy.training import launch

ROOT = Path(__file__).parents[2]
LAUNCHERS = sorted(path.stem for path in (ROOT / "accelerate").glob("*.yaml"))
PATIENCE = 600.0  # seconds: a busy machine may take long to import torch


@pytest.fixture
def grpo(settings):
    return settings.train_grpo.model_copy(
        update={
            "prompts_per_step": 8,
            "num_generations": 4,
            "trained_generations": 4,
            "advantage_on": "response",
            "completions_per_forward": 4,
        }
    )


@pytest.fixture
def policy(settings):
    return settings.policy.model_copy(update={"load_in_4bit": False, "backend": "transformers"})


def refusal(grpo, policy, folder=ROOT / "accelerate", *, warm_started=False, **changes):
    """Return the one line with which settings are refused."""
    with pytest.raises(UserError) as caught:
        launch.check(grpo.model_copy(update=changes), policy, folder, warm_started=warm_started)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Configurations


@pytest.mark.parametrize("name", LAUNCHERS)
def test_accelerate_reads_every_launcher(name):
    found = launch.read(name, ROOT / "accelerate")
    assert found["num_processes"] >= 2
    assert found["num_processes"] % found["num_machines"] == 0


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launcher_starts_with_what_it_is_for_and_how_to_run_it(name):
    head = (ROOT / f"accelerate/{name}.yaml").read_text(encoding="utf-8").split("compute_environment")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert "How to run" in head


def documented_runs():
    """Return the file, profile and settings of each documented command.

    A profile of None is params.yaml as it comes.
    """
    found = []
    for path in (*sorted((ROOT / "accelerate").glob("*.yaml")), ROOT / "docs/scaling.md"):
        text = " ".join(re.sub(r"^#|\\$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).split())
        for profile, words in re.findall(r"(?:profiles (\S+) && )?dvc exp run((?: -S \S+)+)", text):
            found.append((path.stem, profile or None, tuple(words.replace(" -S ", " ").split())))
    return found


RUNS = documented_runs()


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launcher_has_a_command_for_the_settings_as_they_come_and_one_for_8b(name):
    profiles = {profile for file, profile, _ in RUNS if file == name}
    assert profiles == ({None} if name == "two_cpu" else {None, "llama-3.1-8b-current"})


@pytest.mark.parametrize(("file", "profile", "settings"), RUNS)
def test_documented_command_is_accepted(file, profile, settings, server, monkeypatch):
    from gpro_empathy.tools import profiles

    target = ROOT / "params.yaml"
    values = (
        profiles.values(profile, ROOT / "profiles", target) if profile else yaml.safe_load(target.read_text("utf-8"))
    )
    for setting in settings:
        key, value = setting.split("=")
        section, name = key.split(".")
        assert name in values[section]
        values[section][name] = yaml.safe_load(value)
    found = params.check(values, target)
    assert found.train_grpo.launcher == file or file not in LAUNCHERS
    monkeypatch.setattr(launch, "_is_installed", lambda package: True)
    with_server = found.train_grpo.model_copy(update={"vllm_server_url": server[0]})
    launch.check(with_server, found.policy, ROOT / "accelerate", warm_started=False)


def test_there_is_a_launcher_for_each_way_of_spreading_a_run():
    kinds = {name: launch.read(name, ROOT / "accelerate")["distributed_type"] for name in LAUNCHERS}
    assert kinds == {
        "fsdp": "FSDP", "multi_gpu": "MULTI_GPU", "multi_node": "MULTI_GPU", "two_cpu": "MULTI_GPU", "zero3": "DEEPSPEED",
    }  # fmt: skip


@pytest.mark.parametrize(("section", "key"), [(None, "num_proceses"), ("fsdp_config", "fsdp_ofload_params")])
def test_unknown_key_is_refused_by_name(tmp_path, section, key):
    values = yaml.safe_load((ROOT / "accelerate/fsdp.yaml").read_text(encoding="utf-8"))
    (values[section] if section else values)[key] = 1
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(UserError, match=rf"mine\.yaml: .*{key}"):
        launch.read("mine", tmp_path)


def test_command_line_names_configuration_and_module():
    assert shlex.join(["accelerate", "launch", *launch.command("fsdp", "gpro_empathy.stages.train_grpo")]) == (
        "accelerate launch --config_file accelerate/fsdp.yaml -m gpro_empathy.stages.train_grpo"
    )


@pytest.mark.parametrize("name", LAUNCHERS)
def test_accelerate_understands_the_command_line(name):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    arguments = launch.command(name, "gpro_empathy.stages.train_grpo", ROOT / "accelerate")
    found, _, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    assert (found.module, found.training_script) == (True, "gpro_empathy.stages.train_grpo")
    assert found.num_processes == launch.read(name, ROOT / "accelerate")["num_processes"]
    kinds = {"fsdp": found.use_fsdp, "zero3": found.use_deepspeed}
    assert kinds.get(name, found.multi_gpu)
    assert sum([found.use_fsdp, found.use_deepspeed, found.multi_gpu]) == 1


# Number format


@pytest.mark.parametrize("name", [name for name in LAUNCHERS if name != "zero3"])  # which needs DeepSpeed for this
def test_launched_processes_see_no_number_format(name):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    arguments = launch.command(name, "gpro_empathy.stages.train_grpo", ROOT / "accelerate")
    found, _, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", os.environ.copy())
        assert prepare_multi_gpu_env(found)["ACCELERATE_MIXED_PRECISION"] == "no"


@pytest.mark.parametrize(("dtype", "expected"), [("float32", "no"), ("bfloat16", "bf16")])
def test_policy_says_the_number_format_of_a_launched_process(
    grpo, policy, settings, monkeypatch, tmp_path, dtype, expected
):
    from trl import GRPOConfig

    from gpro_empathy.training import grpo_trainer as training

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    values = training.trl_values(grpo, settings.rewards, policy.model_copy(update={"dtype": dtype}), 0, tmp_path)
    found = GRPOConfig(bf16=values["bf16"], output_dir=str(tmp_path), report_to=[], use_cpu=True)
    assert found.mixed_precision == expected


def test_refuses_a_launcher_that_forces_a_number_format(tmp_path):
    text = (ROOT / "accelerate/multi_gpu.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(
        text.replace('mixed_precision: "no"', "mixed_precision: bf16"), encoding="utf-8"
    )
    with pytest.raises(UserError) as caught:
        launch.read("mine", tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/mine.yaml: mixed_precision is bf16, which would hold whatever policy.dtype says; set it to "
        '"no", and policy.dtype to what you want'
    )
    (tmp_path / "mine.yaml").write_text(re.sub("mixed_precision.*\n", "", text), encoding="utf-8")
    launch.read("mine", tmp_path)


# Refusals


def test_run_in_one_process_needs_nothing(grpo, policy):
    assert launch.check(grpo, policy, Path("no such folder"), warm_started=False) is None


def test_refuses_a_launcher_that_is_not_there_and_names_those_that_are(grpo, policy):
    line = refusal(grpo, policy, launcher="multi_gpus")
    assert re.search(r"launcher multi_gpus: there is no .*multi_gpus\.yaml; there are fsdp, multi_gpu, ", line)


@pytest.mark.parametrize(("prompts", "nearest"), [(7, 8), (3, 4), (1, 2)])
def test_refuses_prompts_that_the_processes_cannot_share(grpo, policy, prompts, nearest):
    assert refusal(grpo, policy, launcher="two_cpu", prompts_per_step=prompts) == (
        f"train_grpo.prompts_per_step is {prompts}, which 2 processes cannot share evenly; the nearest that they can is "
        f"{nearest}"
    )


def test_refuses_a_forward_batch_that_does_not_divide_the_share_of_a_process(grpo, policy):
    assert refusal(grpo, policy, launcher="two_cpu", completions_per_forward=32) == (
        "train_grpo.completions_per_forward is 32, which does not divide the 16 completions of each of 2 processes; "
        "the nearest that does is 16"
    )


def test_processes_share_a_step_evenly(grpo):
    assert [grpo.accumulation_steps(count) for count in (1, 2, 4, 8)] == [8, 4, 2, 1]


@pytest.mark.parametrize("launcher", ["fsdp", "zero3"])
def test_refuses_to_sample_from_sharded_weights(grpo, policy, launcher):
    line = refusal(grpo, policy, launcher=launcher)
    assert line.endswith("from which this package cannot sample; set train_grpo.vllm_mode: server")


# The vLLM server


@pytest.fixture
def server():
    """Run a server that stands in for vLLM's; return its address and status.

    It answers as a vLLM server does when asked whether it is up.
    """
    status = {"/health": 200}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status.get(self.path, 404))
            self.end_headers()

        def log_message(self, *args):
            pass

    running = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", status
    running.shutdown()
    running.server_close()


def test_refuses_a_server_that_does_not_answer(grpo, policy, server):
    address, status = server
    line = refusal(grpo, policy, vllm_mode="server", vllm_server_url="http://127.0.0.1:9")
    assert "train_grpo.vllm_server_url http://127.0.0.1:9: no vLLM server answers there (" in line
    assert "docs/scaling.md" in line
    status["/health"] = 503
    assert "(Service Unavailable)" in refusal(grpo, policy, vllm_mode="server", vllm_server_url=address)


def test_server_that_is_up_is_accepted_where_vllm_is_installed(grpo, policy, server, monkeypatch):
    settings = grpo.model_copy(update={"vllm_mode": "server", "vllm_server_url": server[0]})
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="vllm"):
        launch.check(settings, policy, warm_started=False)
    monkeypatch.setattr(launch, "_is_installed", lambda package: True)
    launch.check(settings, policy, warm_started=False)


@pytest.mark.parametrize(("key", "value"), [("load_in_4bit", True), ("backend", "unsloth")])
def test_refuses_a_policy_whose_weights_a_server_cannot_take(grpo, policy, key, value):
    line = refusal(grpo, policy.model_copy(update={key: value}), vllm_mode="server")
    assert "train_grpo.vllm_mode: server" in line
    assert f"policy.{key}" in line


def test_refuses_unsloth_in_several_processes(grpo, policy):
    line = refusal(grpo, policy.model_copy(update={"backend": "unsloth"}), launcher="multi_gpu")
    assert line.startswith(
        "train_grpo.launcher multi_gpu: policy.backend unsloth trains in one process; set policy.backend: "
    )


def test_unsloth_in_several_processes_leaves_its_vllm_behind(grpo, policy):
    line = refusal(grpo, policy.model_copy(update={"backend": "unsloth"}), launcher="multi_gpu", vllm_mode="colocate")
    assert line.endswith(
        "set policy.backend: transformers and train_grpo.vllm_mode: none, or train_grpo.launcher: none"
    )


def test_refuses_to_give_4_bit_weights_to_a_vllm_beside_transformers(grpo, policy):
    packed = policy.model_copy(update={"load_in_4bit": True})
    line = refusal(grpo, packed, vllm_mode="colocate")
    assert line.startswith("train_grpo.vllm_mode: colocate with policy.backend: transformers cannot give vLLM 4-bit ")
    assert line.endswith("set policy.load_in_4bit: false, or train_grpo.vllm_mode: none, or policy.backend: unsloth")
    # Unsloth would be refused with a launcher.
    assert refusal(grpo, packed, vllm_mode="colocate", launcher="two_cpu").endswith("train_grpo.vllm_mode: none")
    colocate = grpo.model_copy(update={"vllm_mode": "colocate"})
    launch.check(colocate, policy, warm_started=False)
    launch.check(colocate, packed.model_copy(update={"backend": "unsloth"}), warm_started=False)


@pytest.mark.parametrize(
    ("backend", "mode", "engine"),
    [
        ("transformers", "server", "train_grpo.vllm_mode: server"),
        ("transformers", "colocate", "train_grpo.vllm_mode: colocate"),
        ("unsloth", "colocate", "the backend unsloth"),
        ("unsloth", "none", "the backend unsloth"),
    ],
)
def test_refuses_parts_of_groups_where_whole_ones_are_trained_on(grpo, policy, backend, mode, engine):
    asked = policy.model_copy(update={"backend": backend})
    assert refusal(grpo, asked, vllm_mode=mode, trained_generations=2) == (
        f"train_grpo.trained_generations is 2, but {engine} trains on whole groups; set it to num_generations, 4"
    )


def test_refuses_a_divergence_that_unsloth_would_measure_from_the_base(grpo, policy):
    unsloth = policy.model_copy(update={"backend": "unsloth"})
    line = refusal(grpo, unsloth, vllm_mode="colocate", kl_beta=0.1, warm_started=True)
    assert re.search(r"kl_beta is 0\.1, .*unsloth.*warm start", line)
    divergent = grpo.model_copy(update={"vllm_mode": "colocate", "kl_beta": 0.1})
    launch.check(divergent, unsloth, warm_started=False)  # the base is where it starts
    launch.check(divergent, policy, warm_started=True)


def test_own_trainer_takes_parts_of_groups_and_of_responses(grpo, policy):
    parts = grpo.model_copy(update={"trained_generations": 2, "advantage_on": "answer"})
    assert launch.check(parts, policy, warm_started=False) is None


def test_documented_server_has_the_options_that_trl_demands():
    from trl.scripts import vllm_serve

    text = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
    documented = re.search(r"vllm serve .*?(?=\n\n|```)", text, re.DOTALL)[0].replace("\\\n", " ")
    words = shlex.split(documented)
    demanded = vllm_serve.build_command(vllm_serve.ScriptArguments(model="m"))
    start = demanded.index("--weight-transfer-config")
    assert all(word in words for word in demanded[start:])
    assert "--enable-scale-out" in words  # since vLLM 0.30, which the lock pins; asked for if that is installed


def test_profile_of_70b_goes_together(tmp_path, server, monkeypatch):
    from gpro_empathy.tools import profiles

    target = tmp_path / "params.yaml"
    target.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    profiles.apply("llama-3.1-70b", ROOT / "profiles", target)
    found = params.load_all(target)
    assert (found.train_grpo.launcher, found.train_grpo.vllm_mode) == ("fsdp", "server")
    assert found.train_grpo.trained_generations == found.train_grpo.num_generations
    monkeypatch.setattr(launch, "_is_installed", lambda package: True)
    with_server = found.train_grpo.model_copy(update={"vllm_server_url": server[0]})
    launch.check(with_server, found.policy, ROOT / "accelerate", warm_started=False)


# Runs


def started(folder, worker):
    """Start two processes of a module in `folder`, as a stage starts itself."""
    (folder / "worker.py").write_text(worker, encoding="utf-8")
    code = "from gpro_empathy import entry_point; from gpro_empathy.training import launch; entry_point.run_stage(lambda: launch.launch('two_cpu', 'worker'))"
    (folder / "accelerate").symlink_to(ROOT / "accelerate")
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{folder}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-u", "-c", code], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
def test_failing_process_ends_the_run_with_one_line_and_nothing_half_written(tmp_path):
    worker = (
        "import os, pathlib, sys, time\nfrom gpro_empathy import entry_point, files\n"
        "written = pathlib.Path('models/tuned')\n"
        "if os.environ['RANK'] == '1':\n"
        "    while not list(pathlib.Path().glob('models/.tuned-*/tuned')):\n        time.sleep(0.1)\n"
        "    sys.exit('error: something is missing')\n"
        "def main():\n"
        "    with files.atomic_path(written) as temporary:\n        temporary.mkdir()\n        time.sleep(600)\n"
        "entry_point.run_stage(main)\n"
    )
    process = started(tmp_path, worker)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    lines = errors.strip().splitlines()
    assert lines[-1] == "error: worker: process 1 ended with 1; what it said stands above"
    assert "error: something is missing" in lines
    assert "Traceback" not in errors
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("code", "end"),
    [
        (3, "process 1 ended with 3; what it said stands above"),
        (
            -9,
            "process 1 was killed, most likely because the machine's memory ran out; close other programs, or lower "
            "num_processes in accelerate/multi_gpu.yaml",
        ),
    ],
)
def test_process_that_the_kernel_ends_is_said_to_be_killed(monkeypatch, code, end):
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    def fail(arguments):
        raise ChildFailedError("worker", {1: ProcessFailure(local_rank=1, pid=1, exitcode=code, error_file="none")})

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("accelerate.commands.launch.launch_command", fail)
    with pytest.raises(UserError) as caught:
        launch.launch("multi_gpu", "worker")
    assert str(caught.value) == f"worker: {end}"


@pytest.mark.slow
def test_interrupted_run_ends_all_processes_and_says_so_once(tmp_path):
    worker = (
        "import os, time\nfrom gpro_empathy import entry_point\n"
        "def main():\n    open(f'ready{os.environ[\"RANK\"]}', 'w').write(str(os.getpid()))\n    time.sleep(600)\n"
        "entry_point.run_stage(main)\n"
    )
    process = started(tmp_path, worker)
    while not all((tmp_path / f"ready{rank}").exists() for rank in range(2)):
        assert process.poll() is None, process.stderr.read()
        threading.Event().wait(0.1)
    threading.Event().wait(0.5)
    workers = [int((tmp_path / f"ready{rank}").read_text()) for rank in range(2)]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert errors.strip().splitlines()[-1] == "interrupted; run the command again to go on"
    assert errors.count("interrupted") == 1
    assert "Traceback" not in errors
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
