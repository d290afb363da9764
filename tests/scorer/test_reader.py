"""The reader model: what a reader would say of an answer to a message."""

import numpy as np
import pytest

from gpro_empathy.files import UserError
from gpro_empathy.labels import LABELS, MARKS
from gpro_empathy.scorer import empathy_scorer, reader, scorer_card

# The same two answers, of which a message makes one sensible and the other not.
READINGS = [
    {"utterance": message, "answer": answer, "sense": 2 * fits, "empathetic": int(answer == "so sorry")}
    for message, answer, fits in (
        ("terrible loss", "so sorry", 1),
        ("terrible loss", "ha ha", 0),
        ("good joke", "so sorry", 0),
        ("good joke", "ha ha", 1),
    )
] * 2


@pytest.fixture(scope="module")
def configs(settings):
    encoder = settings.train_scorer.model_copy(
        update={"encoder": "random", "learning_rate": 1e-2, "layers": 2, "max_tokens": 32, "warmup_fraction": 0.05}
    )
    return settings.train_reader.model_copy(update={"epochs": 120, "batch_size": 8}), encoder


@pytest.fixture(scope="module")
def trained(configs):
    return reader.train(READINGS, *configs, progress=lambda line: None)


def test_learns_that_the_same_answer_fits_one_message_and_not_another(trained):
    answers, contexts = ["so sorry", "so sorry", "ha ha", "ha ha"], [("terrible loss",), ("good joke",)] * 2
    sense_B, empathetic_B = trained.score(answers, contexts).T
    assert sense_B == pytest.approx([2.0, 0.0, 0.0, 2.0], abs=0.5)
    assert empathetic_B == pytest.approx([1.0, 1.0, 0.0, 0.0], abs=0.25)


class Letters:
    """Matches an answer with a message by the number of letters of the answer."""

    def match(self, utterances, answers):
        return np.array([float(len(answer)) for answer in answers])


def test_accuracy_is_the_area_under_the_curve_of_each_mark(trained):
    found = reader.accuracy(trained, Letters(), READINGS)
    assert found == {
        "readings": 8,
        "sensible": {"share": 0.5, "auc": 1.0, "approach_auc": 0.5},
        "empathetic": {"share": 0.5, "auc": 1.0, "approach_auc": 1.0},
    }  # fmt: skip


def test_accuracy_agrees_with_counted_pairs():
    class Known:
        def score(self, texts, contexts):
            return np.array([[float(text), -float(text)] for text in texts])

    rows = [("1", 0), ("2", 2), ("2", 1), ("3", 0), ("4", 2)]
    readings = [{"utterance": "u", "answer": answer, "sense": sense, "empathetic": 1} for answer, sense in rows]
    found = reader.accuracy(Known(), Letters(), readings)
    higher = np.mean([(a > b) + (a == b) / 2 for a in (2, 4) for b in (1, 2, 3)])
    assert found["sensible"] == {"share": 0.4, "auc": pytest.approx(higher), "approach_auc": 0.5}
    assert found["empathetic"] == {"share": 1.0, "auc": None, "approach_auc": None}
    assert reader.accuracy(Known(), Letters(), []) is None


def test_saved_reader_model_gives_the_same_marks_and_is_no_empathy_scorer(trained, configs, tmp_path):
    settings = reader.describe(READINGS, *configs)
    assert settings["training"]["readings"] == 8
    assert settings["training"]["messages"] == 2
    empathy_scorer.save(trained, tmp_path / "reader", settings, scorer_card.write_reader(settings))
    loaded = empathy_scorer.load(tmp_path / "reader", MARKS)
    assert (loaded.score(["ha ha"], [("good joke",)]) == trained.score(["ha ha"], [("good joke",)])).all()
    assert "8 readings of answers to 2 messages" in (tmp_path / "reader/README.md").read_text()
    with pytest.raises(UserError, match=r"scorer\.json: labels is .*sense.*expected .*emotion"):
        empathy_scorer.load(tmp_path / "reader", LABELS)


@pytest.mark.parametrize("readings", [[], READINGS[:1]])
def test_refuses_readings_from_which_nothing_can_be_learned(configs, readings):
    with pytest.raises(UserError, match=r"train_reader: sense .*readings\.jsonl"):
        reader.train(readings, *configs)
