"""GRPO steps with prompts and responses of real lengths, after those of the greatest lengths."""

import statistics
from pathlib import Path

from gpro_empathy import files, params
from gpro_empathy.policy import loading
from gpro_empathy.response_format import messages

# Tokens of a message of 18 words, the mean of the WASSA 2024 CONV-turn train file, with room for
# longer words, and of a response in the format.
MESSAGE, RESPONSE = 40, 130
REAL = Path("tasks/real_lengths.json")


def real(policy: params.Policy, tokenizer) -> params.Policy:
    """Return the policy's settings with limits as long as real prompts and responses.

    No limit is above the policy's own.
    """
    prompt = len(loading.prompt_ids(tokenizer, messages(""))) + MESSAGE
    limits = {"max_prompt_tokens": prompt, "max_completion_tokens": RESPONSE}
    return policy.model_copy(update={key: min(value, getattr(policy, key)) for key, value in limits.items()})


def note_real(model) -> None:
    """Go on training a policy for a few steps of real lengths, and note their seconds.

    It does so in the folder of a rehearsal, but not where TRL holds a vLLM of its own beside the
    policy: a second trainer would start a second one.
    """
    policy, grpo = params.load(params.Policy), params.load(params.TrainGrpo)
    if policy.backend == "transformers" and grpo.vllm_mode == "colocate":
        return
    at_real_lengths = real(policy, loading.load_tokenizer(Path("models/policy")))
    files.write_json(REAL, timed(model, at_real_lengths, grpo, Path("work/real_lengths")))


def timed(model, policy: params.Policy, grpo: params.TrainGrpo, work: Path) -> dict:
    """Train a policy with all prompts and responses as long as its settings allow.

    It runs in the folder of a rehearsal. What a run does beside its steps is left out, and so is
    the divergence from the starting policy.

    Args:
        work: A folder for checkpoints, of which none is written.

    Returns:
        Tokens of a prompt and of a response, and the seconds of each step by part.
    """
    from gpro_empathy import calibration, rewards
    from gpro_empathy.training import grpo_run
    from rehearsal import models

    tokenizer = loading.load_tokenizer(Path("models/policy"))
    start = rewards.StartingPolicy(policy, Path("models/policy"), None)
    terms = rewards.load(params.load(params.Rewards), Path("models"), start)
    grpo = grpo.model_copy(update={"kl_beta": 0.0, "save_steps": grpo.steps + 1})
    turns = models.longest_turns(tokenizer, max(8, grpo.prompts_per_step), policy.max_prompt_tokens)
    texts = [turn.text for turn in turns]
    run = grpo_run.Run(model, tokenizer, terms, texts, texts, grpo, policy, seed=1)
    result = grpo_run.train(run, work, [], dict.fromkeys(calibration.CALIBRATED, (0.0, 1.0)))
    return {
        "prompt_tokens": policy.max_prompt_tokens,
        "completion_tokens": statistics.median(row["completion_tokens"] for row in result.log),
        "timing": result.timing,
    }
