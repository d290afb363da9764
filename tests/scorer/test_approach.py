"""The approach model: whether an answer does what demonstrations do with such a message."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from gpro_empathy import response_format
from gpro_empathy.files import UserError
from gpro_empathy.scorer import approach, scorer_card
from gpro_empathy.scorer.lexical_features import Linear
from small_approach import DEMONSTRATIONS, KINDS, demonstration, quiet


@pytest.fixture(scope="module")
def model():
    return approach.train(DEMONSTRATIONS, quiet)


def test_answer_of_the_kind_of_the_message_matches_it_better_than_any_other(model):
    answers = [answer.format("x") for _, answer in KINDS.values()]
    for i, (message, _) in enumerate(KINDS.values()):
        match_B = model.match([message.format("x")] * len(answers), answers)
        assert match_B.argmax() == i
        assert match_B[i] > np.log(1.5)
        assert (np.delete(match_B, i) < 0).all()


def test_match_is_the_sum_over_approaches_of_both_probabilities_by_their_share(model):
    messages, answers = ["the goose is lost", "hello"], ["Ha, so sad.", "Hello."]
    texts = [row["utterance"] for row in DEMONSTRATIONS]
    features = model.features.of
    names = [response_format.parse_response(row["response"]).stated_approach for row in DEMONSTRATIONS]
    expected = []
    for of_each, learned in ((messages, texts), (answers, [kind_answer(row) for row in DEMONSTRATIONS])):
        oracle = LogisticRegression(C=approach.INVERSE_PENALTY, solver="newton-cg", tol=1e-8).fit(
            features(learned), names
        )
        expected.append(oracle.predict_proba(features(of_each)))
    shares = [names.count(name) / len(names) for name in model.names]
    wanted_B = np.log((expected[0] * expected[1] / shares).sum(1))
    np.testing.assert_allclose(model.match(messages, answers), wanted_B, atol=1e-4)


class Smiles:
    """Rates a text by whether it smiles, and its message by its last digit, on every label."""

    def score(self, texts, contexts):
        return np.array(
            [[float(message[-1])] * 2 + ["smile" in text] for text, (message,) in zip(texts, contexts, strict=True)]
        )


def test_usual_score_is_the_mean_over_demonstrations_of_the_approach(model, monkeypatch):
    monkeypatch.setattr(approach, "MOST_DEMONSTRATIONS", 4)
    known = approach.with_usual(model, DEMONSTRATIONS, Smiles(), Smiles())
    assert known.usual["reader_empathy"] == pytest.approx(np.full(3, 3.5))  # of the numbers 0, 2, 5 and 7
    assert known.usual["reader_sense"] == pytest.approx(np.full(3, 1.75))  # a mark of 2 is the highest
    assert known.usual["empathy"] == pytest.approx([0.0, 0.0, 1.0])
    assert known.usual_score("reader_empathy", ["Ha.", "Hello."]) == pytest.approx([3.5, 3.5])


def test_usual_score_of_an_answer_is_that_of_its_approach(model):
    known = approach.with_usual(model, DEMONSTRATIONS, Smiles(), Smiles())
    smile, sad = known.usual_score("empathy", ["Ha, that made me smile, x.", "That is so sad for them, x."])
    probability = np.exp(known.log_probabilities("answer", ["Ha, that made me smile, x."]))[0]
    assert smile == pytest.approx(probability[known.names.index("share the smile")])
    assert smile > 2 * sad


def kind_answer(row):
    return response_format.parse_response(row["response"]).answer


def test_match_of_a_pair_depends_on_no_other_pair(model):
    messages, answers = ["hello", "hello", "they lost it"], ["Ha.", "Hello.", "So sad."]
    alone = [model.match([message], [answer])[0] for message, answer in zip(messages, answers, strict=True)]
    np.testing.assert_allclose(model.match(messages, answers), alone, rtol=1e-12)


@pytest.mark.parametrize("text", ["", "   ", "\u200b", "zyxw", "😀", "a\ud800b", "but " * 3000])
def test_any_text_has_a_match(model, text):
    assert np.isfinite(model.match([text], [text])).all()


def test_two_approaches_are_enough_and_their_probabilities_sum_to_one():
    model = approach.train(DEMONSTRATIONS[:16], quiet)
    assert model.names == ("share the sadness", "share the smile")
    log_B2 = model.log_probabilities("message", ["they lost the farm", "the goose"])
    np.testing.assert_allclose(np.exp(log_B2).sum(1), 1.0)
    assert list(log_B2.argmax(1)) == [0, 1]


def test_rare_approach_is_left_out_and_told(capsys):
    said = []
    model = approach.train([*DEMONSTRATIONS, demonstration("greet back", 9) | rare()], said.append)
    assert model.names == tuple(sorted(KINDS))
    assert "1 demonstrations have an approach" in said[0]
    assert "3 approaches from 24 demonstrations" in said[1]


def rare():
    return {"response": DEMONSTRATIONS[0]["response"].replace("share the sadness", "hum a tune")}


def test_accuracy_is_the_share_of_approaches_found(model):
    rows = [demonstration("greet back", 20), demonstration("share the smile", 20) | rare()]
    assert approach.accuracy(model, rows) == {"demonstrations": 2, "message": 0.5, "answer": 0.5}
    assert approach.accuracy(model, []) is None


@pytest.mark.parametrize(
    ("demonstrations", "message"),
    [
        ([], r"two approaches have 5 of the 0 .*demonstrations\.jsonl"),
        (DEMONSTRATIONS[:8], r"two approaches have 5 of the 8 "),
        ([DEMONSTRATIONS[i] for i in (0, 1, 8, 9, 10, 11, 12)], r"two approaches have 5 of the 7 "),
    ],
)
def test_refuses_demonstrations_of_fewer_than_two_approaches(demonstrations, message):
    with pytest.raises(UserError, match=message):
        approach.train(demonstrations, quiet)


# Keeping it


@pytest.fixture
def folder(model, tmp_path):
    known = approach.with_usual(model, DEMONSTRATIONS, Smiles(), Smiles())
    approach.save(known, tmp_path / "approach", scorer_card.write_approach(model.names, 24))
    return tmp_path / "approach"


def test_saved_model_gives_equal_matches(model, folder):
    pairs = ["hello", "they lost it", ""], ["Ha.", "So sad.", "unheard-of"]
    loaded = approach.load(folder)
    assert (loaded.match(*pairs) == model.match(*pairs)).all()
    assert loaded.usual["empathy"].tolist() == [0.0, 0.0, 1.0]  # in the order of the names
    card = (folder / "README.md").read_text()
    assert "24 demonstrations" in card
    assert "3 approaches: greet back, share the sadness, share the smile" in card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "lexical"}, r"scorer\.json: kind.*'lexical'.*'approach'"),
        ({"approaches": ["one"]}, r"scorer\.json: has not empathy, .*approaches; delete"),
        ({"approaches": {"one": 5}}, r"scorer\.json: has not empathy, .*approaches; delete"),
        ({"usual": {"empathy": [1.0, 2.0, 3.0]}}, r"scorer\.json: has not empathy, .*approaches; delete"),
        (
            {"approaches": {"one": 5, "two": 5}, "usual": {name: [0.0, 0.0] for name in approach.USUAL}},
            r"weights\.safetensors: does not fit .*delete",
        ),
    ],
)
def test_refuses_another_model_and_a_damaged_one(folder, change, message):
    stated = json.loads((folder / "scorer.json").read_text())
    (folder / "scorer.json").write_text(json.dumps(stated | change))
    with pytest.raises(UserError, match=message):
        approach.load(folder)


def test_refuses_a_folder_without_weights(folder):
    (folder / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors: missing .*delete"):
        approach.load(folder)


def test_linear_model_is_a_product_and_an_intercept():
    linear = Linear(np.array([[1.0, 2.0]]), np.array([0.5]))
    assert linear(np.array([[3.0, 4.0]])) == pytest.approx(np.array([[11.5]]))
