"""Time GRPO steps of a profile at two lengths in one process, on random models: as long as may be, and as WASSA's really are.

The stage's own parts in its own order (module grpo_run), on models that a rehearsal builds; what the statistics of the
starting policy and the samples of every few steps take is left out. With --bf16 the base is held in bfloat16, as the numbers
that NF4 rounds to, and its LoRA matrices are merged while vLLM samples. The adapter is saved as the stage saves it, so
that the tasks `rollout` and `reload` of the rehearsal can follow.

Writes  <output>/gpu_lengths_<nf4 or bf16>.json
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

# Tokens of a message of 18 words, the mean of the WASSA 2024 CONV-turn train file, and of a response in the format.
MESSAGE, RESPONSE = 40, 130


def main() -> None:
    """Measure both lengths."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of a rehearsal whose models are built")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--rows", action="store_true", help="multiply by bench/nf4_rows.cu while vLLM samples")
    parser.add_argument("--share", type=float, required=True, help="vLLM's share of the GPU's memory")
    parser.add_argument("--steps", type=int, default=4, help="steps at each length (default 4, of which the first is left out)")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.bf16:
        os.environ["UNSLOTH_VLLM_MERGED_ROLLOUT"] = "1"
    os.environ["UNSLOTH_RETURN_LOGITS"] = "1"
    output = arguments.output.absolute()
    sys.path.insert(0, str(Path(__file__).parent.absolute()))
    os.chdir(arguments.folder)
    name = "bf16" if arguments.bf16 else "rows" if arguments.rows else "nf4"
    found = measure(arguments.steps, name, arguments.share, output / f"gpu_lengths_{name}.json")
    print(json.dumps(found["lengths"], indent=1), flush=True)


def measure(steps: int, name: str, share: float, path: Path) -> dict:
    """Train at real lengths and then at the longest, and save the adapter."""
    from gpro_empathy import params, unsloth_engine

    whole = params.load_all()
    config = whole.policy.model_copy(update={"load_in_4bit": whole.policy.load_in_4bit and name != "bf16"})
    grpo = whole.train_grpo.model_copy(
        update={"vllm_gpu_memory_utilization": share, "steps": steps, "save_steps": steps + 1, "seeds": [1]}
    )
    unsloth_engine.prepare(config)
    if name == "rows":
        import nf4_rows

        nf4_rows.install()
    import torch

    from gpro_empathy import backends, grpo_run, policy, prompts, rehearsal_check, rehearsal_models, rewards

    folder = Path("models/policy")
    tokenizer = policy.load_tokenizer(folder)
    terms = rewards.load(whole.rewards, Path("models/scorer"))
    grpo_run.sample_responses = lambda *_: []
    known = {name: (0.0, 1.0) for name in rewards.CALIBRATED}
    started = time.perf_counter()
    backend = backends.KINDS[config.backend](config, grpo, folder, None)
    found: dict = {"gpu": torch.cuda.get_device_name(), "engine": name, "share": share, "lengths": {}}
    base = len(policy.prompt_ids(tokenizer, prompts.messages("")))
    longest = (config.max_prompt_tokens, config.max_completion_tokens)
    for label, (prompt, response) in {"real": (base + MESSAGE, RESPONSE), "longest": longest}.items():
        own = config.model_copy(update={"max_prompt_tokens": prompt, "max_completion_tokens": response})
        texts = [turn.text for turn in rehearsal_models.longest_turns(tokenizer, 8, prompt)]
        model = backend.start(1)
        if label == "real":
            found["start_seconds"] = time.perf_counter() - started
        run = grpo_run.Run(model, tokenizer, terms, texts, texts, grpo, own, 1)
        torch.cuda.reset_peak_memory_stats()
        result = grpo_run.train(run, Path("work") / label, [], known)
        rows = result.timing[1:]
        found["lengths"][label] = {
            "prompt_tokens": prompt,
            "response_tokens": statistics.median(row["completion_tokens"] for row in result.log),
            "seconds": {key: statistics.median(row[key] for row in rows) for key in rows[0] if key.endswith("_s")},
            "steps": [round(row["step_s"], 3) for row in result.timing],
            "torch_peak_gib": torch.cuda.max_memory_allocated() / 2**30,
            "gpu_used_gib": torch.cuda.device_memory_used(0) / 2**30,
            "sampler_difference": [row.get("sampler_difference") for row in result.log],
        }
        path.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    noted = {"trained": rehearsal_check.log_probabilities(model)}
    with model.disable_adapter():
        noted["base"] = rehearsal_check.log_probabilities(model)
    rehearsal_check.TRAINED.parent.mkdir(exist_ok=True)
    rehearsal_check.TRAINED.write_text(json.dumps(noted))
    policy.save_adapter(model, Path("models/tuned/seed-1"), grpo_run.card(run, result), result.weights, base=folder)
    grpo_run.write_reports([result], Path("reports/training"))
    return found


if __name__ == "__main__":
    main()
