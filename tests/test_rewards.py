from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from gpro_empathy import calibration, labels, packaged_models, rewards, user_rewards
from gpro_empathy.files import UserError
from gpro_empathy.response_format import parse_response
from gpro_empathy.scorer import approach

WELL_FORMED = (
    "<reasoning>\nUser's main concern: a\nEmotional content: b\nIntensity level (0-5): 1\nResponse approach: c\n"
    "</reasoning>\n<answer>\n{}\n</answer>"
)

MODELS = Path("nowhere")


def replies(*answers):
    return [parse_response(WELL_FORMED.format(answer)) for answer in answers]


def constant(*scores):
    return lambda utterances, responses: np.array(scores)


def reward_model(settings, terms, weights, reference=None, **changes):
    config = settings.rewards.model_copy(update={"weights": weights, **changes})
    return rewards.RewardModel(config, terms, reference or {})


# Terms


def test_well_formed_is_one_or_zero():
    responses = [*replies("Hi."), parse_response("Hi."), *replies("A. B. C.")]
    assert rewards.well_formed(["u"] * 3, responses).tolist() == [1.0, 0.0, 0.0]


def test_repetition_is_the_share_of_distinct_bigrams_of_the_answer():
    found = rewards.repetition(["u"] * 2, replies("so sad so sad so sad", "I am sorry"))
    assert found == pytest.approx([2 / 5, 1.0])


def test_overlap_punishes_the_users_own_words():
    found = rewards.overlap(["my dog died"] * 3, replies("your dog died", "sorry about your dog", "I feel with you"))
    assert found == pytest.approx([0.0, 0.5, 1.0])


@pytest.mark.parametrize(("words", "score"), [(0, 1.0), (40, 1.0), (41, 0.975), (60, 0.5), (80, 0.0), (500, 0.0)])
def test_length_falls_from_one_to_zero_between_its_limits(words, score):
    (found,) = rewards.Length(40, 80)(["u"], [parse_response(" ".join(["so"] * words))])
    assert found == pytest.approx(score)


def test_length_counts_the_answer_and_not_the_reasoning():
    assert rewards.Length(3, 6)(["u"], replies("one two three")).tolist() == [1.0]


def test_empathy_is_the_third_label_of_the_scorer_for_the_answer():
    class Scorer:
        def score(self, texts, contexts):
            return np.array([[1.0, 2.0, len(text)] for text in texts])

    assert rewards.Empathy(Scorer())(["u"] * 2, replies("abc", "hello")).tolist() == [3.0, 5.0]


@pytest.mark.parametrize(("mark", "expected"), [(labels.SENSE, [0.5, 1.0]), (labels.EMPATHETIC, [0.25, 0.75])])
def test_read_mark_is_a_share_of_the_highest_and_sees_the_message(mark, expected):
    class Reader:
        def score(self, texts, contexts):
            assert contexts == [("u",), ("v",)]
            return np.array([[1.0, 0.25], [2.0, 0.75]])

    assert rewards.Read(Reader(), mark)(["u", "v"], replies("abc", "hello")).tolist() == expected


class Approaches:
    """Knows that an answer usually scores its length over ten, and matches by the first letter."""

    def match(self, utterances, answers):
        return np.array([float(u[0] == a[0]) for u, a in zip(utterances, answers, strict=True)])

    def usual_score(self, name, answers):
        assert name == "empathy"
        return np.array([len(answer) / 10 for answer in answers])


def test_approach_match_is_that_of_message_and_answer():
    assert rewards.ApproachMatch(Approaches())(["hm", "oh"], replies("hello", "hello")).tolist() == [1.0, 0.0]


def test_relative_score_is_the_score_less_what_is_usual_for_the_approach_of_the_answer():
    relative = rewards.Relative(lambda utterances, responses: np.array([2.0, 3.0]), "empathy", Approaches())
    assert relative(["u"] * 2, replies("abcde", "hi")) == pytest.approx([1.5, 2.8])


def test_approach_model_knows_what_is_usual_of_every_relative_term():
    relative = {name for name in rewards.TERMS if name.startswith(calibration.RELATIVE)}
    assert relative == {f"{calibration.RELATIVE}{name}" for name in approach.USUAL}


def test_model_scores_answers_once_for_all_terms_that_ask():
    read = []

    class Reader:
        def score(self, texts, contexts):
            read.append((texts, contexts))
            return np.array([[float(len(text)), 1.0] for text in texts])

    reader = rewards.Remembering(Reader())
    sense, empathy = rewards.Read(reader, labels.SENSE), rewards.Read(reader, labels.EMPATHETIC)
    assert sense(["u"], replies("abc")).tolist() == [1.5]
    assert empathy(["u"], replies("abc")).tolist() == [1.0]
    assert read == [(["abc"], [("u",)])]
    assert sense(["v"], replies("abcd")).tolist() == [2.0]
    assert empathy(["w"], replies("abcd")).tolist() == [1.0]
    assert len(read) == 3


def test_polarity_match_falls_with_the_distance_of_answer_and_message():
    polarity = {"I lost her.": 2.0, "So sad.": 1.8, "Great!": 0.0}

    class Scorer:
        def score(self, texts, contexts):
            # The answer is read as a reply, the message as a first turn.
            assert all(len(context) == (text != "I lost her.") for text, context in zip(texts, contexts, strict=True))
            return np.array([[1.0, polarity[text], 3.0] for text in texts])

    found = rewards.PolarityMatch(Scorer())(["I lost her."] * 2, replies("So sad.", "Great!"))
    assert found == pytest.approx([0.9, 0.0])


@pytest.fixture(scope="module")
def similarity(settings):
    return rewards.load_similarity(settings.rewards)


def test_similarity_is_the_cosine_of_mean_pooled_embeddings(similarity):
    """Worked out again with transformers alone, text by text."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = packaged_models.find(packaged_models.MINILM).parent
    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    utterances = ["My dog died last night.", "My dog died last night.", "The rent went up again, by a lot this time."]
    answers = ["I am so sorry about your dog.", "Taxes are due in April.", "How much more is the rent?"]

    def embed(text):
        with torch.no_grad():
            states = encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        return torch.nn.functional.normalize(states.mean(0), dim=0)

    expected = [float(embed(u) @ embed(a)) for u, a in zip(utterances, answers, strict=True)]
    assert similarity(utterances, replies(*answers)) == pytest.approx(np.clip(expected, 0, 1), abs=1e-5)


def test_similarity_of_an_echo_is_one_and_of_the_unrelated_is_lower_but_not_negative(similarity):
    utterance = "My dog died last night."
    echo, other = similarity([utterance] * 2, replies(utterance, "Quarterly revenue rose."))
    assert echo == pytest.approx(1.0, abs=1e-5)
    assert 0.0 <= other < 0.3


def test_cross_encoder_is_asked_for_pairs_and_clipped():
    class Model:
        def predict(self, pairs, **_):
            assert pairs == [("u", "a."), ("v", "b."), ("w", "c.")]
            return [-0.2, 0.4, 1.3]

    model = rewards.SemanticSimilarity(Model(), is_cross_encoder=True)
    assert model(["u", "v", "w"], replies("a.", "b.", "c.")).tolist() == [0.0, 0.4, 1.0]


def test_refuses_a_similarity_model_that_cannot_be_loaded(settings, tmp_path):
    config = settings.rewards.model_copy(update={"similarity_model": str(tmp_path / "nothing")})
    with pytest.raises(UserError, match=r"rewards\.similarity_model '.*nothing'"):
        rewards.load_similarity(config)


# Combination


def test_batch_scores_are_calibrated_and_weighted_as_worked_by_hand(settings):
    model = reward_model(
        settings,
        {"empathy": constant(1.0, 2.0, 3.0), "well_formed": constant(1.0, 0.0, 1.0)},
        {"empathy": 3.0, "well_formed": 1.0},
        {"empathy": (0.0, 2.0)},
        calibration_temperature=0.5,
    )
    scores = model.score(["u"] * 3, replies("a.", "b.", "c."))
    batch = expit(np.array([-1, 0, 1]) / np.sqrt(2 / 3) / 0.5)
    reference = expit(np.array([1.0, 2.0, 3.0]) / 2.0 / 0.5)
    assert scores.raw["empathy"].tolist() == [1.0, 2.0, 3.0]
    assert scores.batch["empathy"] == pytest.approx(batch)
    assert scores.reference["empathy"] == pytest.approx(reference)
    formed = np.array([1.0, 0.0, 1.0])
    assert scores.batch["well_formed"].tolist() == scores.reference["well_formed"].tolist() == formed.tolist()
    assert scores.combined_batch == pytest.approx((3 * batch + formed) / 4)
    assert scores.combined_reference == pytest.approx((3 * reference + formed) / 4)


def test_batch_calibration_forgets_how_good_the_batch_is_and_reference_calibration_does_not(settings):
    means = []
    for shift in (0.0, 2.0):
        term = constant(*(np.array([1.0, 1.5, 2.0]) + shift))
        model = reward_model(settings, {"empathy": term}, {"empathy": 1.0}, {"empathy": (1.5, 0.5)})
        scores = model.score(["u"] * 3, replies("a.", "b.", "c."))
        means.append((scores.combined_batch.mean(), scores.combined_reference.mean()))
    assert [batch for batch, _ in means] == pytest.approx([0.5, 0.5])
    assert means[0][1] == pytest.approx(0.5)
    assert means[1][1] > 0.95


def test_calibration_temperature_of_the_settings_is_used(settings):
    scores = {}
    for temperature in (0.2, 0.6):
        model = reward_model(
            settings, {"empathy": constant(1.0, 3.0)}, {"empathy": 1.0}, {"empathy": (2.0, 1.0)},
            calibration_temperature=temperature,
        )  # fmt: skip
        scores[temperature] = model.score(["u"] * 2, replies("a.", "b.")).combined_reference
    assert scores[0.2] == pytest.approx(expit([-5.0, 5.0]))
    assert scores[0.6] == pytest.approx(expit([-1 / 0.6, 1 / 0.6]))


def test_weights_count_relative_to_each_other_alone(settings):
    terms = {"well_formed": constant(1.0, 0.0), "length": constant(0.2, 0.4)}
    small, large = (
        reward_model(settings, terms, {"well_formed": a, "length": b}).score(["u"] * 2, replies("a.", "b."))
        for a, b in ((1.0, 3.0), (10.0, 30.0))
    )
    assert small.combined_batch == pytest.approx([(1 + 0.6) / 4, 0.3])
    assert large.combined_batch == pytest.approx(small.combined_batch)


def test_terms_are_given_the_utterances_and_the_responses(settings):
    seen = []

    def spy(utterances, responses):
        seen.append((list(utterances), [response.answer for response in responses]))
        return np.zeros(2)

    reward_model(settings, {"well_formed": spy}, {"well_formed": 1.0}).raw(["u", "v"], replies("a.", "b."))
    assert seen == [(["u", "v"], ["a.", "b."])]


def test_a_term_that_changes_its_lists_or_keeps_its_array_changes_no_other_terms_scores(settings):
    kept = np.zeros(2)

    def meddles(utterances, responses):
        utterances.reverse()
        responses.sort(key=lambda response: response.answer)
        kept[:] += 1.0
        return kept

    terms = {"a:meddles": user_rewards.UserTerm("a:meddles", meddles), "overlap": rewards.overlap}
    model = reward_model(settings, terms, {"a:meddles": 1.0, "overlap": 1.0})
    utterances, responses = ["my dog died", "hello"], replies("your dog died", "bye")
    first, second = model.raw(utterances, responses), model.raw(utterances, responses)
    assert first["overlap"].tolist() == second["overlap"].tolist() == [0.0, 1.0]
    assert utterances == ["my dog died", "hello"]
    assert (first["a:meddles"].tolist(), second["a:meddles"].tolist()) == ([1.0, 1.0], [2.0, 2.0])


def test_refuses_a_score_that_is_no_finite_number_naming_term_and_sample(settings):
    model = reward_model(settings, {"well_formed": constant(0.0, float("nan"))}, {"well_formed": 1.0})
    responses = [parse_response("Hi"), parse_response("Bye")]
    with pytest.raises(UserError, match=r"\bwell_formed\b.*\bnan\b.*\b1\b.*'Bye'"):
        model.raw(["u"] * 2, responses)


def test_refuses_reference_calibration_without_statistics(settings):
    model = reward_model(settings, {"empathy": constant(1.0)}, {"empathy": 1.0})
    with pytest.raises(KeyError, match=r"reference.*\bempathy\b"):
        model.score(["u"], replies("a."))


def test_reference_statistics_come_back_as_they_were_stored(settings):
    stored = calibration.statistics_json({"empathy": (1.5, 0.5)})
    model = rewards.with_reference(reward_model(settings, {}, {"empathy": 1.0}), stored)
    assert model.reference == {"empathy": (1.5, 0.5)}


# Loading


@pytest.fixture
def without_models(monkeypatch):
    """Let the terms that need a model load without one."""
    for name in calibration.CALIBRATED:
        monkeypatch.setitem(rewards.TERMS, name, lambda config, folder, start: rewards.overlap)


def test_function_of_the_users_own_is_scored_beside_the_others(settings, tmp_path, without_models, monkeypatch):
    monkeypatch.setattr(user_rewards, "FOLDER", Path(__file__).parent)
    config = settings.rewards.model_copy(update={"weights": {"made_up_terms:question": 2.0, "length": 1.0}})
    raw = rewards.load(config, MODELS).raw(["u"] * 2, replies("Are you safe?", "Bye."))
    assert raw["made_up_terms:question"].tolist() == [1.0, 0.0]
    assert raw["length"].tolist() == [1.0, 1.0]


def test_likelihood_is_loaded_where_it_has_a_weight_and_needs_the_starting_policy(settings, tmp_path, without_models):
    weighed = settings.rewards.model_copy(update={"weights": {"likelihood": 1.0}})
    assert set(rewards.load(weighed, MODELS).terms) == {"empathy", "likelihood", "semantic_similarity"}
    other = settings.rewards.model_copy(update={"weights": {"length": 1.0}})
    assert "likelihood" not in rewards.load(other, MODELS).terms
    with pytest.raises(ValueError, match="starting policy"):
        rewards._load_likelihood(weighed, MODELS, None)


def test_limits_of_the_length_term_come_from_the_settings(settings, tmp_path, without_models):
    config = settings.rewards.model_copy(update={"weights": {"length": 1.0}, "free_words": 1, "limit_words": 3})
    assert rewards.load(config, MODELS).raw(["u"], replies("one two"))["length"].tolist() == [0.5]
