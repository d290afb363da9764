"""Try GRPO settings on the validation split, which the report never uses; test prompts stay unread.

    make search                     the candidates of bench/search_grpo.yaml that have no result yet
    make search ARGS="name other"   these, again

Every candidate starts from the warm-started policy of the last `dvc repro`, with the same scorers,
and is compared with that policy on the same validation prompts. Results: bench/search_grpo.jsonl,
one line a candidate; the scored responses, to be read, in work/search_grpo/<name>.jsonl.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from scipy import stats as scipy_stats

from gpro_empathy import calibration, entry_point, files, params, rewards, text_measures
from gpro_empathy.data import dialogue
from gpro_empathy.policy import adapters, loading
from gpro_empathy.scorer import kinds
from gpro_empathy.stages import rollout, train_grpo
from gpro_empathy.training import grpo_run, rollouts

HERE = Path(__file__).parent
CANDIDATES, RESULTS = HERE / "search_grpo.yaml", HERE / "search_grpo.jsonl"
RESPONSES = Path("work/search_grpo")
# What a candidate may set: the other sections belong to stages whose outputs are taken as they are.
TRIED = ("policy", "rewards", "train_grpo", "rollout")
VALIDATION = train_grpo.PROMPTS / "prompts_validation.jsonl"
MEASURED = (
    "empathy_raw", "likelihood_raw", "semantic_similarity_raw", "well_formed", "overlap", "distinct_2", "answer_words",
)  # fmt: skip


def main() -> None:
    """Run the candidates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="names of candidates; without, those that have no result")
    arguments = parser.parse_args()
    candidates = yaml.safe_load(files.read_text(CANDIDATES))
    if unknown := sorted(set(arguments.only) - set(candidates)):
        raise files.UserError(f"{CANDIDATES}: no candidate {unknown[0]!r}; there are {', '.join(candidates)}")
    done = {row["name"]: row for row in files.read_jsonl(RESULTS)} if RESULTS.is_file() else {}
    for name in arguments.only or [name for name in candidates if name not in done]:
        print(f"== {name}: {candidates[name]}", flush=True)
        done[name] = {"name": name, "settings": candidates[name]} | measure(name, settings(candidates[name]))
        files.write_jsonl(RESULTS, list(done.values()))
        print(yaml.safe_dump(done[name], sort_keys=False), flush=True)


def settings(overrides: dict) -> params.Params:
    """Return params.yaml with some keys replaced, {"section.key": value}."""
    values = yaml.safe_load(files.read_text(params.PARAMS))
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        if section not in TRIED or name not in values[section]:
            raise files.UserError(f"{CANDIDATES}: {key} is no key of {', '.join(TRIED)}; other stages are not run anew")
        values[section][name] = value
    return params.Params.model_validate(values)


def measure(name: str, config: params.Params) -> dict:
    """Train one candidate, keep its responses, and compare it with what it started from."""
    base = loading.load_base(config.policy, train_grpo.POLICY)
    tokenizer = loading.load_tokenizer(train_grpo.POLICY)
    start = rewards.StartingPolicy(config.policy, train_grpo.POLICY, train_grpo.WARM_START)
    run = grpo_run.Run(
        model=loading.add_lora(base, config.policy, adapters.adapter_in(train_grpo.WARM_START)),
        tokenizer=tokenizer,
        rewards=rewards.load(config.rewards, rollout.MODELS, start),
        train_prompts=[turn.text for turn in dialogue.read_turns(train_grpo.PROMPTS / "prompts_train.jsonl")],
        sample_prompts=[turn.text for turn in dialogue.read_turns(VALIDATION)],
        config=config.train_grpo,
        policy=config.policy,
        seed=config.train_grpo.seeds[0],
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = grpo_run.train(run, Path(folder) / "checkpoints", inputs=[])
        seconds = time.perf_counter() - started
        tuned = Path(folder) / "tuned"
        adapters.save_with_card(run.model, tuned, "")
        rows = sampled(config, run, tuned, result.reference)
    files.write_jsonl(RESPONSES / f"{name}.jsonl", rows)
    return {"train_seconds": round(seconds), **comparison(rows)}


def sampled(config: params.Params, run: grpo_run.Run, tuned: Path, reference: dict) -> list[dict]:
    """Return scored responses of both policies to validation prompts."""
    model = rewards.with_reference(run.rewards, calibration.statistics_json(reference))
    turns = rollouts.choose_prompts(dialogue.read_turns(VALIDATION), config.rollout)
    samples = rollouts.sample_policies(
        rollouts.LocalPolicies(loading.load_base(config.policy, train_grpo.POLICY), config.rollout),
        run.tokenizer,
        {("warm_start", None): train_grpo.WARM_START, ("tuned", 0): tuned},
        turns,
        config.rollout,
    )
    # The held-out scorer is kept out of the search: what audits the result must not choose it.
    return rollouts.score(samples, model, kinds.load(rollout.MODELS / "scorer"))


def comparison(rows: list[dict]) -> dict:
    """Return both policies' means, the mean difference per prompt, and p of a t-test.

    The t-test is over stories.
    """
    result = {}
    for name in (name for name in MEASURED if name in rows[0]):
        start, tuned = (by_story(rows, model, name) for model in ("warm_start", "tuned"))
        result[name] = {
            "start": round(float(np.mean([row[name] for row in rows if row["model"] == "warm_start"])), 3),
            "tuned": round(float(np.mean([row[name] for row in rows if row["model"] == "tuned"])), 3),
            "p": float(f"{scipy_stats.ttest_rel(tuned, start).pvalue:.2g}") if np.any(tuned != start) else 1.0,
        }
    for model in ("warm_start", "tuned"):
        corpus = " ".join(row["answer"] for row in rows if row["model"] == model)
        result[f"corpus_distinct_2_{model}"] = round(text_measures.distinct_n(corpus, 2), 3)
    return result


def by_story(rows: list[dict], model: str, name: str) -> np.ndarray:
    """Return the mean of a measure by story, in one order for all policies."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["model"] == model:
            values.setdefault(row["story"], []).append(float(row[name]))
    return np.array([np.mean(values[key]) for key in sorted(values)])


if __name__ == "__main__":
    entry_point.run_stage(main)
