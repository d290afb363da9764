"""The benchmark's results as a text to read."""

import statistics
from collections.abc import Sequence

NAMES = {
    "generation": "generation",
    "rewards": "rewards",
    "forward_backward": "forward and backward",
    "optimizer": "optimizer",
    "other": "other",
    "step": "**whole step**",
}
TRAINERS = {"stock": "stock TRL", "ours": "ours"}
VARIED = {
    "num_generations": ("Responses per prompt", "responses"),
    "prompt_tokens": ("Tokens of the prompt", "prompt tokens"),
    "completion_tokens": ("Tokens of each response", "response tokens"),
}


def text(result: dict) -> str:
    """Return the results, as grpo_step.json holds them, as Markdown."""
    sections = [
        _head(result),
        _parts(result),
        _same(result),
        _rates(result),
        _shares(result),
        _growth(result["growth"]),
    ]
    return "\n\n".join(sections) + "\n"


def _head(result: dict) -> str:
    machine, setting = result["machine"], result["setting"]
    stop = (
        f"every response is made {setting['max_completion_tokens']} tokens long, since an untrained policy never stops"
        if setting["fixed_length"]
        else f"the policy is the warm-started one, which ends its responses itself, at most {setting['max_completion_tokens']} tokens"
    )
    quick = (
        "**A quick run of a tiny model: it shows that the benchmark works, and nothing else.**\n\n"
        if setting["quick"]
        else ""
    )
    dequantised = " and dequantised" if machine["device"] == "cpu" else ""
    bits = f"quantised to NF4{dequantised}" if setting["load_in_4bit"] else "not quantised"
    return (
        "# One GRPO step: TRL's stock trainer and this package's\n\n"
        f"{quick}Written by `make bench` in {result['minutes']:.1f} minutes. Machine: {machine['processor']}, {machine['cores']} cores "
        f"({machine['instructions']}), {machine['threads']} threads, computing on {machine['device']}; torch {machine['torch']}, "
        f"transformers {machine['transformers']}, TRL {machine['trl']}.\n\n"
        f"Both train the same model, {setting['model']} ({setting['parameters'] / 1e6:.1f} million parameters, {bits}, {setting['dtype']}, LoRA "
        f"of rank {setting['lora_rank']} in {setting['lora_dtype']}) on the same prompts of the embedded corpus with the same rewards "
        f"({', '.join(setting['rewards'])}) and settings: {setting['prompts_per_step']} prompts x {setting['num_generations']} responses "
        f"a step, {setting['completions_per_forward']} in a forward pass; {stop}. The stock trainer is `trl.GRPOTrainer` with "
        "transformers' `generate`. The learning rate is 0, so that every round measures the same policy. "
        f"{setting['rounds']} rounds, in each one step of either trainer; one more of each before them warmed up and was not timed."
    )


def _parts(result: dict) -> str:
    rows = []
    for name, label in NAMES.items():
        cells = [label]
        for kind in TRAINERS:
            cells.append(f"{statistics.median([steps[kind]['seconds'][name] for steps in result['rounds']]):.3g}")
        for kind in TRAINERS:
            rates = [steps[kind]["tokens_per_second"][name] for steps in result["rounds"]]
            shown = name in ("generation", "rewards", "forward_backward", "step")
            cells.append(f"{statistics.median(rates):,.0f}" if shown else "")
        ratio = result["ratios"][name]
        rows.append([*cells, f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"])
    header = ["part", "stock, s", "ours, s", "stock, tokens/s", "ours, tokens/s", "times faster (range)"]
    lengths = {
        kind: statistics.median([steps[kind]["completion_tokens"] for steps in result["rounds"]]) for kind in TRAINERS
    }
    return (
        "## Time of a step\n\nMedians over the rounds. Tokens are those of the responses, "
        f"{lengths['stock']:.0f} a step (stock) and {lengths['ours']:.0f} (ours). How many times faster is the ratio of the "
        "seconds per response token, within each round: its median, least and greatest.\n\n" + _table(header, rows)
    )


def _same(result: dict) -> str:
    return (
        "## The same completions\n\nBoth trainers are given the same sampled responses. The log-probabilities at sampling are put "
        f"off by noise of standard deviation {result['same_completions'][0]['off_policy_sd']} nats, the same for both: with the "
        "policy's own the loss would be the same whatever it computes.\n\n"
        + "\n\n".join(_comparison(same) for same in result["same_completions"])
    )


def _comparison(same: dict) -> str:
    seconds = {kind: statistics.median(values) for kind, values in same["forward_backward_seconds"].items()}
    loss = same["loss"]
    rows = [
        ["loss, stock", f"{loss['stock']:.9f}"],
        ["loss, ours", f"{loss['ours']:.9f}"],
        ["difference of the losses", f"{abs(loss['ours'] - loss['stock']):.2e}"],
        [
            "largest difference of a token's log-probability, nats",
            f"{same['largest_difference_of_log_probabilities']:.2e}",
        ],
        ["mean difference of a token's log-probability, nats", f"{same['mean_difference_of_log_probabilities']:.2e}"],
        [
            "norm of the gradients' difference over the gradient's norm",
            f"{same['relative_difference_of_gradients']:.2e}",
        ],
        ["forward and backward, stock, s", f"{seconds['stock']:.3g}"],
        ["forward and backward, ours, s", f"{seconds['ours']:.3g}"],
        ["times faster", f"{seconds['stock'] / seconds['ours']:.2f}"],
    ]
    sizes = f"{same['completions']} responses, {same['completion_tokens']} tokens"
    return _table([f"{same['dtype']}, {sizes}", ""], rows)


def _rates(result: dict) -> str:
    products = result["products"]
    parts = []
    for name, measured in products["at"].items():
        rows = [
            [f"{s['inputs']} to {s['outputs']}", str(s["layers"]), *(f"{s[key]:.1f}" for key in measured["all"])]
            for s in measured["shapes"]
        ]
        rows.append(["all in a row", "", *(f"**{rate:.1f}**" for rate in measured["all"].values())])
        header = ["layer", "how many", *(key.replace("_", " ") for key in measured["all"])]
        parts.append(f"{name.capitalize()}, {measured['rows']} rows:\n\n" + _table(header, rows))
    square = ", ".join(f"{rate:.0f} in {name}" for name, rate in products["square"].items())
    return (
        "## What the machine can do\n\nGFLOP/s of matrix products at the shapes of the model's layers, by a linear layer and, frozen, "
        f"by the layers that the decoder has in its place. Two large square matrices reach {square}.\n\n"
        + "\n\n".join(parts)
    )


def _shares(result: dict) -> str:
    rows = [
        [TRAINERS[part["trainer"]], NAMES[part["part"]], f"{part['gflop']:.4g}", f"{part['seconds']:.3g}",
         f"{part['gflop_per_second']:.1f}", f"{100 * part['share']:.0f} %"]
        for part in result["products"]["parts"]
    ]  # fmt: skip
    return (
        "## How close the trainers come to it\n\nArithmetic of the matrix products with weights (attention is left out), counted in the "
        f"first round; {result['products']['dtype']}. The share is the time that these products would take at the rates above, in the "
        "better of the two ways, over the time that the part took. Less arithmetic for the same responses is a gain of its own: ours reads "
        "each prompt once.\n\n"
        + _table(["trainer", "part", "GFLOP", "s", "GFLOP/s", "share of the machine's rate"], rows)
    )


def _growth(tables: dict[str, list[dict]]) -> str:
    parts = []
    for name, (title, column) in VARIED.items():
        rows = []
        for row in tables[name]:
            stock, ours = row["stock"], row["ours"]
            cells = [
                f"{pair[part]:.3g}" for part in ("step", "generation", "forward_backward") for pair in (stock, ours)
            ]
            rows.append([str(row["value"]), *cells, f"{stock['step'] / ours['step']:.2f}", str(row["measured"])])
        header = [column, "step: stock", "ours", "generation: stock", "ours", "forward and backward: stock", "ours",
                  "times faster", "measured"]  # fmt: skip
        left_out = "" if rows else "\n\nThe time did not reach for this table."
        parts.append(f"{title}:\n\n" + _table(header, rows) + left_out)
    return (
        "## How the time grows\n\nSeconds of a step of one prompt, whose responses all have the same fixed length; the last column says "
        "how often each was measured.\n\n" + "\n\n".join(parts)
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
