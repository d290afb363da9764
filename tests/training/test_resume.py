"""Kill the training stage with SIGKILL wherever it hurts.

It ends with the same bytes as if it had been left alone.

Runs are forked from a process that has imported torch already, which saves each of them several
seconds.
"""

import dataclasses
import multiprocessing
import os
import re
import signal
import sys
import time

import pytest
import yaml

import small_approach
from gpro_empathy import entry_point, files
from gpro_empathy.data import dialogue
from gpro_empathy.labels import LABELS, MARKS
from gpro_empathy.scorer import empathy_scorer
from short_run import UTTERANCES, config  # noqa: F401  The settings of a short run, as a fixture.

pytestmark = pytest.mark.slow

PATIENCE = 300.0  # seconds: long, because a busy machine may let a run wait
OUTPUTS = ("models/tuned", "reports/training")
FORWARD = "gpro_empathy.forward"  # the audit event that a run raises before each forward pass of its training


@dataclasses.dataclass(frozen=True)
class Kill:
    """Mark the point of a run's death.

    It is just before the n-th audit event of this name with a path that matches.
    """

    event: str
    path: str = ""
    count: int = 1


def stage(folder, kill):
    """Run the stage in `folder`, in this process, up to its end or its death.

    What it prints goes to a file.
    """
    os.chdir(folder)
    with open("printed.txt", "wb") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    import torch

    from gpro_empathy.policy import packed_logprobs
    from gpro_empathy.stages import train_grpo

    torch.set_num_threads(1)
    inner = packed_logprobs.log_probabilities

    def log_probabilities(*args, **kwargs):
        sys.audit(FORWARD)
        return inner(*args, **kwargs)

    packed_logprobs.log_probabilities = log_probabilities
    if kill is not None:
        die_at(kill)
    entry_point.run_stage(train_grpo.main)


def die_at(kill):
    """Kill this process, without any cleaning up, at a point of its run."""
    left = kill.count

    def hook(event, arguments):
        nonlocal left
        if event == kill.event and re.search(kill.path, " ".join(str(argument) for argument in arguments)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def start(folder, kill=None):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gpro_empathy.training.grpo_run", "sentence_transformers"])
    process = context.Process(target=stage, args=(folder, kill))
    process.start()
    return process


def finish(process, folder):
    """Wait for a run; return its exit code and the number of the checkpoint it went on from.

    The number is None where there was no such checkpoint.
    """
    process.join(PATIENCE)
    assert process.exitcode is not None, "the stage does not end"
    printed = files.read_text(folder / "printed.txt")
    assert process.exitcode in (0, -signal.SIGKILL), printed[-3000:]
    found = re.findall(r"GRPO goes on from \S*checkpoint-(\d+)", printed)
    return process.exitcode, int(found[0]) if found else None


def outputs(folder):
    """Return the bytes of every output file, but for the one that holds times."""
    paths = [path for name in OUTPUTS for path in sorted((folder / name).rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name != "timing.csv"}


@pytest.fixture(scope="module")
def reward_models(settings, tmp_path_factory):
    import torch

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = settings.train_scorer.model_copy(update={"encoder": "random"})
    for name, of in (("scorer", LABELS), ("reader", MARKS)):
        built = empathy_scorer.build(config, of)
        empathy_scorer.save(built, folder / name, {"encoder": "random", "revision": None, "max_tokens": 32})
    small_approach.save(folder / "approach")
    return folder


@pytest.fixture
def make_folder(settings, tiny_policy, policy_folder, reward_models, config, tmp_path):
    """Return a function that makes a folder with all that the stage reads.

    The run has 5 steps, with checkpoints after 2, 4 and 5.
    """
    short = config.model_copy(update={"steps": 5, "save_steps": 2, "lr_scheduler": "linear", "kl_beta": 0.05})
    values = settings.model_copy(update={"policy": tiny_policy, "train_grpo": short}).model_dump()
    turns = [dialogue.Turn("1", i, text, (), None, None, None) for i, text in enumerate(UTTERANCES, start=1)]

    def make(name):
        folder = tmp_path / name
        (folder / "models").mkdir(parents=True)
        (folder / "models/policy").symlink_to(policy_folder)
        for name in ("scorer", "reader", "approach"):
            (folder / "models" / name).symlink_to(reward_models / name)
        files.write_text(folder / "params.yaml", yaml.safe_dump(values))
        for split in ("train", "validation"):
            dialogue.write_turns(folder / f"data/prepared/prompts_{split}.jsonl", turns)
        return folder

    return make


@pytest.fixture(scope="module")
def kept():
    """Keep the outputs of the run that nobody interrupts."""
    return {}


@pytest.fixture
def expected(kept, make_folder):
    if not kept:
        folder = make_folder("whole")
        assert finish(start(folder), folder) == (0, None)
        kept.update(outputs(folder))
        assert not (folder / "work/train_grpo").exists()
    return kept


def test_uninterrupted_run_leaves_every_file_that_is_compared(expected):
    names = {"adapter_model.safetensors", "log.csv", "groups.csv", "samples.jsonl", "reference.json", "settings.json"}
    assert names <= {name.rpartition("/")[2] for name in expected}


# Where a run dies, and the checkpoint that the next one goes on from. A step makes four forward
# passes: for each half of it one for the KL divergence and one for the loss.
DEATHS = {
    "in_the_middle_of_a_step": (Kill(FORWARD, count=11), 2),
    "before_a_checkpoint_has_its_last_file": (Kill("os.rename", r"checkpoint-4/run\.json"), 2),
    "right_after_a_checkpoint": (Kill(FORWARD, count=17), 4),
    "as_an_old_checkpoint_is_deleted": (Kill("shutil.rmtree", "checkpoint-2 "), 4),
    "while_the_reports_are_written": (Kill("os.rename", r"groups\.csv"), 5),
    # The first of its name is deleted with checkpoint 2.
    "while_the_last_checkpoints_are_deleted": (Kill("os.remove", r"optimizer\.pt", count=2), None),
}


@pytest.mark.parametrize("death", DEATHS)
def test_killed_run_goes_on_from_its_last_whole_checkpoint_to_the_same_end(death, make_folder, expected):
    kill, checkpoint = DEATHS[death]
    folder = make_folder("cut")
    assert finish(start(folder, kill), folder)[0] == -signal.SIGKILL
    assert finish(start(folder), folder) == (0, checkpoint)
    assert outputs(folder) == expected


def test_checkpoint_with_half_of_a_file_is_passed_over(make_folder, expected):
    folder = make_folder("cut")
    finish(start(folder, Kill("open", r"checkpoint-4/trainer_state\.json")), folder)
    (optimizer,) = folder.glob("work/**/checkpoint-4/optimizer.pt")
    os.truncate(optimizer, optimizer.stat().st_size // 2)
    assert finish(start(folder), folder) == (0, 2)
    assert outputs(folder) == expected


def test_run_that_is_killed_again_and_again_comes_to_the_same_end(make_folder, expected):
    folder = make_folder("cut")
    for count, checkpoint in ((1, None), (9, None), (9, 2)):
        assert finish(start(folder, Kill(FORWARD, count=count)), folder) == (-signal.SIGKILL, checkpoint)
    assert finish(start(folder), folder) == (0, 4)
    assert outputs(folder) == expected


def test_run_that_another_process_kills_as_a_checkpoint_appears_comes_to_the_same_end(make_folder, expected):
    """Leave how far the checkpoint gets to chance.

    What the next run goes on from is read off the disk.
    """
    folder = make_folder("cut")
    process = start(folder)
    end = time.monotonic() + PATIENCE
    while not list(folder.glob("work/**/checkpoint-2")) and time.monotonic() < end:
        time.sleep(0.0005)
    process.kill()
    assert finish(process, folder)[0] == -signal.SIGKILL
    whole = [int(path.parent.name.rpartition("-")[2]) for path in folder.glob("work/**/checkpoint-*/run.json")]
    assert finish(start(folder), folder) == (0, max(whole, default=None))
    assert outputs(folder) == expected
