"""Measure what the analysis takes at its intended size.

That size is 10,000 prompts, 8 metrics and 10,000 resamples.

`python bench/analysis.py` draws made-up responses of three policies, analyses them as the stage
analyse_rewards does, and prints processor seconds and peak memory. The goal is 20 s and 1 GiB on
two cores.
"""

import resource
import sys
import time

import numpy as np

from gpro_empathy import params
from gpro_empathy.stages import analyse_rewards

PROMPTS, PROMPTS_PER_CONVERSATION, SAMPLES = 10_000, 3, 2


def responses(metrics: list[str], rng: np.random.Generator) -> list[dict]:
    """Draw rollout rows: normal scores whose mean grows from policy to policy."""
    level_P = np.clip(rng.normal(2.3, 0.9, PROMPTS), 0, 5)
    rows = []
    for gain, model in enumerate(("base", "warm_start", "tuned")):
        scores = rng.normal(0.1 * gain, 1, (PROMPTS, SAMPLES, len(metrics)))
        for p, level in enumerate(level_P):
            for sample in range(SAMPLES):
                rows.append(
                    {
                        "prompt_id": str(p),
                        "story": str(p // PROMPTS_PER_CONVERSATION),
                        "conversation": str(p // PROMPTS_PER_CONVERSATION),
                        "model": model,
                        "seed": 23 if model == "tuned" else None,
                        "sample": sample,
                        "emotion": float(level),
                        "stated_intensity": int(level),
                        "stated_approach": "listen",
                        "answer": "That must be hard.",
                        **dict(zip(metrics, map(float, scores[p, sample]), strict=True)),
                    }
                )
    return rows


def main() -> None:
    """Run the analysis once and print what it took."""
    settings = params.load_all()
    # The ninth of the declared metrics is worked out from the labels, and left out.
    metrics = [metric for metric in settings.analyse_rewards.metrics if metric != "intensity_agreement"]
    config = settings.analyse_rewards.model_copy(update={"metrics": metrics, "n_resamples": 10_000})
    rows = responses(metrics, np.random.default_rng(0))
    before, started = time.process_time(), time.perf_counter()
    analyse_rewards.analyse(rows, config, settings.rewards.weights, np.random.default_rng(config.seed))
    used, wall = time.process_time() - before, time.perf_counter() - started
    # Linux counts in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "linux" else 2**30)
    print(f"{PROMPTS} prompts, {len(metrics)} metrics: {used:.1f} s of processor time, {wall:.1f} s, {peak:.2f} GiB")


if __name__ == "__main__":
    main()
