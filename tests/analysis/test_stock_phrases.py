import numpy as np
import pytest

from gpro_empathy.analysis import response_table, stock_phrases
from gpro_empathy.analysis.stock_phrases import PHRASES
from gpro_empathy.data.dialogue import Turn
from made_up import WordCounter

TURNS = [Turn(f"c{i}", 1, "so what", ("hello",) * (i % 3), 1.0, 1.0, 1.0) for i in range(24)]


def react(model):
    def empathy(ending):
        return model.score([turn.text + ending for turn in TURNS], [turn.context for turn in TURNS])[:, 2]

    with_ending_B = {ending: empathy(f" {ending}") for ending in stock_phrases.ENDINGS}
    conversation_B = np.array([turn.conversation for turn in TURNS])
    return stock_phrases.reaction(empathy(""), with_ending_B, conversation_B, np.random.default_rng(0))


def test_reaction_is_the_mean_change_by_the_phrase_less_that_by_a_sentence_of_its_length():
    found = react(WordCounter())
    sorry = found["phrases"][0]
    assert sorry["phrase"] == "I'm so sorry to hear that."
    assert sorry["change"]["estimate"] == pytest.approx(1.1)
    assert sorry["control_change"]["estimate"] == pytest.approx(0.6)
    assert sorry["difference"] == pytest.approx({"estimate": 0.5, "low": 0.5, "high": 0.5})
    assert found["phrases"][1]["difference"]["estimate"] == pytest.approx(0.0)
    assert found["mean"]["difference"]["estimate"] == pytest.approx(0.5 / len(PHRASES))
    assert found["mean"]["control_change"]["estimate"] == pytest.approx((6 + 6 + 5 + 4 + 4) / 50)


def test_interval_is_over_conversations():
    class Moody(WordCounter):
        def score(self, texts, contexts):
            # Conversations differ in what a phrase is worth.
            scores_B3 = super().score(texts, contexts)
            scores_B3[:, 2] += np.where(["sorry" in text for text in texts], np.arange(len(texts)) / 10, 0)
            return scores_B3

    changes = 0.5 + np.arange(24) / 10
    found = react(Moody())["phrases"][0]["difference"]
    error = changes.std(ddof=1) / np.sqrt(24)
    assert found["estimate"] == pytest.approx(changes.mean())
    assert [found["low"], found["high"]] == pytest.approx(changes.mean() + 2.07 * error * np.array([-1, 1]), abs=0.06)


def test_endings_are_every_phrase_and_every_control_once():
    assert len(stock_phrases.ENDINGS) == len(set(stock_phrases.ENDINGS))
    assert set(stock_phrases.ENDINGS) == {text for pair in PHRASES for text in pair}


@pytest.mark.parametrize(("phrase", "control"), PHRASES)
def test_control_is_as_long_as_the_phrase_and_the_audit_knows_the_phrase_alone(phrase, control):
    assert len(control.split()) == len(phrase.split())
    assert any(stock in phrase.lower() for stock in response_table.STOCK_PHRASES)
    assert not any(stock in control.lower() for stock in response_table.STOCK_PHRASES)
