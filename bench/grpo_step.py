"""Time a GRPO step of TRL's own trainer and of this package's, on one machine, in one run.

Reads   params.yaml, data/embedded/           settings and prompts
        models/{policy,warm_start,scorer}/    where they are; else the policy as it comes
                                              and an untrained scorer
Writes  bench/grpo_step.json                  every number
        bench/grpo_step.md                    the same to read
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import gpro_empathy  # noqa: F401 - before the libraries that import bitsandbytes, a warning of which it silences

# isort: split
import growth
import products
import report
import same_completions
import start
from gpro_empathy import entry_point, files, params
from start import SEED
from timed_step import KINDS, Bench, Setting, Step, measure

# At most so many prompts in a step, which keeps the whole within its time.
PROMPTS = 3
# The rounds end when they have taken this share of the time, once there are two.
ROUNDS_SHARE = 0.4


class Clock:
    """The time that the benchmark may take."""

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes
        self.started = time.perf_counter()

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.seconds - (time.perf_counter() - self.started)


def main() -> None:
    """Run the benchmark."""
    arguments = _arguments()
    clock = Clock(arguments.minutes)
    settings = params.load_all()
    if arguments.quick:
        tiny = settings.policy.model_copy(update={"model": "random", "max_completion_tokens": 16})
        settings = settings.model_copy(update={"policy": tiny})
    with tempfile.TemporaryDirectory() as scratch:
        bench, begins = start.load(settings, Path(scratch), arguments.quick)
        result = run(
            bench, settings, clock, arguments.steps, fixed_length=begins != "warm start", quick=arguments.quick
        )
    result["setting"] |= {"start": begins, "quick": arguments.quick}
    files.write_json(arguments.output / "grpo_step.json", result)
    files.write_text(arguments.output / "grpo_step.md", report.text(result))
    print(f"Written: {arguments.output / 'grpo_step.md'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--steps", type=int, default=5, help="rounds of one step of each trainer (default 5; 2 or more)"
    )
    parser.add_argument("--minutes", type=float, default=15, help="about how long it may take in all (default 15)")
    parser.add_argument("--quick", action="store_true", help="two rounds of a tiny random model, to try the benchmark")
    parser.add_argument("--output", type=Path, help="folder of the results (default bench; tmp/bench with --quick)")
    arguments = parser.parse_args()
    if arguments.steps < 2:
        raise files.UserError(f"--steps is {arguments.steps}; a spread takes 2 or more")
    if arguments.quick:
        arguments.steps = 2
    arguments.output = arguments.output or Path("tmp/bench" if arguments.quick else "bench")
    return arguments


def run(bench: Bench, settings: params.Params, clock: Clock, steps: int, *, fixed_length: bool, quick: bool) -> dict:
    """Measure everything, and return it as it is written."""
    grpo = settings.train_grpo
    size = min(grpo.prompts_per_step, PROMPTS)
    in_forward = grpo.completions_per_forward
    if size * grpo.num_generations % in_forward:
        in_forward = grpo.num_generations
    texts = start.corpus_prompts(bench, settings)
    batches = [texts[i : i + size] for i in range(0, steps * size, size)]
    cases = [
        Setting(batch, grpo.num_generations, in_forward, bench.policy.max_completion_tokens, fixed_length)
        for batch in batches
    ]
    counted = {kind: _step("counting", kind, measure(kind, bench, cases[0], SEED, count_flops=True)) for kind in KINDS}
    rounds = list(_rounds(bench, cases, clock))
    same = [same_completions.compare(bench, cases[0], SEED, rounds=2 if clock.left() > clock.seconds / 3 else 1)]
    if bench.dtype != "float32":
        same.append(_in_float32(settings, cases[0], bench.folder.parent, quick))
    rates = products.measure(bench, cases[0], counted, rounds[0])
    points = growth.points(bench, texts, quick)
    return {
        "machine": start.machine(),
        "setting": _setting(bench, settings, cases[0], len(rounds)),
        "rounds": [{kind: _numbers(step) for kind, step in steps.items()} for steps in rounds],
        "ratios": _ratios(rounds),
        "same_completions": same,
        "products": rates,
        "growth": growth.measure_all(bench, points, clock, SEED),
        "minutes": (time.perf_counter() - clock.started) / 60,
    }


def _in_float32(settings: params.Params, case: Setting, scratch: Path, quick: bool) -> dict:
    """Compare both trainers on one prompt in float32.

    There rounding hides less than in the policy's own format.
    """
    policy = settings.policy.model_copy(update={"dtype": "float32"})
    bench, _ = start.load(settings.model_copy(update={"policy": policy}), scratch, quick)
    small = replace(case, prompts=case.prompts[:1], completions_per_forward=case.num_generations)
    return same_completions.compare(bench, small, SEED, rounds=1)


def _rounds(bench: Bench, cases: Sequence[Setting], clock: Clock) -> Iterator[dict[str, Step]]:
    for number, case in enumerate(cases):
        if number >= 2 and clock.left() < (1 - ROUNDS_SHARE) * clock.seconds:
            print(f"  {number} rounds have taken their share of the time: no more of them", flush=True)
            return
        label = f"round {number + 1}/{len(cases)}"
        yield {kind: _step(label, kind, measure(kind, bench, case, SEED + number)) for kind in KINDS}


def _step(label: str, kind: str, step: Step) -> Step:
    parts = ", ".join(f"{name} {value:.1f}" for name, value in step.seconds.items())
    print(f"  {label}, {kind}: {step.whole:.1f} s ({parts}), {step.tokens} tokens", flush=True)
    return step


def _numbers(step: Step) -> dict:
    lengths = [len(ids) for ids in step.completion_ids]
    return {
        "seconds": step.seconds | {"step": step.whole},
        "completion_tokens": step.tokens,
        "longest_completion": max(lengths),
        "prompt_tokens": sum(len(ids) for ids in step.prompt_ids),
        "longest_prompt": max(len(ids) for ids in step.prompt_ids),
        "tokens_per_second": {name: step.tokens / value for name, value in _named(step).items()},
    }


def _named(step: Step) -> dict[str, float]:
    return step.seconds | {"step": step.whole}


def _ratios(rounds: Sequence[dict[str, Step]]) -> dict:
    """Return by part how many times our seconds per response token the stock trainer takes.

    Each ratio has its median, least and most.
    """
    ratios = {}
    for name in _named(rounds[0]["ours"]):
        per_token = [{kind: _named(step)[name] / step.tokens for kind, step in steps.items()} for steps in rounds]
        values = [seconds["stock"] / seconds["ours"] for seconds in per_token if seconds["ours"] > 0]
        ratios[name] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return ratios


def _setting(bench: Bench, settings: params.Params, case: Setting, rounds: int) -> dict:
    grpo = settings.train_grpo
    adapter = bench.model.peft_config[bench.model.active_adapter]
    return {
        "model": bench.policy.model,
        "parameters": sum(p.numel() for p in bench.model.parameters()),
        "load_in_4bit": bench.policy.load_in_4bit,
        "dtype": bench.dtype,
        "lora_rank": adapter.r,
        "lora_dtype": next(str(p.dtype) for p in bench.model.parameters() if p.requires_grad).removeprefix("torch."),
        "prompts_per_step": len(case.prompts),
        "num_generations": grpo.num_generations,
        "completions_per_forward": case.completions_per_forward,
        "max_completion_tokens": bench.policy.max_completion_tokens,
        "loss_type": grpo.loss_type,
        "kl_beta": grpo.kl_beta,
        "temperature": grpo.temperature,
        "top_p": grpo.top_p,
        "rewards": sorted(settings.rewards.weights),
        "fixed_length": case.fixed_length,
        "rounds": rounds,
    }


if __name__ == "__main__":
    entry_point.run_stage(main)
