"""Measure how the time of a step of one prompt grows with its shape.

The group, the prompt and the response vary, all of fixed length.
"""

import statistics
import time
from collections.abc import Sequence

from gpro_empathy import response_format
from gpro_empathy.policy import loading
from timed_step import KINDS, Bench, Setting, Step, measure

# What is varied, its values, and those of a quick run; prompts are made to have at least so many
# tokens.
VARIED = {
    "num_generations": ((2, 4, 8), (2, 4)),
    "prompt_tokens": ((128, 256, 512), (128, 192)),
    "completion_tokens": ((28, 56, 112), (8, 16)),
}
# What the others are meanwhile.
USUAL = {"num_generations": (4, 4), "prompt_tokens": (128, 128), "completion_tokens": (56, 8)}


def points(bench: Bench, texts: Sequence[str], quick: bool) -> list[dict]:
    """Return the steps to measure, each as {what is varied, its value, the setting}."""
    steps = []
    for name, values in VARIED.items():
        for value in values[quick]:
            given = {key: usual[quick] for key, usual in USUAL.items()} | {name: value}
            group = given["num_generations"]
            text, tokens = _prompt_of(bench, texts, given["prompt_tokens"])
            setting = Setting([text], group, group, given["completion_tokens"], fixed_length=True)
            steps.append({"varied": name, "value": tokens if name == "prompt_tokens" else value, "setting": setting})
    return steps


def measure_all(bench: Bench, points: Sequence[dict], clock, seed: int) -> dict[str, list[dict]]:
    """Measure every point with both trainers, and return one table per varied quantity.

    Where time is left, every point is measured twice.

    Points that were not reached are missing. Equal settings are measured once.
    """
    taken: dict[int, dict[str, list[Step]]] = {}
    first_pass = 0.0
    for repeat in range(2):
        started = time.perf_counter()
        if repeat and clock.left() < first_pass:
            break
        for index, point in enumerate(points):
            twin = next(i for i, other in enumerate(points) if other["setting"] == point["setting"])
            if twin == index and clock.left() > 0:
                _add(bench, point, taken.setdefault(index, {kind: [] for kind in KINDS}), seed + repeat)
            elif twin in taken:
                taken[index] = taken[twin]
        first_pass = time.perf_counter() - started
    tables: dict[str, list[dict]] = {name: [] for name in VARIED}
    for index, steps in sorted(taken.items()):
        tables[points[index]["varied"]].append({"value": points[index]["value"]} | _row(steps))
    return tables


def _add(bench: Bench, point: dict, steps: dict[str, list[Step]], seed: int) -> None:
    for kind in KINDS:
        step = measure(kind, bench, point["setting"], seed)
        steps[kind].append(step)
        print(f"  {point['varied']} {point['value']}, {kind}: {step.whole:.1f} s", flush=True)


def _row(steps: dict[str, list[Step]]) -> dict:
    row: dict = {"measured": len(steps["ours"])}
    for kind, taken in steps.items():
        row[kind] = {
            "step": statistics.median(step.whole for step in taken),
            "generation": statistics.median(step.seconds["generation"] for step in taken),
            "forward_backward": statistics.median(step.seconds["forward_backward"] for step in taken),
        }
    return row


def _prompt_of(bench: Bench, texts: Sequence[str], tokens: int) -> tuple[str, int]:
    """Join turns of the corpus until the chat prompt has `tokens` tokens.

    Return the prompt with its length.
    """
    joined: list[str] = []
    for text in texts:
        joined.append(text)
        length = len(loading.prompt_ids(bench.tokenizer, response_format.messages(" ".join(joined))))
        if length >= tokens:
            break
    return " ".join(joined), length
