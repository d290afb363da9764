"""Test the scorer on RoBERTa, the encoder of the published one.

The model is tiny and random, saved to a folder and loaded by its path.

RoBERTa differs from BERT in what the scorer must get right: one segment, two separators in a pair,
positions that begin after the padding's index, a byte-level tokenizer, and a pooler that a
checkpoint may lack.
"""

import numpy as np
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaTokenizer

from gpro_empathy.data.dialogue import Turn
from gpro_empathy.labels import LABELS
from gpro_empathy.scorer import empathy_scorer, fitting

SENTENCES = (
    "I am so sorry about your dog.", "ok", "What a terrible, terrible loss for all of them!", "lol whatever",
    "They should raise the dam and be done with it", "My heart breaks for the old lady on her table.",
    "hello", "I cried when I read how they carried him down the mountain.",
)  # fmt: skip
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Save a two-layer RoBERTa and its tokenizer; return the folder.

    The model is a masked language model, without a pooler.
    """
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("encoders") / "roberta"
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=400, special_tokens=SPECIAL, show_progress=False)
    folder.mkdir()
    vocabulary, merges = bpe.save_model(str(folder))
    RobertaTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=bpe.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=42, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    RobertaForMaskedLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=[0, 2], ids=["single turns", "with context"])
def config(request, encoder, settings):
    return settings.train_scorer.model_copy(
        update={
            "encoder": encoder, "epochs": 120, "batch_size": 8, "learning_rate": 1e-2, "lora_dropout": 0.0,
            "lora_rank": 8, "max_tokens": 40, "layers": None, "warmup_fraction": 0.05, "context_turns": request.param,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def turns():
    labels = np.round(np.random.default_rng(0).uniform([0, 0, 0], [5, 2, 5], (8, 3)) * 3) / 3
    return [
        Turn("c", i, text, SENTENCES[:i], *map(float, row))
        for i, (text, row) in enumerate(zip(SENTENCES, labels, strict=True))
    ]


@pytest.fixture(scope="module")
def model(turns, config):
    return fitting.train(turns, config, seed=0, progress=lambda line: None)


def score(model, turns):
    return model.score([turn.text for turn in turns], [turn.context for turn in turns])


def test_roberta_learns_eight_turns_by_heart(model, turns):
    labels = np.array([[getattr(turn, name) for name in LABELS] for turn in turns])
    assert np.abs(score(model, turns) - labels).mean(0).max() < 0.4


def test_lora_is_on_query_key_value_and_both_dense_layers_of_every_block(model):
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    parts = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
             "intermediate.dense", "output.dense")  # fmt: skip
    for layer in (0, 1):
        for part in parts:
            assert any(f"layer.{layer}.{part}.lora_A" in name for name in trained), (layer, part)
    assert all("lora_" in name or name.startswith("head.") for name in trained)


def test_saved_and_loaded_roberta_gives_the_same_scores_and_merged_nearly_the_same(model, turns, config, tmp_path):
    empathy_scorer.save(model, tmp_path / "scorer", fitting.describe(turns, config, seed=0))
    loaded = empathy_scorer.load(tmp_path / "scorer")
    before = score(model, turns)
    assert score(loaded, turns) == pytest.approx(before, abs=1e-6)
    loaded.merge_adapter()
    assert score(loaded, turns) == pytest.approx(before, abs=1e-4)


def test_score_does_not_depend_on_the_batch_that_pads_it(model, turns):
    alone = np.concatenate([score(model, [turn]) for turn in turns])
    assert score(model, turns) == pytest.approx(alone, abs=1e-5)


def test_context_is_read_where_it_is_configured(model, turns, config):
    other = score(model, [Turn("d", 0, turns[5].text, ("hello",), None, None, None)])
    assert (np.abs(other - score(model, [turns[5]])).max() > 1e-4) == (config.context_turns > 0)


def test_longest_turn_fits_into_the_positions(model):
    assert np.isfinite(model.score(["word " * 10_000], [("history " * 10_000,)])).all()


def test_window_is_made_of_what_the_tokenizer_makes_of_each_turn(model, config):
    (window,) = model.encode(["so sad"], [("he was old",)])
    texts = ["he was old", "so sad"] if config.context_turns else ["so sad"]
    assert list(window.turns) == [model.tokenizer(text)["input_ids"] for text in texts]
