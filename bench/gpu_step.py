"""Compare a GRPO step of a profile with simpler ways to take it, at equal shapes, one after the other in one run.

(a) the profile as it is, with Unsloth and vLLM; (b) Unsloth without vLLM; (c) plain TRL with bitsandbytes and transformers'
own generation; (d) as (c), with the reward models built anew at every call, as the published code does. Random models of the
profile's architectures; without a GPU (c) and (d) at a reduced size.

Writes  bench/gpu_step.{json,md}    (tmp/bench without a GPU)
"""

import argparse
import os
import statistics
import tempfile
from dataclasses import dataclass, fields, replace
from pathlib import Path

from gpro_empathy import files, machine, provenance, rehearsal_numbers, rehearse

NAMES = {
    "a": "the profile: Unsloth and vLLM",
    "b": "Unsloth without vLLM",
    "c": "plain TRL, bitsandbytes, transformers generation",
    "d": "as (c), reward models built at every call",
}
NEEDS_GPU = "needs a GPU"
NO_SETTING = "the unsloth backend has no setting yet that samples without vLLM"
# What timed_step calls the parts of a step, and a training's log.
PARTS = {"generation": "generation", "rewards": "reward", "forward_backward": "loss", "optimizer": "update"}


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", default="llama-3.1-8b", help="a file of profiles/, without .yaml")
    parser.add_argument("--steps", type=int, default=5, help="steps of (c) and (d) after one to warm up (default 5)")
    parser.add_argument("--output", type=Path, help="folder of the results (default bench; tmp/bench without a GPU)")
    arguments = parser.parse_args()
    here = machine.inspect()
    variants: dict[str, dict] = {name: {"seconds": None, "why_not": NEEDS_GPU} for name in NAMES}
    with tempfile.TemporaryDirectory(prefix="gpu-step-") as scratch:
        plan = rehearse.lay_out(arguments.profile, Path(scratch), reduced=not here.gpus)
        plan.run("build")
        if here.gpus:
            variants["b"]["why_not"] = NO_SETTING
            plan.run("train")
            variants["a"] = {"seconds": rehearsal_numbers.seconds(Path(scratch))}
        variants |= plain(plan, arguments.steps)
    versions = provenance.packages()
    result = {"reduced": not here.gpus, "gpu": here.gpus[0].name if here.gpus else None, "versions": versions}
    result |= {"profile": arguments.profile, "variants": variants}
    folder = arguments.output or Path("bench" if here.gpus else "tmp/bench")
    files.write_json(folder / "gpu_step.json", result)
    files.write_text(folder / "gpu_step.md", text(result))
    print(text(result), end="")


def plain(plan: rehearse.Plan, steps: int) -> dict[str, dict]:
    """Measure (c) and (d) in turn, after one step each to warm up; return their median seconds by part."""
    from timed_step import Setting, measure

    kept, rebuilt = _benches(plan)
    grpo, config = plan.config.train_grpo, plan.config.policy
    turns = files.read_jsonl(plan.folder / "data/prepared/prompts_train.jsonl")
    texts = [turn["text"] for turn in turns[: grpo.prompts_per_step]]
    in_forward = grpo.completions_per_forward
    setting = Setting(texts, grpo.num_generations, in_forward, config.max_completion_tokens, fixed_length=True)
    found: dict[str, list] = {"c": [], "d": []}
    for seed in range(steps + 1):
        for name, bench in (("c", kept), ("d", rebuilt)):
            step = measure("stock", bench, setting, seed)
            found[name].append(step.seconds | {"step": step.whole})
            print(f"({name}) step {seed}: {step.whole:.2f} s", flush=True)
    names = PARTS | {"step": "step"}
    return {
        name: {"seconds": {ours: statistics.median(row[theirs] for row in rows[1:]) for theirs, ours in names.items()}}
        for name, rows in found.items()
    }


def _benches(plan: rehearse.Plan):
    """Return what (c) and (d) are given: one model, and rewards that are loaded once or at every call."""
    import torch
    from timed_step import Bench

    from gpro_empathy import policy, rewards

    @dataclass(frozen=True)
    class Rebuilt(rewards.RewardModel):
        """Rewards whose models are loaded anew at every call."""

        def raw(self, utterances, responses):
            return rewards.load(self.config, scorer).raw(utterances, responses)

    scorer, folder = plan.folder / "models/scorer", plan.folder / "models/policy"
    config = plan.config.policy.model_copy(update={"backend": "transformers"})
    grpo = plan.config.train_grpo.model_copy(update={"vllm_mode": "none", "launcher": "none"})
    torch.manual_seed(0)
    model = policy.add_lora(policy.load_base(config, folder), config, None)
    known = {name: {"mean": 0.0, "sd": 1.0} for name in rewards.CALIBRATED}
    terms = rewards.with_reference(rewards.load(plan.config.rewards, scorer), known)
    once = Bench(model, policy.load_tokenizer(folder), terms, grpo, config, plan.folder / "trainer")
    rebuilt = Rebuilt(**{field.name: getattr(terms, field.name) for field in fields(terms)})
    return once, replace(once, rewards=rebuilt)


def text(result: dict) -> str:
    """Return the comparison as Markdown."""
    where = f"{rehearse.SAYS_REDUCED}." if result["reduced"] else f"On one {result['gpu']}, at the profile's size."
    columns = ("step", *rehearsal_numbers.PARTS)
    header = f"| {result['profile']} | seconds a {' | '.join(columns)} | times (c) |"
    lines = [where, "", header, "|---" * (len(columns) + 2) + "|"]
    reference = result["variants"]["c"]["seconds"]["step"]
    for name, variant in result["variants"].items():
        seconds = variant["seconds"]
        if seconds is None:
            cells = [f"not measured: {variant['why_not']}", *[""] * len(columns)]
        else:
            cells = [*(f"{seconds[part]:.2f}" for part in columns), f"{reference / seconds['step']:.2f}"]
        lines.append(f"| ({name}) {NAMES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    files.run_stage(main)
