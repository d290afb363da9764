import csv
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from gpro_empathy import __main__ as command_line
from gpro_empathy.data.dialogue import COLUMNS, Turn
from gpro_empathy.files import UserError
from gpro_empathy.labels import EMPATHY
from gpro_empathy.scorer import (
    empathy_scorer,
    fitting,
    kinds,
    lexical_features,
    lexical_fitting,
    lexical_scorer,
    scorer_card,
)

FILLERS = ("river", "dam", "council", "street", "winter", "letter", "garden", "school", "market", "bridge")


def planted(count=120, stories=12):
    """Return turns whose empathy is 4 with the word "sorry" and 1 without, and 0.1 of noise."""
    rng = np.random.default_rng(0)
    turns = []
    for i in range(count):
        words = [*rng.choice(FILLERS, 5), *(["sorry"] if i % 2 else [])]
        empathy = 1.0 + 3.0 * (i % 2) + rng.normal(0, 0.1)
        labels = (rng.uniform(1, 4), rng.uniform(0, 2), empathy)
        turns.append(Turn(f"c{i // 5}", i % 5, " ".join(words), (), *map(float, labels), f"s{i // 5 % stories}"))
    return turns


def trained(turns):
    return lexical_fitting.train(turns, progress=lambda line: None)


@pytest.fixture(scope="module")
def made():
    return trained(planted())


@pytest.fixture(scope="module")
def scorer(made):
    return made[0]


@pytest.fixture
def folder(made, tmp_path):
    model, settings = made
    lexical_scorer.save(model, tmp_path / "scorer", settings, scorer_card.write_lexical(settings))
    return tmp_path / "scorer"


def test_planted_effect_of_a_word_is_learned(scorer):
    with_it, without = scorer.score(["the council met, sorry", "the council met in winter"])[:, EMPATHY]
    assert with_it - without > 2


def test_command_that_rates_a_file_takes_it(scorer, folder, monkeypatch):
    texts = ["the council met, sorry", "the council met in winter"]
    monkeypatch.chdir(folder.parent)
    (folder.parent / "texts.csv").write_text("\n".join(["text", *(f'"{text}"' for text in texts)]))
    monkeypatch.setattr(sys, "argv", ["x", "score", "texts.csv", "--output", "out.csv", "--model", str(folder)])
    command_line.main()
    with (folder.parent / "out.csv").open() as file:
        rated = [[float(row[column]) for column in COLUMNS.values()] for row in csv.DictReader(file)]
    assert rated == pytest.approx(scorer.score(texts), abs=1e-4)


def test_scores_are_in_label_units(scorer):
    turns = planted()
    predicted_B, label_B = scorer.score([turn.text for turn in turns])[:, EMPATHY], [turn.empathy for turn in turns]
    assert np.abs(predicted_B - label_B).mean() < 0.3


def test_scores_are_those_of_ridge_regression_with_the_penalty_that_is_stated(made):
    turns, (model, settings) = planted(), made
    texts = [turn.text for turn in turns]
    features_BN = model.features.of(texts).toarray()
    oracle = Ridge(alpha=settings["training"]["penalties"]["empathy"], solver="cholesky")
    expected_B = oracle.fit(features_BN, [turn.empathy for turn in turns]).predict(features_BN)
    np.testing.assert_allclose(model.score(texts)[:, EMPATHY], expected_B, atol=1e-5)


def test_label_without_a_pattern_gets_the_largest_penalty_and_the_planted_one_the_smallest(made):
    penalties = made[1]["training"]["penalties"]
    assert penalties["emotion"] == max(lexical_fitting.PENALTIES)
    assert penalties["empathy"] == min(lexical_fitting.PENALTIES)


def test_penalty_is_chosen_over_stories_so_that_words_of_a_story_do_not_count():
    """A story's name gives its level away, and says nothing of another story."""
    rng = np.random.default_rng(1)
    turns = []
    for s in range(20):
        name, level = "".join(rng.choice(list("bcdfghklmnprstvw"), 8)), rng.uniform(0, 5)
        labels = [(float(level + rng.normal(0, 0.1)),) * 3 for _ in range(6)]
        turns += [Turn(f"{s}.{i}", 0, f"{name} and the rest", (), *labels[i], f"s{s}") for i in range(6)]
    within = [replace(turn, story=turn.conversation) for turn in turns]
    assert trained(turns)[1]["training"]["penalties"]["empathy"] == max(lexical_fitting.PENALTIES)
    assert trained(within)[1]["training"]["penalties"]["empathy"] == min(lexical_fitting.PENALTIES)


def test_penalty_of_a_label_is_chosen_over_the_stories_that_know_it():
    """Stories that a cross-validation over all of them would leave out together know it alone."""
    turns = planted()
    stories = np.array([turn.story for turn in turns])
    _, left = next(GroupKFold(lexical_fitting.FOLDS).split(stories, groups=stories))
    known = set(stories[left])
    assert len(known) > 1
    turns = [turn if turn.story in known else replace(turn, emotion=None) for turn in turns]
    penalties = trained(turns)[1]["training"]["penalties"]
    assert penalties["emotion"] == max(lexical_fitting.PENALTIES)  # noise
    assert penalties["empathy"] == min(lexical_fitting.PENALTIES)


def test_training_twice_gives_equal_scores(scorer):
    again, _ = trained(planted())
    assert (again.score(["sorry about the dam"]) == scorer.score(["sorry about the dam"])).all()


@pytest.mark.parametrize("text", ["", "   ", "?", "\u200b", "zyxw vuts", "😀😀", "a\ud800b", "but " * 3000])
def test_any_text_has_a_score(scorer, text):
    assert np.isfinite(scorer.score([text])).all()


def test_score_of_a_text_depends_on_no_other_text_and_on_no_context(scorer):
    texts = ["sorry", "dam", "What a winter! Are you well?"]
    together = scorer.score(texts, [(), ("sorry",), ("a", "b")])
    assert (together == np.concatenate([scorer.score([text]) for text in texts])).all()
    assert (scorer.context_turns, scorer.score([]).shape) == (0, (0, 3))
    with pytest.raises(ValueError, match=r"3\b.*\b1\b"):
        scorer.score(texts, [()])


def test_style_is_the_valence_of_words_persons_length_and_marks():
    (row,) = lexical_features._style(["i love you, but they hate us!"])
    love, hate = lexical_features._valence()["love"], -lexical_features._valence()["hate"]
    shares = [love / 7, hate / 7, 1 / 7, 1 / 7, *[1 / 7] * 4]
    np.testing.assert_allclose(row, [*shares, *np.log1p([love, hate, 7]), 0, 1])


def test_letter_case_and_shape_of_apostrophes_make_no_difference(scorer):
    scores = scorer.score(["I\u2019M SORRY", "i'm sorry"])
    assert (scores[0] == scores[1]).all()


def test_label_that_no_turn_carries_is_not_learned_and_changes_no_other(scorer, tmp_path):
    model, settings = trained([replace(turn, emotion=None) for turn in planted()])
    scores, expected = (each.score(["sorry about the dam"]) for each in (model, scorer))
    assert np.isnan(scores[:, 0]).all()
    assert (scores[:, 1:] == expected[:, 1:]).all()
    lexical_scorer.save(model, tmp_path / "scorer", settings, scorer_card.write_lexical(settings))
    np.testing.assert_array_equal(lexical_scorer.load(tmp_path / "scorer").score(["sorry about the dam"]), scores)


def test_turn_without_one_label_teaches_the_others():
    turns = [replace(turn, emotion=None) if turn.turn % 2 else turn for turn in planted()]
    assert np.isfinite(trained(turns)[0].score(["sorry"])).all()


def test_refuses_a_label_that_one_story_alone_carries():
    turns = [turn if turn.story == "s1" else replace(turn, polarity=None) for turn in planted()]
    with pytest.raises(UserError, match=r"polarity.*held-out scorer"):
        trained(turns)


def test_refuses_turns_that_share_no_word():
    turns = [Turn(str(i), 0, text, (), *(float(i),) * 3) for i, text in enumerate(("one", "two", "six"))]
    with pytest.raises(UserError, match=r"\b2\b.*held-out scorer.*raise"):
        trained(turns)


# Keeping it


def test_saved_scorer_gives_equal_scores(folder, scorer):
    texts = ["sorry", "", "the council of the bridge", "unheard-of"]
    loaded = kinds.load(folder)
    assert isinstance(loaded, lexical_scorer.LexicalScorer)
    assert (loaded.score(texts) == scorer.score(texts)).all()
    turns = planted()[:3]
    assert (empathy_scorer.score_turns(loaded, turns) == scorer.score([turn.text for turn in turns])).all()


def test_encoder_scorer_is_loaded_as_one(settings, tmp_path):
    built = empathy_scorer.build(settings.train_scorer.model_copy(update={"encoder": "random"}))
    empathy_scorer.save(built, tmp_path / "scorer", {"encoder": "random", "revision": None})
    assert isinstance(kinds.load(tmp_path / "scorer"), empathy_scorer.Scorer)


def test_reward_does_not_take_the_held_out_scorer(folder):
    with pytest.raises(UserError, match=r"scorer\.json: format.*'lexical-2'.*5.*train"):
        empathy_scorer.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "forest"}, r"scorer\.json: kind.*'forest'.*'lexical'.*train"),
        ({"format": 0}, r"scorer\.json: format.*0.*'lexical-2'.*train"),
        ({"normalisation": "lower"}, r"scorer\.json: normalisation.*'lower'"),
        ({"labels": ["empathy"]}, r"scorer\.json: labels.*\['empathy'\].*\['emotion'"),
    ],
)
def test_refuses_settings_of_another_kind_or_format(folder, change, message):
    stated = json.loads((folder / "scorer.json").read_text())
    (folder / "scorer.json").write_text(json.dumps(stated | change))
    with pytest.raises(UserError, match=message):
        kinds.load(folder)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([], "words"),
        ({"words": ["a"]}, "pieces"),
        ({"words": [1], "pieces": ["a"]}, "words"),
        ({"words": ["a", "a"], "pieces": ["a"]}, "words.*twice"),
    ],
)
def test_refuses_a_damaged_vocabulary(folder, terms, message):
    (folder / "vocabulary.json").write_text(json.dumps(terms))
    with pytest.raises(UserError, match=rf"vocabulary\.json: .*{message}.*delete.*train"):
        kinds.load(folder)


def test_refuses_a_vocabulary_that_lost_a_term(folder):
    terms = json.loads((folder / "vocabulary.json").read_text())
    (folder / "vocabulary.json").write_text(json.dumps(terms | {"words": terms["words"][1:]}))
    with pytest.raises(UserError, match=r"weights\.safetensors: .*vocabulary\.json.*delete"):
        kinds.load(folder)


def test_refuses_weights_that_are_missing_damaged_or_of_another_scorer(folder):
    path = folder / "weights.safetensors"
    stored = load_file(path)
    save_file({name: value for name, value in stored.items() if name != "labels_intercept"}, path)
    with pytest.raises(UserError, match=r"weights\.safetensors: .*delete"):
        kinds.load(folder)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"weights\.safetensors: .*delete"):
        kinds.load(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors: .*delete"):
        kinds.load(folder)


def test_card_says_what_it_reads_and_where_the_measured_numbers_are(folder):
    text = (folder / "README.md").read_text()
    assert "It only audits" in text
    assert "Trained on 120 turns of 24 conversations about 12 stories by ridge regression" in text
    assert "stand under `audit` in reports/scorer.json" in text


# Its share of the turns


def test_two_scorers_learn_from_stories_of_their_own(settings):
    halves = fitting.disjoint_halves(planted(), settings.train_scorer.model_copy(update={"audit_fraction": 0.25}))
    reward, audit = ({turn.story for turn in halves[role]} for role in ("reward", "audit"))
    assert not reward & audit
    assert (len(reward), len(audit)) == (9, 3)
    assert sum(map(len, halves.values())) == 120
