"""Train the warm start and keep it in the repository, `make warm-start`: minutes to hours.

Reads what the stage of that name reads, and writes data/embedded/warm_start/: the adapter in
bfloat16, half the size of float32, and a record of what it was trained on, by what and how long.
"""

import argparse
import time
from pathlib import Path

import torch
from peft import PeftModel

from gpro_empathy import entry_point, files, params
from gpro_empathy.policy import adapters, loading
from gpro_empathy.report import provenance
from gpro_empathy.training import kept_start, sft

PACKAGES = ("peft", "torch", "transformers")


def main() -> None:
    """Train and keep."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    config, policy_config = params.load(params.WarmStart), params.load(params.Policy)
    train, validation = kept_start.demonstrations()
    started = time.perf_counter()
    base, tokenizer = loading.load_base(policy_config, adapters.POLICY), loading.load_tokenizer(adapters.POLICY)
    model, losses = sft.train(base, tokenizer, train, config, policy_config)
    minutes = (time.perf_counter() - started) / 60
    record = sft.summary(model, tokenizer, losses, validation) | {
        "decided_by": kept_start.decides(policy_config, config, train),
        "updates": len(losses),
        "minutes": round(minutes, 1),
        "dtype": str(loading.compute_dtype(policy_config)).removeprefix("torch."),
        "machine": provenance.machine(),
        "packages": provenance.packages(PACKAGES),
    }
    keep(model, record, sft.card(policy_config, config, losses), adapters.POLICY, kept_start.FOLDER)
    print(f"kept in {kept_start.FOLDER}: {len(losses)} updates in {minutes:.0f} minutes")


def keep(model: PeftModel, record: dict, card: str, policy: Path, folder: Path) -> None:
    """Write the adapter in bfloat16, its card and its record, atomically."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.to(torch.bfloat16)
    with files.atomic_path(folder) as temporary:
        adapters.save_with_card(model, temporary, card, base=policy)
        files.write_json(temporary / kept_start.RECORD, record)


if __name__ == "__main__":
    entry_point.run_stage(main)
