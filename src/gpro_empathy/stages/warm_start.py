"""Teach the policy the response format, by a short supervised training on demonstrations.

Reads   models/policy/                      the starting policy
        data/prepared/demonstrations.jsonl
Writes  models/warm_start/                  the adapter, or only a note where the warm start is off
        reports/warm_start.json             loss at the start and at the end
"""

from pathlib import Path

from gpro_empathy import entry_point, files, params
from gpro_empathy.policy import adapters, loading
from gpro_empathy.training import sft

POLICY = Path("models/policy")
DEMONSTRATIONS = Path("data/prepared/demonstrations.jsonl")
ADAPTER = Path("models/warm_start")
REPORT = Path("reports/warm_start.json")


def main() -> None:
    """Run the stage."""
    config, policy_config = params.load(params.WarmStart), params.load(params.Policy)
    if not config.enabled:
        with files.atomic_path(ADAPTER) as folder:
            files.write_text(folder / "README.md", "The warm start is off (warm_start.enabled).\n")
        files.write_json(REPORT, {"enabled": False})
        return
    demonstrations = files.read_jsonl(DEMONSTRATIONS)
    base = loading.load_base(policy_config, POLICY)
    model, losses = sft.train(base, loading.load_tokenizer(POLICY), demonstrations, config, policy_config)
    adapters.save_with_card(model, ADAPTER, sft.card(policy_config, config, losses), base=POLICY)
    used = min(config.demonstrations, len(demonstrations))
    summary = {"enabled": True, "demonstrations": used, "loss_first": losses[0], "loss_last": losses[-1]}
    files.write_json(REPORT, summary)


if __name__ == "__main__":
    entry_point.run_stage(main)
