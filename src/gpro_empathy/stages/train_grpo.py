"""Train the policy by GRPO on the calibrated rewards.

Reads   models/policy/, models/warm_start/    the starting policy
        models/scorer/                        the empathy reward
        data/prepared/prompts_{train,validation}.jsonl
Writes  models/tuned/                         the adapter, with a model card
        reports/training/                     log.csv, timing.csv, groups.csv, samples.jsonl, reference.json, settings.json
Keeps   work/train_grpo/                      checkpoints, from which an interrupted run goes on
"""

from pathlib import Path

from gpro_empathy import files, params

POLICY = Path("models/policy")
WARM_START = Path("models/warm_start")
SCORER = Path("models/scorer")
PROMPTS = Path("data/prepared")
ADAPTER = Path("models/tuned")
REPORTS = Path("reports/training")
CHECKPOINTS = Path("work/train_grpo")


def main() -> None:
    """Run the stage."""
    config, rewards_config = params.load(params.TrainGrpo), params.load(params.Rewards)
    policy_config = params.load(params.Policy)
    if policy_config.backend == "unsloth":
        import unsloth  # noqa: F401  It patches trl and transformers, and demands to be imported before them.

    from gpro_empathy import dialogue, grpo_run, policy, rewards

    base, tokenizer = policy.load_base(policy_config, POLICY), policy.load_tokenizer(POLICY)
    run = grpo_run.Run(
        model=policy.add_lora(base, policy_config, policy.adapter_in(WARM_START)),
        tokenizer=tokenizer,
        rewards=rewards.load(rewards_config, SCORER),
        train_prompts=[turn.text for turn in dialogue.read_turns(PROMPTS / "prompts_train.jsonl")],
        sample_prompts=[turn.text for turn in dialogue.read_turns(PROMPTS / "prompts_validation.jsonl")],
        config=config,
        policy=policy_config,
    )
    result = grpo_run.train(run, CHECKPOINTS, inputs=[POLICY, WARM_START, SCORER, PROMPTS])
    policy.save_adapter(result.model, ADAPTER, grpo_run.card(run, result))
    grpo_run.write_reports(result, REPORTS)
    grpo_run.forget(CHECKPOINTS)


if __name__ == "__main__":
    files.run_stage(main)
