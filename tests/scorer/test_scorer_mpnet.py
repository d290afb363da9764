"""Test the scorer on MPNet, the packaged encoder of base size.

The model is tiny and random, saved to a folder and loaded by its path.

MPNet differs from BERT in what the scorer must get right: no token types, other names of query, key
and value, positions that begin after the padding's index, and attention that adds its mask to the
scores, so that a boolean one would hide neither padding nor later turns.
"""

import numpy as np
import pytest
import torch
from transformers import MPNetConfig, MPNetForMaskedLM, MPNetTokenizer

from gpro_empathy.data.dialogue import Turn
from gpro_empathy.scorer import empathy_scorer, fitting
from gpro_empathy.scorer import encoder as scorer_encoder

TALK = ("my dog died last night", "oh no", "he was old and ill and we loved him", "so sad", "yes")
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>")
PARTS = ("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o", "intermediate.dense", "output.dense")  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Save a two-layer MPNet and its tokenizer; return the folder."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("encoders") / "mpnet"
    words = dict.fromkeys(word for text in TALK for word in text.split())
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    MPNetTokenizer(vocab=vocabulary).save_pretrained(folder)
    torch.manual_seed(0)
    config = MPNetConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=66, initializer_range=0.3,
    )  # fmt: skip
    MPNetForMaskedLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=[4, 0], ids=["adapter", "whole"])
def config(request, encoder, settings):
    return settings.train_scorer.model_copy(
        update={
            "encoder": encoder, "epochs": 20, "batch_size": 8, "learning_rate": 1e-2, "lora_rank": request.param,
            "max_tokens": 64, "layers": None, "context_turns": 2,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def turns():
    labels = [(0, 0, 0), (5, 2, 5), (0, 2, 5), (5, 0, 0), (2, 1, 3)]
    return [Turn("c", i, text, TALK[:i], *map(float, labels[i])) for i, text in enumerate(TALK)]


@pytest.fixture(scope="module")
def losses():
    return []


@pytest.fixture(scope="module")
def model(turns, config, losses):
    losses.clear()
    return fitting.train(turns, config, seed=0, progress=losses.append)


def test_training_lowers_the_loss(model, losses):
    first, last = (float(line.split("loss ")[1].split(",")[0]) for line in (losses[0], losses[-1]))
    assert last < 0.5 * first


def test_what_is_trained_are_all_products_of_the_blocks(model, config):
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for layer in (0, 1):
        for part in PARTS:
            assert any(f"layer.{layer}.{part}.{'lora_A' if config.lora_rank else 'weight'}" in name for name in trained)
    assert not [name for name in trained if "embeddings" in name]
    if config.lora_rank:
        assert all("lora_" in name or name.startswith("head.") for name in trained)


def test_prediction_is_the_head_on_the_mean_of_token_states(model):
    ids = model.tokenizer(TALK[2])["input_ids"]
    with torch.no_grad():
        states = model.eval().encoder(input_ids=torch.tensor([ids])).last_hidden_state[0]
        standardised = model.head.weight @ states.mean(0) + model.head.bias
    expected = standardised * model.label_sd + model.label_mean
    assert model.score([TALK[2]])[0] == pytest.approx(expected.numpy(), abs=1e-5)


def test_score_does_not_depend_on_the_batch_that_pads_it(model):
    alone = np.concatenate([model.score([text]) for text in TALK])
    assert model.score(TALK) == pytest.approx(alone, abs=1e-5)


def test_turn_is_rated_as_if_it_were_the_last_and_with_its_context(model, turns):
    together = empathy_scorer.score_turns(model, turns)
    assert len(model.encode(TALK, [turn.context for turn in turns])) == 1
    for i in range(3):  # the later ones read more than two turns, which share their window
        assert model.score([TALK[i]], [TALK[:i]])[0] == pytest.approx(together[i], abs=1e-5)
    assert np.abs(model.score([TALK[2]]) - together[2]).max() > 1e-3


def test_saved_and_loaded_scorer_gives_the_same_scores_and_merged_nearly_the_same(model, turns, config, tmp_path):
    empathy_scorer.save(model, tmp_path / "scorer", fitting.describe(turns, config, seed=0))
    loaded, before = empathy_scorer.load(tmp_path / "scorer"), empathy_scorer.score_turns(model, turns)
    assert empathy_scorer.score_turns(loaded, turns) == pytest.approx(before, abs=1e-6)
    loaded.merge_adapter()
    assert empathy_scorer.score_turns(loaded, turns) == pytest.approx(before, abs=1e-4)


def test_training_in_bfloat16_gives_nearly_the_same_scores_and_weights_in_float32(turns, config):
    shorter = config.model_copy(update={"epochs": 2, "learning_rate": 1e-3})
    exact, rounded = (
        fitting.train(turns, shorter, seed=0, bfloat16=bfloat16, progress=lambda line: None)
        for bfloat16 in (False, True)
    )
    assert {parameter.dtype for parameter in rounded.parameters()} == {torch.float32}
    far = np.abs(empathy_scorer.score_turns(exact, turns) - empathy_scorer.score_turns(rounded, turns)).max()
    assert 0 < far < 0.1


def test_first_layers_alone_are_kept(encoder):
    assert len(scorer_encoder.load(encoder, None, 1)[0].encoder.layer) == 1
