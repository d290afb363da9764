"""Teach the policy the response format and plain replies, by supervised training on demonstrations.

Reads   models/policy/                      the starting policy
        data/prepared/demonstrations_{train,validation}.jsonl
        data/embedded/warm_start/           the adapter that is kept, where warm_start.kept is on
Writes  models/warm_start/                  the adapter, or only a note where the warm start is off
        reports/warm_start.json             which adapter it is, and its losses
"""

import shutil
from pathlib import Path

from gpro_empathy import entry_point, files, params
from gpro_empathy.policy import adapters, loading
from gpro_empathy.training import kept_start, sft

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
    train, validation = kept_start.demonstrations()
    if config.kept:
        summary = kept_start.check(kept_start.decides(policy_config, config, train))
        adapters.check_base(kept_start.FOLDER, adapters.POLICY)
        with files.atomic_path(ADAPTER) as folder:
            shutil.copytree(kept_start.FOLDER, folder, copy_function=shutil.copyfile)
    else:
        base, tokenizer = loading.load_base(policy_config, adapters.POLICY), loading.load_tokenizer(adapters.POLICY)
        model, losses = sft.train(base, tokenizer, train, config, policy_config)
        summary = sft.summary(model, tokenizer, losses, validation)
        adapters.save_with_card(model, ADAPTER, sft.card(policy_config, config, losses), base=adapters.POLICY)
    used = min(config.demonstrations, len(train))
    files.write_json(REPORT, {"enabled": True, "kept": config.kept, "demonstrations": used} | summary["losses"])


if __name__ == "__main__":
    entry_point.run_stage(main)
