"""Compare what a step's matrix products take with what the machine's rate allows.

The second is what they would take at the rate that this machine multiplies matrices.
"""

from torch import nn

import matrix_rate
from timed_step import Bench, Setting, Step


def measure(bench: Bench, case: Setting, counted: dict[str, Step], timed: dict[str, Step]) -> dict:
    """Measure the machine's rates, and compare a step with them.

    The step is the one whose arithmetic was counted (`counted`), and which was timed (`timed`).

    A part's `share` is the time that its products would take at the measured rates over the time
    that it took: the reading of prompts, and the passes of the loss, at the rate of as many rows as
    a forward pass of the stock trainer has; decoding at that of one row per response; the better of
    the two ways for each.
    """
    longest_prompt = max(len(ids) for ids in timed["stock"].prompt_ids)
    rows = {
        "decoding": len(case.prompts) * case.num_generations,
        "training": case.completions_per_forward * (longest_prompt + case.max_tokens),
    }
    print("  measuring matrix products", flush=True)
    at = {name: matrix_rate.rates(bench.model, number) for name, number in rows.items()}
    best = {name: 1e9 * max(rate for key, rate in rates["all"].items() if key.startswith(bench.dtype))
            for name, rates in at.items()}  # fmt: skip
    parts = []
    for kind, step in timed.items():
        sequences = len(case.prompts) * (case.num_generations if kind == "stock" else 1)
        reading = 2.0 * sequences * longest_prompt * _weights(bench.model, with_lora=kind == "stock")
        decoding = counted[kind].flops["generation"] - reading
        ideal = {
            "generation": reading / best["training"] + decoding / best["decoding"],
            "forward_backward": counted[kind].flops["forward_backward"] / best["training"],
        }
        for part, seconds in ideal.items():
            flops, taken = counted[kind].flops[part], step.seconds[part]
            row = {"trainer": kind, "part": part, "gflop": flops / 1e9, "seconds": taken}
            parts.append(row | {"gflop_per_second": flops / taken / 1e9, "share": seconds / taken})
    square = matrix_rate.square_rates(next(bench.model.parameters()).device)
    return {"dtype": bench.dtype, "square": square, "at": at, "parts": parts}


def _weights(model: nn.Module, with_lora: bool) -> int:
    """Return how many weights multiply each token of a prompt.

    They are those of all linear layers but the head.
    """
    head = model.get_output_embeddings()
    linear = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head]
    return sum(m.in_features * m.out_features for name, m in linear if with_lora or "lora_" not in name)
