import numpy as np
import pytest

import made_up
from gpro_empathy import response_format, rewards
from gpro_empathy.analysis import scorer_accuracy
from gpro_empathy.data.dialogue import LABELS, Turn
from gpro_empathy.scorer import empathy_scorer, fitting, model_card

HISTORY = ("my dog died", "oh no", "he was old")


def test_score_depends_on_the_history_but_not_on_the_batch(context_scorer):
    contexts = [(), HISTORY[:1], HISTORY, ("word " * 50,)]
    together = context_scorer.score(["so sad"] * 4, contexts)
    alone = np.concatenate([context_scorer.score(["so sad"], [context]) for context in contexts])
    assert together == pytest.approx(alone, abs=1e-5)
    assert len({tuple(row.round(4)) for row in together}) == 4


def test_scorer_of_single_turns_reads_no_context(settings):
    single = empathy_scorer.build(settings.train_scorer.model_copy(update={"encoder": "random"}))
    assert (single.score(["so sad"], [HISTORY]) == single.score(["so sad"])).all()


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
    model = fitting.train(turns, config, seed=0, progress=lambda line: None)
    sad, dull = model.score(["i see"] * 2, [("terrible loss",), ("ok",)])
    assert (sad - dull > [2.0, 0.5, 2.0]).all()
    assert scorer_accuracy.evaluate(turns, scorer_accuracy.score(model, turns))["mean_pearson"] > 0.9


def test_saved_scorer_reads_the_same_context(context_scorer, settings, tmp_path):
    config = settings.train_scorer.model_copy(update={"encoder": "random", "context_turns": 2, "max_tokens": 24})
    stated = fitting.describe([Turn("a", 0, "x", (), 1.0, 1.0, 1.0)], config, seed=3)
    assert stated["training"] == {
        "epochs": config.epochs, "learning_rate": config.learning_rate, "batch_size": config.batch_size,
        "layers": config.layers, "head_learning_rate": config.head_learning_rate, "lora_rank": config.lora_rank,
        "turns": 1, "conversations": 1, "seed": 3,
    }  # fmt: skip
    empathy_scorer.save(context_scorer, tmp_path / "scorer", stated)
    loaded = empathy_scorer.load(tmp_path / "scorer")
    assert (loaded.score(["so sad"], [HISTORY]) == context_scorer.score(["so sad"], [HISTORY])).all()


def test_hastened_scorer_gives_nearly_the_same_scores(settings, tmp_path):
    from conftest import randomise

    made = empathy_scorer.build(settings.train_scorer.model_copy(update={"encoder": "random"}))
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
    responses = [response_format.parse_response("fine")]
    rewards.Empathy(recorder)(["how are you?"], responses)
    assert recorder.seen == ([responses[0].answer], [("how are you?",)])


# The model card


def card(lora_rank=32, layers=None, **changes):
    settings = {
        "encoder": "some/encoder", "revision": None, "max_tokens": 256, "context_turns": 0, "role": "reward",
        "training": {
            "layers": layers, "epochs": 2, "learning_rate": 1e-4, "head_learning_rate": 1e-3, "batch_size": 16, "lora_rank": lora_rank,
            "turns": 741, "conversations": 70, "seed": 17,
        },
    } | changes  # fmt: skip
    known = {name: {"pearson": 0.61234, "mae": 0.5} for name in LABELS} | {"turns": 9, "mean_pearson": 0.6}
    unknown = {name: {"pearson": None, "mae": None} for name in LABELS} | {"turns": 0, "mean_pearson": None}
    return model_card.write(settings, made_up.scorer()["reward"] | {"validation": known, "test": unknown})


def test_card_states_the_measured_numbers_and_the_settings():
    text = card()
    assert "| validation | 9 | 0.612 | 0.500 | 0.612 | 0.500 | 0.612 | 0.500 | 0.600 |" in text
    assert "| test | 0 | not defined |" in text
    assert "741 turns of 70 conversations: epochs 2, learning rates 0.0001 (encoder) and 0.001 (head), batches" in text
    assert "batches of 16, seed 17." in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1


def test_card_states_slope_and_reaction_to_stock_phrases():
    assert "predicted empathy (1: calibrated): 0.80 [0.50, 1.10]" in card()
    assert "changes its Empathy by 0.40 [0.30, 0.50] on average, a neutral sentence by -0.10 [-0.20, 0.00]" in card()


def test_card_says_what_is_read_and_what_for():
    assert "by itself" in card()
    assert "after 3 or more earlier turns" in card(context_turns=3)
    assert "some/encoder at abc," in card(revision="abc")
    assert "LoRA matrices and a linear head" in card()
    assert "its blocks trained further" in card(lora_rank=0)
    assert "It only audits" in card(role="audit")


def test_evaluation_gives_the_scorer_the_context_of_every_turn(context_scorer):
    turns = [Turn("a", i, "so sad", HISTORY[:i], float(i), 0.5 * i, float(i)) for i in range(4)]
    found = scorer_accuracy.evaluate(turns, scorer_accuracy.score(context_scorer, turns))
    predicted = context_scorer.score(["so sad"] * 4, [turn.context for turn in turns])[:, 2]
    assert found["empathy"]["mae"] == pytest.approx(np.abs(predicted - np.arange(4)).mean())
