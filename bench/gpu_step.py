"""Compare a GRPO step of a profile with simpler ways to take it, at equal shapes.

The ways are taken one after the other in one run:

(a) the profile as it is, with Unsloth and vLLM; (b) Unsloth without vLLM; (c) plain TRL with
bitsandbytes and transformers' own generation; (d) as (c), with the reward models built anew at
every call, as the published code does. Random models of the profile's architectures; without a GPU
(c) and (d) at a reduced size.

Writes  bench/gpu_step.{json,md}    (tmp/bench without a GPU)
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import rehearse
from gpro_empathy import entry_point, files, machine
from gpro_empathy.report import provenance
from gpro_empathy.tools import doctor, profiles
from rehearsal import machine_check, results, tasks
from rehearsal.plan import SAYS_REDUCED, Plan, lay_out

NAMES = {
    "a": "the profile: Unsloth and vLLM",
    "b": "Unsloth without vLLM",
    "c": "plain TRL, bitsandbytes, transformers generation",
    "d": "as (c), reward models built at every call",
}
NEEDS_GPU = "needs a GPU"
# What timed_step calls the parts of a step, and a training's log.
PARTS = {"generation": "generation", "rewards": "reward", "forward_backward": "loss", "optimizer": "update"}


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", default="llama-3.1-8b", help="a file of profiles/, without .yaml")
    parser.add_argument(
        "--steps", type=int, default=3, help="steps of (b), (c) and (d) after one to warm up (default 3)"
    )
    parser.add_argument("--card", type=float, metavar="GIB", help=rehearse.CARD)
    parser.add_argument("--only", default="abcd", help="which to measure, such as cd; others stay as they were written")
    parser.add_argument("--output", type=Path, help="folder of the results (default bench; tmp/bench without a GPU)")
    arguments = parser.parse_args()
    this_machine = doctor.with_usable_gpus(machine.inspect(), profiles.preview(arguments.profile))
    part = rehearse.part_of_gpu(arguments.card, this_machine)
    folder = arguments.output or Path("bench" if this_machine.gpus else "tmp/bench")
    with tempfile.TemporaryDirectory(prefix="gpu-step-") as scratch:
        plan = lay_out(arguments.profile, Path(scratch), not this_machine.gpus, part)
        if this_machine.gpus and set("ab") & set(arguments.only):
            machine_check.check(plan, this_machine, part)
        plan.run("build")
        measurements = (
            {"a": lambda: whole(plan, this_machine), "b": lambda: without_vllm(plan, arguments.steps)}
            if this_machine.gpus
            else {}
        )
        measurements["cd"] = lambda: plain(plan, arguments.steps)
        for names, measurement in measurements.items():
            if set(names) & set(arguments.only):
                save(attempt(names, measurement), folder, arguments.profile, this_machine)
    print(files.read_text(folder / "gpu_step.md"), end="")


def attempt(names: str, measure: Callable[[], dict[str, dict]]) -> dict[str, dict]:
    """Return what `measure` measured, or why it could not: the others are measured all the same."""
    try:
        return measure()
    except files.UserError as error:
        print(f"({names}) {error}", flush=True)
        return {name: {"seconds": None, "why_not": str(error)} for name in names}


def save(variants: dict[str, dict], folder: Path, profile: str, this_machine: machine.Machine) -> None:
    """Add variants to the results in `folder`.

    If those results are of another machine or profile, begin them anew.
    """
    result = {
        "reduced": not this_machine.gpus,
        "gpu": this_machine.gpus[0].name if this_machine.gpus else None,
        "profile": profile,
    }
    result["versions"] = provenance.packages()
    path = folder / "gpu_step.json"
    before = files.read_json(path) if path.is_file() else {}
    same = all(before.get(name) == value for name, value in result.items())
    known = before["variants"] if same else {name: {"seconds": None, "why_not": NEEDS_GPU} for name in NAMES}
    result["variants"] = known | variants
    files.write_json(path, result)
    files.write_text(folder / "gpu_step.md", text(result))


def whole(plan: Plan, this_machine: machine.Machine) -> dict[str, dict]:
    """Measure (a) by the whole rehearsal, with its report.

    Its steps count also if a task after them fails.
    """
    measured = rehearse.measure(plan, this_machine)
    try:
        rehearse.report(measured)
    except files.UserError as error:
        print(f"(a) {error}", flush=True)
    return {"a": {"seconds": measured["seconds_per_step"], "peak_gib": measured["peak_memory_gib"]["train"]}}


def without_vllm(plan: Plan, steps: int) -> dict[str, dict]:
    """Measure (b): the median of `steps` after one to warm up."""
    taken = plan.with_settings("train_grpo", vllm_mode="none", steps=steps + 1, save_steps=steps + 1).run("train")
    return {"b": {"seconds": results.seconds(plan.folder), "peak_gib": taken["train"]["peak_gib"]}}


def plain(plan: Plan, steps: int) -> dict[str, dict]:
    """Measure (c) and (d) in turn, and return their median seconds by part.

    Each takes one step to warm up first.
    """
    from timed_step import Setting, measure

    kept, rebuilt = _benches(plan)
    grpo, config = plan.config.train_grpo, plan.config.policy
    turns = files.read_jsonl(plan.folder / "data/prepared/prompts_train.jsonl")
    texts = [turn["text"] for turn in turns[: grpo.prompts_per_step]]
    in_forward = grpo.completions_per_forward
    setting = Setting(texts, grpo.num_generations, in_forward, config.max_completion_tokens, fixed_length=True)
    steps_by_name: dict[str, list] = {"c": [], "d": []}
    with tasks.Watch() as watch:
        for seed in range(steps + 1):
            for name, bench in (("c", kept), ("d", rebuilt)):
                step = measure("stock", bench, setting, seed)
                steps_by_name[name].append(step.seconds | {"step": step.whole})
                print(f"({name}) step {seed}: {step.whole:.2f} s", flush=True)
    return {name: {"seconds": _medians(rows[1:]), "peak_gib": watch.peak_gib()} for name, rows in steps_by_name.items()}


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    names = PARTS | {"step": "step"}
    return {ours: statistics.median(row[theirs] for row in rows) for theirs, ours in names.items()}


def _benches(plan: Plan):
    """Return what (c) and (d) are given: one model, and rewards loaded once or at every call."""
    import torch

    from gpro_empathy import calibration, rewards
    from gpro_empathy.policy import loading
    from timed_step import Bench

    @dataclass(frozen=True)
    class Rebuilt(rewards.RewardModel):
        """Rewards whose models are loaded anew at every call."""

        def raw(self, utterances, responses):
            return rewards.load(self.config, trained, start).raw(utterances, responses)

    trained = plan.folder / "models"
    folder = plan.folder / "models/policy"
    config = plan.config.policy.model_copy(update={"backend": "transformers"})
    start = rewards.StartingPolicy(config, folder, None)
    grpo = plan.config.train_grpo.model_copy(update={"vllm_mode": "none", "launcher": "none"})
    torch.manual_seed(0)
    model = loading.add_lora(loading.load_base(config, folder), config, None)
    known = {name: {"mean": 0.0, "sd": 1.0} for name in calibration.CALIBRATED}
    terms = rewards.with_reference(rewards.load(plan.config.rewards, trained, start), known)
    once = Bench(model, loading.load_tokenizer(folder), terms, grpo, config, plan.folder / "trainer")
    rebuilt = Rebuilt(**{field.name: getattr(terms, field.name) for field in fields(terms)})
    return once, replace(once, rewards=rebuilt)


def text(result: dict) -> str:
    """Return the comparison as Markdown."""
    where = f"{SAYS_REDUCED}." if result["reduced"] else f"On one {result['gpu']}, at the profile's size."
    columns = ("step", *results.PARTS)
    header = f"| {result['profile']} | seconds a {' | '.join(columns)} | steps for one of (c) | peak GiB |"
    lines = [where, "", header, "|---" * (len(columns) + 3) + "|"]
    reference = result["variants"]["c"]["seconds"]
    for name, variant in result["variants"].items():
        seconds = variant["seconds"]
        if seconds is None:
            cells = [f"not measured: {variant['why_not']}", *[""] * (len(columns) + 1)]
        else:
            ratio = f"{reference['step'] / seconds['step']:.2f}" if reference else ""
            cells = [*(f"{seconds[part]:.2f}" for part in columns), ratio, f"{variant['peak_gib']:.1f}"]
        lines.append(f"| ({name}) {NAMES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    entry_point.run_stage(main)
