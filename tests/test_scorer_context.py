import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

import made_up
from gpro_empathy import prompts, rewards, scorer, scorer_card, scorer_input, scorer_report, scorer_training
from gpro_empathy.dialogue import LABELS, Turn

HISTORY = ("my dog died", "oh no", "he was old")


@pytest.fixture(scope="module")
def tokenizer():
    return scorer.load_encoder("random", None)[1]


@pytest.fixture(scope="module")
def model(settings):
    torch.manual_seed(0)
    config = settings.train_scorer.model_copy(update={"encoder": "random", "context_turns": 2, "max_tokens": 24})
    return scorer.build(config).eval()


def read(tokenizer, text, context, max_tokens=64, context_turns=3):
    """Return the tokens of one pair, in words and as they are."""
    (tokens,) = scorer_input.encode_pairs(
        tokenizer, [text], [context], max_tokens=max_tokens, context_turns=context_turns
    )
    return tokenizer.convert_ids_to_tokens(tokens.ids), tokens


def test_history_is_the_first_segment_and_the_turn_the_second(tokenizer):
    words, tokens = read(tokenizer, "so sad", HISTORY)
    history = "other : my dog died self : oh no other : he was old".split()
    assert words == ["[CLS]", *history, "[SEP]", "so", "sad", "[SEP]"]
    assert tokens.segments == [0] * (len(history) + 2) + [1] * 3
    assert tokens.pooled == [1] + [0] * len(history) + [1] * 4


def test_pair_is_what_the_tokenizer_itself_makes_of_the_two_segments(tokenizer):
    _, tokens = read(tokenizer, "so sad", HISTORY[-1:])
    expected = tokenizer("other: he was old", "so sad", return_token_type_ids=True)
    assert (tokens.ids, tokens.segments) == (expected["input_ids"], expected["token_type_ids"])


def test_only_the_last_turns_are_read(tokenizer):
    assert read(tokenizer, "so sad", HISTORY, context_turns=1)[0] == read(tokenizer, "so sad", HISTORY[-1:])[0]


def test_oldest_history_is_cut_first(tokenizer):
    words, _ = read(tokenizer, "so sad", HISTORY, max_tokens=9)
    assert words == ["[CLS]", ":", "he", "was", "old", "[SEP]", "so", "sad", "[SEP]"]


def test_turn_is_cut_at_its_end_only_when_no_history_is_left(tokenizer):
    words, tokens = read(tokenizer, "a b c d e f g h", HISTORY, max_tokens=8)
    assert words == ["[CLS]", "[SEP]", "a", "b", "c", "d", "e", "[SEP]"]
    assert tokens.pooled == [1] * 8


@effort(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=4), st.integers(8, 40))
def test_pair_is_never_too_long_and_the_turn_loses_nothing_to_the_history(tokenizer, text, context, max_tokens):
    _, tokens = read(tokenizer, text, context, max_tokens)
    _, alone = read(tokenizer, text, (), max_tokens)
    assert len(tokens.ids) == len(tokens.segments) == len(tokens.pooled) <= max_tokens
    assert [i for i, part in zip(tokens.ids, tokens.segments, strict=True) if part] == [
        i for i, part in zip(alone.ids, alone.segments, strict=True) if part
    ]


def test_score_is_the_head_on_the_mean_of_the_states_that_are_not_history(model):
    (tokens,) = model.encode(["so sad"], [HISTORY[-1:]])
    assert tokens.pooled == [1, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    with torch.no_grad():
        states = model.encoder(
            input_ids=torch.tensor([tokens.ids]), token_type_ids=torch.tensor([tokens.segments])
        ).last_hidden_state[0]
        expected = model.head(states[[0, 6, 7, 8, 9]].mean(0)) * model.label_sd + model.label_mean
    assert model.score(["so sad"], [HISTORY[-1:]])[0] == pytest.approx(expected.numpy(), abs=1e-5)


def test_score_depends_on_the_history_but_not_on_the_batch(model):
    contexts = [(), HISTORY[:1], HISTORY, ("word " * 50,)]
    together = model.score(["so sad"] * 4, contexts)
    alone = np.concatenate([model.score(["so sad"], [context]) for context in contexts])
    assert together == pytest.approx(alone, abs=1e-5)
    assert len({tuple(row.round(4)) for row in together}) == 4


def test_scorer_of_single_turns_reads_no_context(settings):
    single = scorer.build(settings.train_scorer.model_copy(update={"encoder": "random"}))
    assert (single.score(["so sad"], [HISTORY]) == single.score(["so sad"])).all()


def test_refuses_contexts_that_do_not_pair_up(model):
    with pytest.raises(ValueError, match="2 texts and 1 contexts"):
        model.score(["a", "b"], [()])


def test_training_learns_from_the_context_what_the_text_does_not_tell(settings):
    """Equal texts whose labels are told by the turn before them alone."""
    config = settings.train_scorer.model_copy(
        update={
            "encoder": "random", "epochs": 60, "batch_size": 8, "learning_rate": 1e-2, "lora_dropout": 0.0,
            "context_turns": 1, "max_tokens": 32, "warmup_fraction": 0.05,
        }
    )  # fmt: skip
    turns = [
        Turn(f"c{i}", 1, "i see", ("terrible loss",) if i % 2 else ("ok",), 4.0 * (i % 2), i % 2, 4.0 * (i % 2))
        for i in range(8)
    ]
    model = scorer_training.train(turns, config, seed=0, progress=lambda line: None)
    sad, dull = model.score(["i see"] * 2, [("terrible loss",), ("ok",)])
    assert (sad - dull > [2.0, 0.5, 2.0]).all()
    assert scorer_report.evaluate(model, turns)["mean_pearson"] > 0.9


def test_saved_scorer_reads_the_same_context(model, settings, tmp_path):
    config = settings.train_scorer.model_copy(update={"encoder": "random", "context_turns": 2, "max_tokens": 24})
    stated = scorer_training.describe([Turn("a", 0, "x", (), 1.0, 1.0, 1.0)], config, seed=3)
    assert stated["training"] == {
        "epochs": config.epochs, "learning_rate": config.learning_rate, "batch_size": config.batch_size,
        "turns": 1, "conversations": 1, "seed": 3,
    }  # fmt: skip
    scorer.save(model, tmp_path / "scorer", stated)
    loaded = scorer.load(tmp_path / "scorer")
    assert (loaded.score(["so sad"], [HISTORY]) == model.score(["so sad"], [HISTORY])).all()


def test_hastened_scorer_gives_nearly_the_same_scores(settings, tmp_path):
    from conftest import randomise

    made = scorer.build(settings.train_scorer.model_copy(update={"encoder": "random"}))
    randomise(made)
    before = made.score(HISTORY)
    made.hasten()
    assert not [name for name, _ in made.named_parameters() if "lora_" in name]
    assert made.score(HISTORY) == pytest.approx(before, abs=1e-4)


def test_reward_is_of_the_answer_in_the_context_of_the_message():
    class Recorder:
        def score(self, texts, contexts):
            self.seen = (list(texts), list(contexts))
            return np.zeros((len(texts), 3))

    recorder = Recorder()
    responses = [prompts.parse_response("fine")]
    rewards.Empathy(recorder)(["how are you?"], responses)
    assert recorder.seen == ([responses[0].answer], [("how are you?",)])


# The model card


def card(**changes):
    settings = {
        "encoder": "some/encoder", "revision": None, "max_tokens": 256, "context_turns": 0, "role": "reward",
        "training": {
            "epochs": 2, "learning_rate": 1e-3, "batch_size": 16, "turns": 741, "conversations": 70, "seed": 17,
        },
    } | changes  # fmt: skip
    known = {name: {"pearson": 0.61234, "mae": 0.5} for name in LABELS} | {"turns": 9, "mean_pearson": 0.6}
    unknown = {name: {"pearson": None, "mae": None} for name in LABELS} | {"turns": 0, "mean_pearson": None}
    return scorer_card.write(settings, made_up.scorer()["reward"] | {"validation": known, "test": unknown})


def test_card_states_the_measured_numbers_and_the_settings():
    text = card()
    assert "| validation | 9 | 0.612 | 0.500 | 0.612 | 0.500 | 0.612 | 0.500 | 0.600 |" in text
    assert "| test | 0 | not defined |" in text
    assert "741 turns of 70 conversations: epochs 2, learning rate 0.001, batches of 16, seed 17." in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1


def test_card_states_slope_and_reaction_to_stock_phrases():
    assert "predicted empathy (1: calibrated): 0.80 [0.50, 1.10]" in card()
    assert "changes its Empathy by 0.40 [0.30, 0.50] on average, a neutral sentence by -0.10 [-0.20, 0.00]" in card()


def test_card_says_what_is_read_and_what_for():
    assert "by itself" in card()
    assert "after up to 3 earlier turns" in card(context_turns=3)
    assert "some/encoder at abc," in card(revision="abc")
    assert "It only audits" in card(role="audit")


def test_evaluation_gives_the_scorer_the_context_of_every_turn(model):
    turns = [Turn("a", i, "so sad", HISTORY[:i], float(i), 0.5 * i, float(i)) for i in range(4)]
    found = scorer_report.evaluate(model, turns)
    predicted = model.score(["so sad"] * 4, [turn.context for turn in turns])[:, 2]
    assert found["empathy"]["mae"] == pytest.approx(np.abs(predicted - np.arange(4)).mean())
