import numpy as np
import pytest

from gpro_empathy import response_format, rewards
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.scorer import empathy_scorer, fitting, scorer_card

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
    label_B3 = np.array([[turn.emotion, turn.polarity, turn.empathy] for turn in turns])
    assert np.corrcoef(empathy_scorer.score_turns(model, turns).ravel(), label_B3.ravel())[0, 1] > 0.9


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


def test_scorer_with_merged_adapter_gives_nearly_the_same_scores(settings, tmp_path):
    from conftest import randomise

    made = empathy_scorer.build(settings.train_scorer.model_copy(update={"encoder": "random"}))
    randomise(made)
    before = made.score(HISTORY)
    made.merge_adapter()
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
        "encoder": "some/encoder", "revision": None, "max_tokens": 256, "context_turns": 0,
        "training": {
            "layers": layers, "epochs": 2, "learning_rate": 1e-4, "head_learning_rate": 1e-3, "batch_size": 16, "lora_rank": lora_rank,
            "turns": 741, "conversations": 70, "seed": 17,
        },
    } | changes  # fmt: skip
    return scorer_card.write(settings)


def test_card_states_the_settings_and_where_the_measured_numbers_are():
    text = card()
    assert "stand under `reward` in reports/scorer.json" in text
    assert "741 turns of 70 conversations: epochs 2, learning rates 0.0001 (encoder) and 0.001 (head), batches" in text
    assert "batches of 16, seed 17." in text


def test_card_says_what_is_read_and_what_for():
    assert "by itself" in card()
    assert "after 3 or more earlier turns" in card(context_turns=3)
    assert "some/encoder at abc," in card(revision="abc")
    assert "LoRA matrices and a linear head" in card()
    assert "its blocks trained further" in card(lora_rank=0)
