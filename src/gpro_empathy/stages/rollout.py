"""Sample responses of every policy to the test prompts, and score them.

Reads   models/policy/, models/warm_start/, models/tuned/    the policies
        models/scorer/, models/reader/, models/approach/, models/audit_scorer/  reward and audit
        rewards/                                             reward terms of the user's own
        reports/training/reference.json                      statistics of the reference calibration
        reports/training/settings.json                       training seeds
        data/prepared/prompts_test.jsonl
Writes  data/rollouts/rollouts.jsonl                         one line per (prompt, policy, sample)
"""

from pathlib import Path

from gpro_empathy import entry_point, files, params, rewards
from gpro_empathy.data import dialogue
from gpro_empathy.policy import adapters, loading, vllm_engine
from gpro_empathy.training import rollouts

POLICY = Path("models/policy")
WARM_START, TUNED = Path("models/warm_start"), Path("models/tuned")
MODELS = Path("models")
AUDIT_SCORER = Path("models/audit_scorer")
REFERENCE, SETTINGS = Path("reports/training/reference.json"), Path("reports/training/settings.json")
PROMPTS = Path("data/prepared/prompts_test.jsonl")
ROLLOUTS = Path("data/rollouts/rollouts.jsonl")


def main() -> None:
    """Run the stage."""
    config, policy_config = params.load(params.Rollout), params.load(params.Policy)
    folders = {("warm_start", None): WARM_START} if adapters.adapter_in(WARM_START) else {}
    for seed in files.read_json(SETTINGS)["seeds"]:
        folders[("tuned", seed)] = TUNED / f"seed-{seed}"
    adapters.check_adapters(list(folders.values()), POLICY)
    start = rewards.StartingPolicy(policy_config, POLICY, adapters.adapter_in(WARM_START))
    model, audit = rollouts.load_scorers(params.load(params.Rewards), MODELS, AUDIT_SCORER, REFERENCE, start)
    turns = rollouts.choose_prompts(dialogue.read_turns(PROMPTS), config)
    tokenizer = loading.load_tokenizer(POLICY)
    if config.engine == "vllm":
        policies = rollouts.VllmPolicies(vllm_engine.load(policy_config, config, POLICY), config)
    else:
        policies = rollouts.LocalPolicies(loading.load_base(policy_config, POLICY), config)
    sampled = rollouts.sample_policies(policies, tokenizer, folders, turns, config)
    files.write_jsonl(ROLLOUTS, rollouts.score(sampled, model, audit))


if __name__ == "__main__":
    entry_point.run_stage(main)
