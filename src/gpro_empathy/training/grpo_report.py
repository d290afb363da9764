"""What GRPO runs leave to read.

The tables and samples of the report, and a model card for each adapter.
"""

from collections.abc import Sequence
from pathlib import Path

from gpro_empathy import calibration, csv_table, files, model_card
from gpro_empathy.training.grpo_run import Result, Run

# Columns that stand first in every table; the others follow in alphabetical order.
LEADING = ("seed", "step", "group", "sample")


def write_reports(results: Sequence[Result], folder: Path) -> None:
    """Write log, timing, groups and samples of the runs, atomically.

    The runs stand one after the other with their seeds.

    Reference statistics and settings are those of the first: all runs share them.
    """
    with files.atomic_path(folder) as temporary:
        temporary.mkdir()
        for name in ("log", "timing", "groups"):
            files.write_text(temporary / f"{name}.csv", _csv(_with_seed(results, name)))
        files.write_jsonl(temporary / "samples.jsonl", _with_seed(results, "samples"))
        files.write_json(temporary / "reference.json", calibration.statistics_json(results[0].reference))
        seeds = [result.seed for result in results]
        files.write_json(temporary / "settings.json", results[0].settings | {"seeds": seeds})


def _with_seed(results: Sequence[Result], name: str) -> list[dict]:
    return [{"seed": result.seed} | row for result in results for row in getattr(result, name)]


def card(run: Run, result: Result) -> str:
    """Return the adapter's model card."""
    first, last = result.log[0], result.log[-1]
    terms = [
        (f"{name} (raw)", f"{first[f'{name}_raw']:.3f}", f"{last[f'{name}_raw']:.3f}")
        for name in sorted(run.rewards.terms)
    ]
    base = "the base in 4 bits (NF4)" if run.policy.load_in_4bit else "the unquantised base"
    return model_card.render(
        f"{run.policy.model}, trained by GRPO to answer with empathy",
        f"LoRA of rank {run.policy.lora_rank} on {base}, "
        f"{run.config.steps} GRPO steps of {run.config.prompts_per_step} prompts x {run.config.num_generations} responses, "
        f"seed {run.seed}.",
        model_card.table(["training batch mean", f"step {first['step']}", f"step {last['step']}"], terms),
        "The comparison on held-out prompts, with intervals, is in reports/reward_analysis.json. "
        + model_card.POLICY_LIMITS,
    )


def _csv(rows: Sequence[dict]) -> str:
    # Not in the order of the first row: rows that a checkpoint kept come back with their keys
    # sorted.
    columns = sorted(rows[0], key=lambda name: (LEADING.index(name) if name in LEADING else len(LEADING), name))
    return csv_table.text(columns, rows)
