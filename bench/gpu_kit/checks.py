"""Check what follows a training in FOLDER: its rollouts and its adapter read back; or, with `alone`, Unsloth without vLLM.

`python bench/gpu_kit/checks.py FOLDER after` or `... FOLDER alone`; results in FOLDER, printed as they come.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import yaml

from gpro_empathy import files, params, rehearse

RESPONSE, STEPS = 130, 3


def plan_in(folder: Path) -> rehearse.Plan:
    """Return the plan of a rehearsal that is laid out and built."""
    config = params.check(yaml.safe_load((folder / "params.yaml").read_text()), folder / "params.yaml")
    return rehearse.Plan("llama-3.1-8b", config, config, {}, folder, reduced=False)


def after(folder: Path) -> None:
    """Run the tasks rollout and reload, each whatever becomes of the other."""
    for name in ("reload", "rollout"):
        try:
            print(name, json.dumps(plan_in(folder).run(name)), flush=True)
        except files.UserError as error:
            print(name, "FAILED:", error, flush=True)
    if (folder / "reload.json").is_file():
        print((folder / "reload.json").read_text(), flush=True)


def alone(folder: Path) -> None:
    """Train a few short steps by Unsloth without vLLM, and read the adapter back, beside the models of `folder`."""
    beside = folder.with_name(folder.name + "-alone")
    shutil.rmtree(beside, ignore_errors=True)
    (beside / "models").mkdir(parents=True)
    for name in ("policy", "scorer", "audit_scorer", "warm_start"):
        (beside / "models" / name).symlink_to(folder / "models" / name)
    (beside / "data").symlink_to(folder / "data")
    shutil.copy(folder / "params.yaml", beside)
    plan = plan_in(beside).with_settings("policy", max_completion_tokens=RESPONSE)
    plan = plan.with_settings("train_grpo", vllm_mode="none", steps=STEPS, save_steps=STEPS)
    print(json.dumps(plan.run("train", "reload")), flush=True)
    print((beside / "reload.json").read_text(), (beside / "reports/training/timing.csv").read_text(), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    {"after": after, "alone": alone}[sys.argv[2]](Path(sys.argv[1]).absolute())
