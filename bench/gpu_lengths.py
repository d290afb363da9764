"""GRPO steps of a profile at two lengths with a model that is loaded: as WASSA's messages really are, and as long as may be.

The parts of the stage train_grpo in its order (module grpo_run), in the folder of a rehearsal whose models are built. What
the statistics of the starting policy and the samples of every few steps take is left out. Used by bench/gpu_decode.py.
"""

import json
import statistics
from pathlib import Path

# Tokens of a message of 18 words, the mean of the WASSA 2024 CONV-turn train file, and of a response in the format.
MESSAGE, RESPONSE = 40, 130


def measure(model, config, grpo, steps: int, name: str) -> dict:
    """Train at real lengths and then at the longest, in the working folder; return seconds by part and memory.

    The adapter and the reports are saved as the stage does, so that the rehearsal's tasks rollout and reload can follow.

    Args:
        model: The policy as the backend unsloth starts it.
        config, grpo: The sections policy and train_grpo.
        steps: At each length; the first is left out, as kernels are compiled in it.
        name: Of the engine, which has checkpoints of its own: another's would be gone on from.
    """
    import torch

    from gpro_empathy import backends, grpo_run, params, policy, prompts, rehearsal_check, rehearsal_models, rewards

    folder = Path("models/policy")
    tokenizer = policy.load_tokenizer(folder)
    terms = rewards.load(params.load(params.Rewards), Path("models/scorer"))
    known = {name: (0.0, 1.0) for name in rewards.CALIBRATED}
    grpo_run.sample_responses = lambda *_: []
    grpo = grpo.model_copy(update={"steps": steps, "save_steps": steps + 1, "seeds": [1]})
    backend = backends.Unsloth(config, grpo, folder, None)
    backend._model = model
    found = {}
    base = len(policy.prompt_ids(tokenizer, prompts.messages("")))
    longest = (config.max_prompt_tokens, config.max_completion_tokens)
    for label, (prompt, response) in {"real": (base + MESSAGE, RESPONSE), "longest": longest}.items():
        own = config.model_copy(update={"max_prompt_tokens": prompt, "max_completion_tokens": response})
        texts = [turn.text for turn in rehearsal_models.longest_turns(tokenizer, 8, prompt)]
        run = grpo_run.Run(backend.start(1), tokenizer, terms, texts, texts, grpo, own, 1)
        torch.cuda.reset_peak_memory_stats()
        result = grpo_run.train(run, Path("work") / name / label, [], known)
        rows = result.timing[1:]
        found[label] = {
            "prompt_tokens": prompt,
            "response_tokens": statistics.median(row["completion_tokens"] for row in result.log),
            "seconds": {key: statistics.median(row[key] for row in rows) for key in rows[0] if key.endswith("_s")},
            "steps": [round(row["step_s"], 3) for row in result.timing],
            "torch_peak_gib": torch.cuda.max_memory_allocated() / 2**30,
            "gpu_used_gib": torch.cuda.device_memory_used(0) / 2**30,
        }
        print(label, json.dumps(found[label]), flush=True)
    noted = {"trained": rehearsal_check.log_probabilities(model)}
    with model.disable_adapter():
        noted["base"] = rehearsal_check.log_probabilities(model)
    rehearsal_check.TRAINED.parent.mkdir(exist_ok=True)
    rehearsal_check.TRAINED.write_text(json.dumps(noted))
    policy.save_adapter(model, Path("models/tuned/seed-1"), grpo_run.card(run, result), result.weights, base=folder)
    grpo_run.write_reports([result], Path("reports/training"))
    return found
