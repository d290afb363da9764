"""Best of eight: what choosing by the reward gives without any training, the baseline of GRPO.

    make best-of                          on the validation prompts
    make best-of ARGS="--split test"      on the test prompts, once settings are frozen

The warm-started policy of the last `dvc repro` answers each prompt eight times, and the answer that
the reward, calibrated against its reference, puts highest is kept. Compared are the kept answers
with the mean over all eight, which is what one draw gives, paired by prompt, with intervals by
story. Writes bench/best_of.json, with the kept answers, and bench/best_of.md.
"""

import argparse
from pathlib import Path

import numpy as np

from gpro_empathy import entry_point, files, params, rewards
from gpro_empathy.analysis import bootstrap, estimates
from gpro_empathy.data import dialogue
from gpro_empathy.policy import adapters, loading
from gpro_empathy.stages import rollout, train_grpo
from gpro_empathy.training import rollouts

HERE = Path(__file__).parent
RESULT = HERE / "best_of.json"
DRAWS = 8
# What the answers and their scores depend on; kept, so that the report quotes only its own run's.
SECTIONS = (
    params.Policy,
    params.Rewards,
    params.Prepare,
    params.TrainScorer,
    params.TrainReader,
    params.WarmStart,
    params.Rollout,
)
MEASURED = {
    "empathy_raw": "empathy, reward's scorer",
    "audit_empathy_raw": "empathy, held-out scorer",
    "likelihood_raw": "likelihood, nats a token",
    "well_formed": "well-formed",
    "answer_words": "words",
    "overlap": "overlap with the message",
}


def main() -> None:
    """Sample, choose, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("validation", "test"), default="validation", help="default: %(default)s")
    split = parser.parse_args().split
    rows = sampled(split)
    kept = best(rows)
    found = files.read_json(RESULT) if RESULT.is_file() else {}
    found[split] = {
        "draws": DRAWS,
        "prompts": len(kept),
        "stories": len({row["story"] for row in kept}),
        "settings": {one.section_name(): params.load(one).model_dump(mode="json") for one in SECTIONS},
        "measures": compared(rows, kept),
        "answers": [{name: row[name] for name in ("prompt_id", "sample", "text")} for row in kept],
    }
    files.write_json(RESULT, found)
    files.write_text(RESULT.with_suffix(".md"), report(found))
    print(RESULT.with_suffix(".md").read_text())


def sampled(split: str) -> list[dict]:
    """Return scored responses of the warm-started policy, DRAWS to each prompt of the split."""
    policy, grpo_rewards, config = (params.load(one) for one in (params.Policy, params.Rewards, params.Rollout))
    config = config.model_copy(update={"samples_per_prompt": DRAWS, "batch_size": 24})
    start = rewards.StartingPolicy(policy, rollout.POLICY, adapters.adapter_in(rollout.WARM_START))
    model, audit = rollouts.load_scorers(grpo_rewards, rollout.MODELS, rollout.AUDIT_SCORER, rollout.REFERENCE, start)
    turns = rollouts.choose_prompts(dialogue.read_turns(train_grpo.PROMPTS / f"prompts_{split}.jsonl"), config)
    samples = rollouts.sample_policies(
        rollouts.LocalPolicies(loading.load_base(policy, rollout.POLICY), config),
        loading.load_tokenizer(rollout.POLICY),
        {("warm_start", None): rollout.WARM_START},
        turns,
        config,
    )
    return rollouts.score([sample for sample in samples if sample.model == "warm_start"], model, audit)


def best(rows: list[dict]) -> list[dict]:
    """Return each prompt's response with the highest combined reward, the first of equals."""
    by_prompt: dict[str, dict] = {}
    for row in rows:
        kept = by_prompt.setdefault(row["prompt_id"], row)
        if row["combined_reference"] > kept["combined_reference"]:
            by_prompt[row["prompt_id"]] = row
    return list(by_prompt.values())


def compared(rows: list[dict], kept: list[dict]) -> dict[str, dict[str, float]]:
    """Return by measure the means of one draw and of the kept answers, and their difference.

    Its interval is None below FEWEST_STORIES stories.
    """
    story_P = np.array([row["story"] for row in kept])
    found = {}
    for name in (name for name in MEASURED if name in kept[0]):
        drawn: dict[str, list[float]] = {}
        for row in rows:
            drawn.setdefault(row["prompt_id"], []).append(row[name])
        one_draw_P = np.array([np.mean(drawn[row["prompt_id"]]) for row in kept])
        best_P = np.array([row[name] for row in kept], dtype=float)
        difference = estimates.mean(best_P - one_draw_P, story_P, np.random.default_rng(1))
        found[name] = {
            "one_draw": float(one_draw_P.mean()),
            "best": float(best_P.mean()),
            "difference": difference["estimate"],
            "low": difference["low"],
            "high": difference["high"],
        }
    return found


def report(found: dict) -> str:
    """Return the tables as Markdown."""
    lines = ["# Best of eight by the reward, without training", "", "Written by `make best-of`."]
    for split, of in found.items():
        lines += [
            "",
            f"## {split.capitalize()}",
            "",
            f"{of['prompts']} prompts about {of['stories']} stories; intervals are 95 %, from resamples of whole stories, given",
            f"from {bootstrap.FEWEST_STORIES} stories on.",
            "",
            "| measure | one draw | best of eight | difference | interval |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {MEASURED[name]} | {one['one_draw']:.2f} | {one['best']:.2f} | {one['difference']:+.2f} | {_interval(one)} |"
            for name, one in of["measures"].items()
        ]
    return "\n".join(lines) + "\n"


def _interval(one: dict) -> str:
    return "" if one["low"] is None else f"{one['low']:+.2f} to {one['high']:+.2f}"


if __name__ == "__main__":
    entry_point.run_stage(main)
