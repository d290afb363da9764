"""A warm start that is kept in the repository, as training it takes longer than everything else.

The folder holds the adapter in bfloat16 and a record of what it was trained on and how. It serves
only where settings, demonstrations and base are those of the record: anything else would be another
warm start under this one's name.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpro_empathy import files, params
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters
from gpro_empathy.response_format import SYSTEM_PROMPT
from gpro_empathy.training import sft

PREPARED = Path("data/prepared")
FOLDER = Path("data/embedded/warm_start")
RECORD = "training.json"
# What of the settings decides the adapter; the number format is noted, as any can start from it.
POLICY_KEYS = ("model", "revision", "load_in_4bit", "lora_rank", "lora_alpha")
WARM_START_KEYS = ("demonstrations", "epochs", "learning_rate", "batch_size", "seed")
REMEDY = (
    "set warm_start.kept to false to train one in this run, or run `make warm-start`, which trains one and keeps it"
)


def demonstrations() -> tuple[list[dict], list[dict]]:
    """Return the prepared demonstrations of training and of validation stories.

    Each is {"utterance", "response"}.
    """
    train, validation = (
        files.read_jsonl(PREPARED / f"demonstrations_{split}.jsonl") for split in ("train", "validation")
    )
    return train, validation


def decides(policy: params.Policy, config: params.WarmStart, demonstrations: Sequence[Mapping]) -> dict:
    """Return what decides the adapter: settings by key, and a hash of prompt and demonstrations."""
    settings = {f"policy.{key}": getattr(policy, key) for key in POLICY_KEYS}
    settings |= {f"warm_start.{key}": getattr(config, key) for key in WARM_START_KEYS}
    settings |= {"warm-up in updates": sft.WARMUP_UPDATES, "largest norm of the gradient": sft.MAX_GRAD_NORM}
    shown = [SYSTEM_PROMPT, *([row["utterance"], row["response"]] for row in demonstrations)]
    digest = hashlib.sha256(json.dumps(shown, ensure_ascii=False).encode()).hexdigest()
    return settings | {"demonstrations": digest}


def check(wanted: Mapping, folder: Path = FOLDER) -> dict:
    """Return the record of the kept adapter.

    Args:
        wanted: As `decides` gives it.

    Raises:
        UserError: If there is no kept adapter, or it was trained on or by something else; names the
            first difference.
    """
    for name in (adapters.CONFIGURATION, adapters.WEIGHTS, RECORD):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file; {REMEDY}")
    record = files.read_json(folder / RECORD)
    for key, value in wanted.items():
        if record["decided_by"].get(key) != value:
            kept = record["decided_by"].get(key)
            said = (
                "another system prompt or other demonstrations"
                if key == "demonstrations"
                else f"{key} {kept!r}, not {value!r}"
            )
            raise UserError(f"{folder}: the kept warm start was trained with {said}; {REMEDY}")
    return record
