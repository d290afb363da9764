"""Two GRPO steps and a rollout of the packaged policy by one backend; prints what the test looks at as its last line.

python tests/gpu/one_step.py BACKEND    in a folder to work in, with the repository's params.yaml
"""

import json
import sys
from pathlib import Path

from gpro_empathy import params, unsloth_engine

UTTERANCES = ["My dog died last night and I cannot sleep.", "The rent went up again.", "I lost it all in the flood."]


def main() -> None:
    """Run both."""
    config = params.load_all()
    policy_config = config.policy.model_copy(update={"backend": sys.argv[1], "max_completion_tokens": 64})
    unsloth_engine.prepare(policy_config)

    import torch

    from gpro_empathy import backends, grpo_run, policy, rewards, rollouts, vllm_engine
    from gpro_empathy.dialogue import Turn

    grpo_config = config.train_grpo.model_copy(
        update={
            "steps": 2, "prompts_per_step": 1, "num_generations": 3, "trained_generations": 3, "completions_per_forward": 3,
            "optimizer": "paged_adamw_8bit", "save_steps": 2,
        }
    )  # fmt: skip
    weights = {"semantic_similarity": 1.0, "length": 1.0}
    reward_model = rewards.load(config.rewards.model_copy(update={"weights": weights}), Path("no scorer"))
    folder, adapter = Path("policy"), Path("tuned")
    policy.convert(policy_config, folder)
    tokenizer = policy.load_tokenizer(folder)
    model = backends.KINDS[sys.argv[1]](policy_config, grpo_config, folder, None).start(23)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    run = grpo_run.Run(model, tokenizer, reward_model, UTTERANCES, UTTERANCES, grpo_config, policy_config, 23)
    result = grpo_run.train(run, Path("checkpoints"), inputs=[])
    after = {name: p for name, p in model.named_parameters() if p.requires_grad}
    policy.save_adapter(model, adapter, "")
    found = {
        "dtypes": sorted({str(p.dtype) for p in after.values()}),
        "changed": sum(not torch.equal(before[name], after[name]) for name in after),
        "trained": len(after),
        "steps": [row["step"] for row in result.log],
        "device": result.settings["device"],
    }
    del model, run
    torch.cuda.empty_cache()
    turns = [Turn("c", i, text, (), None, None, None) for i, text in enumerate(UTTERANCES)]
    arguments = (tokenizer, {("tuned", 23): adapter}, turns, config.rollout)
    if sys.argv[1] == "transformers":
        samples = rollouts.sample_policies(policy.load_base(policy_config, folder), *arguments)
    else:
        engine = vllm_engine.load(policy_config, config.rollout.max_completion_tokens, folder)
        samples = rollouts.sample_policies_by_vllm(engine, *arguments)
    found["rows"] = [[sample.model, sample.turn.turn, sample.sample] for sample in samples]
    found["tokens"] = [sample.completion_tokens for sample in samples]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
