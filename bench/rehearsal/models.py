"""Random models of the real architectures, a tokenizer, and prompts as long as may be.

A rehearsal runs on them. Nothing is downloaded. Layers, heads and vocabulary are those of the
configurations in profiles/architectures.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from gpro_empathy import files, labels, params, response_format
from gpro_empathy.data import dialogue
from gpro_empathy.policy import adapters, conversion, loading, random_model
from gpro_empathy.scorer import approach, empathy_scorer, lexical_features, lexical_fitting, lexical_scorer, reader

WORDS = "I feel so alone since my old friend moved away and nobody calls me any more at night when it rains".split()


def build(settings: params.Params, architectures: dict[str, dict], folder: Path) -> None:
    """Write models and prompts for train_grpo and rollout below `folder`.

    They are written as the stages before these two would write them.

    Args:
        architectures: Configurations of `policy`, `similarity` and `scorer`.
    """
    torch.manual_seed(0)
    build_policy(architectures["policy"], settings.policy.model, folder / "models/policy")
    build_encoder(architectures["similarity"], AutoModelForSequenceClassification, folder / "similarity")
    build_encoder(architectures["scorer"], AutoModel, folder / "encoder")
    encoder = settings.train_scorer.model_copy(update={"encoder": str(folder / "encoder"), "revision": None})
    stated = {"encoder": encoder.encoder, "revision": None}
    empathy_scorer.save(empathy_scorer.build(encoder), folder / "models/scorer", stated)
    of_replies = reader.settings(settings.train_reader, encoder)
    empathy_scorer.save(empathy_scorer.build(of_replies, labels.MARKS), folder / "models/reader", stated)
    approach.save(untrained_approach(), folder / "models/approach", "No card in a rehearsal.\n")
    held_out, stated = lexical_fitting.train(rated_turns(8))
    lexical_scorer.save(held_out, folder / "models/audit_scorer", stated, "No card in a rehearsal.\n")
    files.write_text(folder / "models/warm_start/README.md", "No warm start in a rehearsal.\n")
    tokenizer = loading.load_tokenizer(folder / "models/policy")
    count = max(settings.train_grpo.prompts_per_step, settings.rollout.prompts, 8)
    turns = longest_turns(tokenizer, count, settings.policy.max_prompt_tokens)
    for split in ("train", "validation", "test"):
        dialogue.write_turns(folder / f"data/prepared/prompts_{split}.jsonl", turns)


def untrained_approach() -> approach.ApproachModel:
    """Return an approach model of two approaches that says the same of every text."""
    features = lexical_features.Features.learn([" ".join(WORDS)] * 2)
    nothing = lexical_features.Linear(np.zeros((2, features.of([""]).shape[1])), np.zeros(2))
    usual = {name: np.zeros(2) for name in approach.USUAL}
    return approach.ApproachModel(features, ("first", "second"), nothing, nothing, np.ones(2, int), usual)


def build_policy(architecture: dict, name: str, folder: Path) -> None:
    """Write a random causal language model, in bfloat16, with its tokenizer.

    They are written as the stage prepare_policy would write them.
    """
    tokenizer = policy_tokenizer(architecture)
    model = _random(AutoModelForCausalLM, _config(architecture, tokenizer), torch.bfloat16)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    files.write_json(folder / adapters.SOURCE, {"model": None, "revision": None, "name": name})


def build_encoder(architecture: dict, kind: type, folder: Path) -> None:
    """Write a random encoder with its tokenizer."""
    tokenizer = full_tokenizer(architecture["vocab_size"])
    # RoBERTa counts positions from the one after the padding token's id.
    tokenizer.model_max_length = architecture["max_position_embeddings"] - 1 - tokenizer.pad_token_id
    _random(kind, _config(architecture, tokenizer), torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def policy_tokenizer(architecture: dict) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the architecture's vocabulary.

    A Llama's has no padding token, as the real one.
    """
    size = architecture["vocab_size"]
    if architecture["model_type"] != "llama":
        return full_tokenizer(size)
    tokenizer = full_tokenizer(size - 1)
    tokenizer.add_tokens([AddedToken(loading.SPARE_TOKENS[0], special=True)])
    tokenizer.pad_token = None
    return tokenizer


def full_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Return the small tokenizer with made-up words beside its own.

    Every id of `size` is a token with a text.
    """
    small = random_model.tokenizer()
    state = json.loads(small.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    letters = ("".join(part) for part in itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=4))
    while len(vocabulary) < size:
        vocabulary.setdefault(f"\u0120{next(letters)}", len(vocabulary))
    tokenizer = Tokenizer.from_str(json.dumps(state))
    return conversion.for_chat(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def longest_turns(tokenizer: PreTrainedTokenizerFast, count: int, tokens: int) -> list[dialogue.Turn]:
    """Return turns whose prompts have exactly `tokens` tokens each."""
    rng = np.random.default_rng(0)
    return [
        dialogue.Turn(str(number), 1, _filled(tokenizer, rng, tokens), (), None, None, None) for number in range(count)
    ]


def rated_turns(count: int) -> list[dialogue.Turn]:
    """Return made-up turns with labels, of 18 words on average.

    Turns of the WASSA 2024 CONV-turn train file are as long on average.
    """
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(4, 33))) for _ in range(count)]
    return [dialogue.Turn(str(i), 1, text, (), *rng.uniform(0, 5, 3).tolist()) for i, text in enumerate(texts)]


def _filled(tokenizer, rng: np.random.Generator, tokens: int) -> str:
    def length(text: str) -> int:
        return len(loading.prompt_ids(tokenizer, response_format.messages(text)))

    text = str(rng.choice(WORDS))
    if length(text) > tokens:
        raise files.UserError(
            f"policy.max_prompt_tokens is {tokens}, and the prompt without a message has {length('')} already; raise it"
        )
    while length(longer := f"{text} {rng.choice(WORDS)}") <= tokens:
        text = longer
    while length(text) < tokens:
        text += "~"  # a byte that no merge takes
    return text


def _config(architecture: dict, tokenizer: PreTrainedTokenizerFast):
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return AutoConfig.for_model(**architecture | special)


def _random(kind: type, config, dtype: torch.dtype):
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return kind.from_config(config, dtype=dtype)
