"""Load what the benchmark starts from.

That is the policy, the rewards, the prompts, and the machine that it runs on.
"""

import os
import platform
from pathlib import Path

import numpy as np
import torch
import transformers
import trl

from gpro_empathy import calibration, files, labels, params, response_format, rewards
from gpro_empathy.data import sources
from gpro_empathy.policy import adapters, conversion, loading
from gpro_empathy.report import provenance
from gpro_empathy.scorer import approach, empathy_scorer, reader
from rehearsal import models
from timed_step import Bench

MODELS = Path("models")
POLICY, WARM_START = MODELS / "policy", MODELS / "warm_start"
SEED = 41


def load(settings: params.Params, scratch: Path, quick: bool) -> tuple[Bench, str]:
    """Load what both trainers are given; also return from where the policy starts, in words."""
    config = settings.policy.model_copy(update={"backend": "transformers"})
    folder = POLICY
    if not (folder / adapters.SOURCE).is_file() or files.read_json(folder / adapters.SOURCE)["name"] != config.model:
        folder = scratch / "policy"
        if not folder.is_dir():
            conversion.convert(config, folder)
    adapter = adapters.adapter_in(WARM_START) if folder == POLICY else None
    model = loading.add_lora(loading.load_base(config, folder), config, adapter)
    folder_of_rewards = MODELS
    if quick or not all((MODELS / name).is_dir() for name in rewards.NEEDED):
        folder_of_rewards = scratch
        stated = settings.train_scorer.model_copy(update={"encoder": "random"} if quick else {})
        torch.manual_seed(SEED)
        kept = {"encoder": stated.encoder, "revision": stated.revision, "max_tokens": stated.max_tokens}
        empathy_scorer.save(empathy_scorer.build(stated), scratch / "scorer", kept)
        untrained = reader.settings(settings.train_reader, stated)
        empathy_scorer.save(empathy_scorer.build(untrained, labels.MARKS), scratch / "reader", kept)
        approach.save(models.untrained_approach(), scratch / "approach", "Not trained.\n")
    terms = rewards.load(settings.rewards, folder_of_rewards, rewards.StartingPolicy(config, folder, adapter))
    # What the scores are calibrated with takes no part in the time that it takes.
    terms = rewards.with_reference(terms, {name: {"mean": 0.0, "sd": 1.0} for name in calibration.CALIBRATED})
    tokenizer = loading.load_tokenizer(folder)
    bench = Bench(model, tokenizer, terms, settings.train_grpo, config, scratch / "trainer")
    return bench, "warm start" if adapter else "untrained LoRA"


def corpus_prompts(bench: Bench, settings: params.Params) -> list[str]:
    """Return prompts of the embedded corpus that training would use, in a fixed random order."""
    turns = sources.load(settings.prepare.model_copy(update={"source": "embedded", "split": "by_story"}))["train"]
    texts = [turn.text for turn in turns if len(turn.text.split()) >= settings.prepare.min_prompt_words]
    order = np.random.default_rng(SEED).permutation(len(texts))
    counted = [(texts[i], len(loading.prompt_ids(bench.tokenizer, response_format.messages(texts[i])))) for i in order]
    return [text for text, tokens in counted if tokens <= bench.policy.max_prompt_tokens]


def machine() -> dict:
    """Return what the numbers belong to."""
    return {
        "processor": provenance.machine()["processor"],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
        "python": platform.python_version(),
    }
