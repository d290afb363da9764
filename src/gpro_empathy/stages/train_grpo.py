"""Train the policy by GRPO on the calibrated rewards.

Reads   models/policy/, models/warm_start/    the starting policy
        models/scorer/, models/reader/         the empathy reward, and the reader model
        models/approach/                       the approach model
        rewards/                              reward terms of the user's own
        data/prepared/prompts_{train,validation}.jsonl
Writes  models/tuned/seed-<seed>/             the adapter of each training seed, with a model card
        reports/training/                     log.csv, timing.csv, groups.csv, samples.jsonl,
                                              reference.json, settings.json
Keeps   work/train_grpo/                      checkpoints, from which an interrupted run goes on

With `train_grpo.launcher` the stage starts itself again, in the processes of a configuration in
accelerate/. All of them train; the main one writes.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from gpro_empathy import distributed, entry_point, files, params
from gpro_empathy.training import launch, unsloth_engine

if TYPE_CHECKING:
    from peft import PeftModel

POLICY = Path("models/policy")
WARM_START = Path("models/warm_start")
MODELS = Path("models")
PROMPTS = Path("data/prepared")
INPUTS = Path("data/inputs")
ADAPTERS = Path("models/tuned")
REPORTS = Path("reports/training")
CHECKPOINTS = Path("work/train_grpo")


def main(on_trained: Callable[["PeftModel"], None] | None = None) -> None:
    """Run the stage.

    Args:
        on_trained: Called in the main process with each trained policy before it is saved, so that
            a rehearsal can compare it with the adapter that is read back.
    """
    config, rewards_config = params.load(params.TrainGrpo), params.load(params.Rewards)
    policy_config = params.load(params.Policy)
    if not distributed.launched():
        # The adapter is looked for by its file: peft must not be imported before Unsloth.
        warm_started = (WARM_START / "adapter_config.json").is_file()
        launch.check(config, policy_config, warm_started=warm_started)
        if config.launcher != "none":
            launch.launch(config.launcher, "gpro_empathy.stages.train_grpo")
            return
    distributed.start()
    unsloth_engine.prepare(policy_config)

    from gpro_empathy import rewards, user_rewards
    from gpro_empathy.data import dialogue
    from gpro_empathy.policy import adapters, loading
    from gpro_empathy.training import backends, checkpoints, grpo_report, grpo_run

    adapters.check_adapters([WARM_START], POLICY)
    tokenizer = loading.load_tokenizer(POLICY)
    with distributed.whole_models():
        start = rewards.StartingPolicy(policy_config, POLICY, adapters.adapter_in(WARM_START))
        reward_model = rewards.load(rewards_config, MODELS, start)
    train_prompts, sample_prompts = (
        [turn.text for turn in dialogue.read_turns(PROMPTS / f"prompts_{split}.jsonl")]
        for split in ("train", "validation")
    )
    backend = backends.KINDS[policy_config.backend](policy_config, config, POLICY, adapters.adapter_in(WARM_START))
    results: list[grpo_run.Result] = []
    with files.atomic_path(ADAPTERS) if distributed.is_main() else nullcontext() as tuned:
        if distributed.is_main():
            tuned.mkdir()
        for seed in config.seeds:
            model = backend.start(seed)
            run = grpo_run.Run(
                model, tokenizer, reward_model, train_prompts, sample_prompts, config, policy_config, seed
            )
            # The starting policy is the same for every seed, and so are its statistics.
            reference = results[0].reference if results else None
            inputs = [
                POLICY,
                WARM_START,
                *(MODELS / name for name in rewards.NEEDED),
                PROMPTS,
                INPUTS,
                user_rewards.FOLDER,
            ]
            results.append(grpo_run.train(run, CHECKPOINTS / f"seed-{seed}", inputs, reference))
            if distributed.is_main():
                if on_trained is not None:
                    on_trained(model)
                card = grpo_report.card(run, results[-1])
                adapters.save_with_card(model, tuned / f"seed-{seed}", card, results[-1].weights, base=POLICY)
    if distributed.is_main():
        grpo_report.write_reports(results, REPORTS)
        checkpoints.forget(CHECKPOINTS)
    distributed.end()


if __name__ == "__main__":
    entry_point.run_stage(main)
