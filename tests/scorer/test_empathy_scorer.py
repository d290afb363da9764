import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError
from gpro_empathy.labels import LABELS
from gpro_empathy.scorer import empathy_scorer, fitting
from gpro_empathy.scorer import encoder as scorer_encoder

SENTENCES = (
    "I am so sorry about your dog.", "ok", "What a terrible, terrible loss for all of them!", "lol whatever",
    "They should raise the dam and be done with it", "My heart breaks for the old lady on her table.",
    "hello", "I cried when I read how they carried him down the mountain.",
)  # fmt: skip


def labelled():
    """Return 8 turns with labels that have nothing to do with each other."""
    rng = np.random.default_rng(0)
    labels = np.round(rng.uniform([0, 0, 0], [5, 2, 5], (8, 3)) * 3) / 3
    return [
        Turn(f"c{i // 2}", i % 2, text, (), *map(float, row))
        for i, (text, row) in enumerate(zip(SENTENCES, labels, strict=True))
    ]


@pytest.fixture(scope="module")
def config(settings):
    """Return settings that learn 8 turns by heart with a random two-layer encoder."""
    return settings.train_scorer.model_copy(
        update={
            "encoder": "random", "epochs": 150, "batch_size": 8, "learning_rate": 1e-2, "lora_dropout": 0.0,
            "lora_rank": 8, "max_tokens": 32, "warmup_fraction": 0.05, "audit_fraction": 0.4,
        }
    )  # fmt: skip


def quick(config, **changes):
    return config.model_copy(update={"epochs": 2, **changes})


def trained(turns, config, seed=0):
    return fitting.train(turns, config, seed=seed, progress=lambda line: None)


@pytest.fixture(scope="module")
def overfitted(config):
    torch.set_num_threads(1)
    return trained(labelled(), config)


def labels_of(turns):
    return np.array([[getattr(turn, name) for name in LABELS] for turn in turns])


def test_scorer_learns_eight_turns_by_heart_in_label_units(overfitted):
    predicted, labels = overfitted.score(SENTENCES), labels_of(labelled())
    assert predicted.shape == (8, 3)
    assert np.abs(predicted - labels).mean(0).max() < 0.35
    assert min(np.corrcoef(predicted[:, i], labels[:, i])[0, 1] for i in range(3)) > 0.95


def test_score_of_a_text_does_not_depend_on_its_batch(overfitted):
    together = overfitted.score(SENTENCES)
    alone = np.concatenate([overfitted.score([text]) for text in SENTENCES])
    assert together == pytest.approx(alone, abs=1e-5)


def test_scores_keep_their_order_when_they_take_several_batches(overfitted, monkeypatch):
    together = overfitted.score(SENTENCES)
    monkeypatch.setitem(empathy_scorer.TOKENS_PER_BATCH, "cpu", 12)
    assert overfitted.score(SENTENCES) == pytest.approx(together, abs=1e-5)


def test_scores_are_of_the_normalised_text(overfitted):
    one, other = overfitted.score(["so  sad @bob", "so sad [USER]"])
    assert one == pytest.approx(other, abs=1e-6)


def test_prediction_is_the_head_on_the_mean_of_token_states(overfitted):
    ids = overfitted.encode([SENTENCES[0]])[0].turns[0]
    with torch.no_grad():
        states = overfitted.encoder(input_ids=torch.tensor([ids])).last_hidden_state[0]
        standardised = overfitted.head.weight @ states.mean(0) + overfitted.head.bias
    expected = standardised * overfitted.label_sd + overfitted.label_mean
    assert overfitted.score([SENTENCES[0]])[0] == pytest.approx(expected.numpy(), abs=1e-5)


def test_texts_are_cut_at_the_longest_length(overfitted):
    (window,) = overfitted.encode(["word " * 100])
    assert window.tokens == 32


def test_turns_are_scored_with_their_context_and_an_ending(context_scorer):
    turns = [Turn("a", i, "so sad", ("my dog died", "oh no")[:i], None, None, None) for i in range(3)]
    expected = context_scorer.score(["so sad Bye."] * 3, [turn.context for turn in turns])
    assert (empathy_scorer.score_turns(context_scorer, turns, ending=" Bye.") == expected).all()


def test_no_text_has_no_score(overfitted):
    assert overfitted.score([]).shape == (0, 3)


def test_lora_is_on_query_key_value_and_both_dense_layers_and_the_encoder_is_frozen(overfitted):
    trainable = {name for name, parameter in overfitted.named_parameters() if parameter.requires_grad}
    layers = {name.rpartition(".lora_")[0].rpartition("layer.0.")[2] for name in trainable if "layer.0." in name}
    assert layers == {
        "attention.self.query", "attention.self.key", "attention.self.value",
        "attention.output.dense", "intermediate.dense", "output.dense",
    }  # fmt: skip
    assert all("lora_" in name or name.startswith("head.") for name in trainable)


def test_labels_are_standardised_with_the_mean_and_sd_of_what_is_known(config):
    turns = [replace(turn, emotion=None) if i < 3 else turn for i, turn in enumerate(labelled())]
    model = trained(turns, quick(config))
    known = labels_of(turns)[3:, 0].astype(float)
    assert float(model.label_mean[0]) == pytest.approx(known.mean(), abs=1e-5)
    assert float(model.label_sd[0]) == pytest.approx(known.std(), abs=1e-5)


def test_missing_labels_do_not_count_in_the_loss(config):
    """Take one step on eight turns, of which two carry a polarity.

    It moves the head's row for polarity as those two alone do.
    """
    turns = [replace(turn, polarity={0: 0.0, 1: 2.0}.get(i)) for i, turn in enumerate(labelled())]
    start = empathy_scorer.build(config)
    for module in start.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    moved = {}
    for name, rows in (("all", turns), ("known", turns[:2])):
        model = copy.deepcopy(start)
        labels = np.array([[np.nan if getattr(t, n) is None else getattr(t, n) for n in LABELS] for t in rows])
        one_step = quick(config, epochs=1, batch_size=8, head_learning_rate=1e-2)
        fitting.fit(model, [t.text for t in rows], [()] * len(rows), labels, one_step, 0, lambda line: None)
        moved[name] = (model.head.weight - start.head.weight).detach()
    # AdamW's first step goes by the sign of the gradient, whatever number of turns the mean is
    # taken over.
    assert moved["all"].abs().max() > 0.005
    assert torch.allclose(moved["all"][1], moved["known"][1], atol=1e-3)
    assert not torch.allclose(moved["all"][2], moved["known"][2], atol=1e-3)


def test_longer_texts_than_the_encoder_takes_are_refused(config):
    with pytest.raises(UserError, match=r"train_scorer\.max_tokens is 513, and random takes 512"):
        empathy_scorer.build(quick(config, max_tokens=513))


def test_an_encoder_of_another_kind_is_refused(config, tmp_path):
    transformers.DistilBertModel(
        transformers.DistilBertConfig(vocab_size=30, dim=8, hidden_dim=8, n_layers=1, n_heads=1)
    ).save_pretrained(tmp_path)
    scorer_encoder.load("random", None, None)[1].save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is of the kind distilbert; only bert, "):
        empathy_scorer.build(quick(config, encoder=str(tmp_path)))


def test_turns_without_any_label_change_nothing(config):
    turns = labelled()
    blank = Turn("c9", 0, "never seen", (), None, None, None)
    one, other = trained(turns, quick(config)), trained([blank, *turns, blank], quick(config))
    assert (one.score(SENTENCES) == other.score(SENTENCES)).all()


def test_training_with_one_seed_gives_one_scorer(config):
    one, again, other = (trained(labelled(), quick(config), seed).score(SENTENCES) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()


def test_saved_scorer_gives_the_same_scores(overfitted, tmp_path):
    empathy_scorer.save(overfitted, tmp_path / "scorer", {"encoder": "random", "revision": None, "max_tokens": 32})
    assert (empathy_scorer.load(tmp_path / "scorer").score(SENTENCES) == overfitted.score(SENTENCES)).all()


@pytest.fixture
def folder(overfitted, tmp_path):
    empathy_scorer.save(overfitted, tmp_path / "scorer", {"encoder": "random", "revision": None, "max_tokens": 32})
    return tmp_path / "scorer"


def test_saved_scorer_holds_no_weights_of_the_encoder(folder):
    assert set(load_file(folder / "head.safetensors")) == {"head.weight", "head.bias", "label_mean", "label_sd"}
    assert all("lora_" in name for name in load_file(folder / "adapter/adapter_model.safetensors"))


def test_saved_scorer_holds_no_path_of_this_machine_and_nothing_in_an_order_of_chance(settings, tmp_path):
    model = empathy_scorer.build(settings.train_scorer.model_copy(update={"encoder": "all-minilm-l6-v2"}))
    empathy_scorer.save(model, tmp_path / "scorer", {"encoder": "all-minilm-l6-v2", "revision": None, "max_tokens": 32})
    adapter = json.loads((tmp_path / "scorer/adapter/adapter_config.json").read_text())
    assert not Path(adapter["base_model_name_or_path"] or "").is_absolute()
    assert adapter["target_modules"] == sorted(adapter["target_modules"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, r"scorer\.json: format.*1.*5.*train"),
        ({"normalisation": "lower"}, r"scorer\.json: normalisation.*'lower'.*'nfkc-2'"),
        ({"context_turns": -1}, r"scorer\.json: context_turns.*-1\b.*\b0"),
        ({"layers": 0}, r"scorer\.json: layers.*\b0\b.*\b1\b"),
        ({"layers": 1}, r"adapter: .*random.*delete"),
        ({"max_tokens": True}, r"scorer\.json: max_tokens.*True.*\b8\b"),
        ({"encoder": None}, r"scorer\.json: encoder.*None"),
        ({"encoder": "all-minilm-l6-v2"}, r"adapter: .*all-minilm-l6-v2.*delete"),
        ({"labels": ["empathy"]}, r"scorer\.json: labels.*\['empathy'\].*\['emotion', 'polarity', 'empathy'\]"),
    ],
)  # fmt: skip
def test_refuses_a_folder_of_another_format(folder, change, message):
    settings = json.loads((folder / "scorer.json").read_text())
    (folder / "scorer.json").write_text(json.dumps(settings | change))
    with pytest.raises(UserError, match=message):
        empathy_scorer.load(folder)


def test_refuses_a_head_that_does_not_fit(folder):
    from safetensors.torch import save_file

    head = load_file(folder / "head.safetensors")
    save_file(head | {"tail": torch.zeros(1)}, folder / "head.safetensors")
    with pytest.raises(UserError, match=r"head\.safetensors: .*delete"):
        empathy_scorer.load(folder)


def test_refuses_a_folder_without_a_scorer(tmp_path):
    with pytest.raises(UserError, match=r"scorer\.json"):
        empathy_scorer.load(tmp_path)


def test_refuses_turns_without_labels(config):
    with pytest.raises(UserError, match=r"\bturn\b.*\blabel\b"):
        trained([Turn("a", 0, "hi", (), None, None, None)], config)


def test_refuses_a_label_without_spread_and_names_it(config):
    with pytest.raises(UserError, match=r"EmotionalPolarity.*\b1\b.*\b8\b"):
        trained([replace(turn, polarity=1.0) for turn in labelled()], config)


def test_refuses_turns_without_empathy(config):
    with pytest.raises(UserError, match=r"\bturn\b.*\bEmpathy\b"):
        trained([replace(turn, empathy=None) for turn in labelled()], config)


def test_label_that_no_turn_carries_is_not_learned_and_changes_no_other(config, tmp_path):
    turns = [replace(turn, emotion=None, polarity=None) for turn in labelled()]
    scorer = trained(turns, config)
    scores_B3 = scorer.score([turn.text for turn in turns])
    assert np.isnan(scores_B3[:, :2]).all()
    assert np.isfinite(scores_B3[:, 2]).all()
    empathy_scorer.save(scorer, tmp_path / "scorer", {"encoder": "random", "revision": None})
    again_B3 = empathy_scorer.load(tmp_path / "scorer").score([turn.text for turn in turns])
    np.testing.assert_allclose(again_B3, scores_B3, atol=1e-5)


def test_refuses_an_encoder_that_cannot_be_loaded(config, tmp_path):
    with pytest.raises(UserError, match=r"train_scorer\.encoder '.*nowhere'"):
        scorer_encoder.load(str(tmp_path / "nowhere"), None, None)


def test_packaged_encoder_is_loaded():
    encoder, tokenizer = scorer_encoder.load("all-minilm-l6-v2", None, None)
    assert (encoder.config.hidden_size, len(encoder.encoder.layer)) == (384, 6)
    assert tokenizer("hello")["input_ids"] == [101, 7592, 102]


def test_first_layers_alone_are_kept_and_give_what_they_gave_in_the_whole():
    whole, tokenizer = scorer_encoder.load("all-minilm-l6-v2", None, None)
    cut, _ = scorer_encoder.load("all-minilm-l6-v2", None, 2)
    ids = torch.tensor([tokenizer("hello")["input_ids"]])
    with torch.no_grad():
        states = whole.eval()(ids, output_hidden_states=True).hidden_states
        assert torch.equal(cut.eval()(ids).last_hidden_state, states[2])
    assert cut.config.num_hidden_layers == 2


def test_refuses_more_layers_than_the_encoder_has():
    with pytest.raises(UserError, match=r"train_scorer\.layers.*\b7\b.*\b6\b.*null"):
        scorer_encoder.load("all-minilm-l6-v2", None, 7)


# Two scorers


def test_two_scorers_learn_from_conversations_of_their_own_where_no_story_is_named(config):
    turns = [Turn(f"c{i // 3}", i % 3, "x", (), 1.0, 1.0, 1.0) for i in range(60)]
    halves = fitting.disjoint_halves(turns, config)
    reward, audit = ({turn.conversation for turn in halves[role]} for role in ("reward", "audit"))
    assert not reward & audit
    assert (len(reward), len(audit)) == (12, 8)
    assert len(halves["reward"]) + len(halves["audit"]) == 60


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_reward_gets_at_least_one_story_and_the_audit_two(config, fraction):
    turns = [Turn(f"c{i}", 0, "x", (), 1.0, 1.0, 1.0) for i in range(4)]
    halves = fitting.disjoint_halves(turns, quick(config, audit_fraction=fraction))
    assert len(halves["reward"]) >= 1
    assert len(halves["audit"]) >= 2


def test_refuses_two_scorers_from_two_stories(config):
    with pytest.raises(UserError, match=r"\b3\b.*stories.*\b2$"):
        fitting.disjoint_halves(labelled()[:4], config)
