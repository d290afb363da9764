import dataclasses

import numpy as np
import pytest
import torch

from conftest import randomise
from gpro_empathy import response_format, rewards, text_measures
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError
from gpro_empathy.policy import loading, sampling
from gpro_empathy.policy.adapters import save_with_card
from gpro_empathy.policy.decoding import DecoderSampler
from gpro_empathy.training import rollouts

TURNS = [
    Turn(f"c{i}", i, text, (), 1.0 * i, 1.0, None)
    for i, text in enumerate(["My dog died last night.", "the rent went up", "I lost it all in the flood", "he left"])
]


@pytest.fixture
def config(settings):
    """Return settings cold enough for rounding not to decide between nearly equal logits.

    A random model has such logits.
    """
    return settings.rollout.model_copy(
        update={
            "prompts": 4, "samples_per_prompt": 2, "max_completion_tokens": 8, "temperature": 0.05, "top_p": 0.95,
            "batch_size": 3, "seed": 29,
        }
    )  # fmt: skip


@pytest.fixture
def adapters(tiny_policy, policy_folder, tmp_path):
    """Save two adapters that differ; return their folders by policy and training seed."""
    folders = {}
    for seed, name in enumerate(("warm_start", "tuned")):
        model = loading.add_lora(loading.load_base(tiny_policy, policy_folder), tiny_policy, None)
        randomise(model, seed=seed, scale=0.5)
        save_with_card(model, tmp_path / name, "")
        folders[name, 23 if name == "tuned" else None] = tmp_path / name
    return folders


def sampled(base, tokenizer, adapters, config, turns=TURNS):
    return rollouts.sample_policies(rollouts.LocalPolicies(base, config), tokenizer, adapters, turns, config)


def texts(samples, model):
    return [sample.text for sample in samples if sample.model == model]


# Prompts


def test_chosen_prompts_keep_their_order_and_differ(config):
    turns = [Turn("c", i, "x", (), None, None, None) for i in range(50)]
    chosen = rollouts.choose_prompts(turns, config.model_copy(update={"prompts": 20}))
    numbers = [turn.turn for turn in chosen]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 20
    assert numbers != list(range(20))


def test_chosen_prompts_depend_on_the_seed_alone(config):
    turns = [Turn("c", i, "x", (), None, None, None) for i in range(50)]
    assert rollouts.choose_prompts(turns, config) == rollouts.choose_prompts(turns, config)
    other = config.model_copy(update={"seed": 30})
    assert rollouts.choose_prompts(turns, config) != rollouts.choose_prompts(turns, other)


def test_fewer_prompts_than_asked_for_are_all_used_and_that_is_said(config, capsys):
    assert rollouts.choose_prompts(TURNS, config.model_copy(update={"prompts": 9})) == TURNS
    assert "4 test prompts, fewer than rollout.prompts = 9; all are used" in capsys.readouterr().out


def test_refuses_a_single_prompt(config):
    with pytest.raises(UserError, match=r"rollout\b.*\b2\b.*prompts.*\b1;"):
        rollouts.choose_prompts(TURNS[:1], config)


# Sampling


def test_policies_that_are_compared_answer_every_prompt_as_often(base, tokenizer, adapters, config):
    found = sampled(base, tokenizer, adapters, config)
    places = [(sample.model, sample.turn.key, sample.sample) for sample in found]
    names = ("base", "warm_start", "tuned")
    assert places == [
        (name, turn.key, k) for name in names for turn in TURNS for k in range(1 if name == "base" else 2)
    ]
    assert len({tuple(texts(found, name)) for name in names}) == 3


def test_each_policy_is_the_base_with_its_own_adapter_alone(
    base, tokenizer, adapters, config, tiny_policy, policy_folder
):
    """Compare with a fresh model for each, in one batch: the numbers drawn are the same."""
    # At a low temperature the rounding of another batch size would decide between tokens that are
    # all but equally likely.
    config = config.model_copy(update={"temperature": 1.0})
    found = sampled(base, tokenizer, adapters, config)
    tokens = [loading.prompt_ids(tokenizer, response_format.messages(turn.text)) for turn in TURNS]
    how = sampling.for_tokenizer(tokenizer, config.max_completion_tokens, 1.0, 0.95)
    for (name, _), folder in ((("base", None), None), *adapters.items()):
        model = loading.load_base(tiny_policy, policy_folder)
        if folder is not None:
            model = loading.add_lora(model, tiny_policy, folder)
        count = 1 if name == "base" else 2
        ids = DecoderSampler(model).sample(tokens, 2, how, np.random.default_rng(29))[:: 2 // count]
        own = [sample for sample in found if sample.model == name]
        assert [sample.completion_tokens for sample in own] == [len(response) for response in ids]
        assert texts(found, name) == [tokenizer.decode(response, skip_special_tokens=True) for response in ids]
        assert [sample.prompt_tokens for sample in own] == [len(prompt) for prompt in tokens for _ in range(count)]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_batch_size_changes_nothing(base, tokenizer, config, batch_size):
    other = config.model_copy(update={"batch_size": batch_size})
    assert sampled(base, tokenizer, {}, other) == sampled(base, tokenizer, {}, config)


def test_finish_reason_tells_whether_the_end_token_came(base, tokenizer, config):
    """Make the end token the likeliest for some states and not for others.

    Its embedding, to which the head is tied, is changed for that.
    """
    with torch.no_grad():
        weight = base.get_input_embeddings().weight
        weight[tokenizer.eos_token_id] = 0.1 * torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(6))
    found = sampled(base, tokenizer, {}, config)
    assert {sample.finish_reason for sample in found} == {"stop", "length"}
    for sample in found:
        assert (sample.finish_reason == "length") == (sample.completion_tokens == config.max_completion_tokens)
        assert "<|im_end|>" not in sample.text


# Scoring


class Audit:
    def score(self, answers, contexts):
        return np.array([[0.0, 0.0, len(answer)] for answer in answers])


REPLY = (
    "<reasoning>\nUser's main concern: a\nEmotional content: b\nIntensity level (0-5): 4\nResponse approach: c\n"
    "</reasoning>\n<answer>\nSo sorry about your dog.\n</answer>"
)


@pytest.fixture
def scored(settings):
    """Score two responses of each of two policies.

    The empathy counts the letters of the answer.
    """

    def letters(utterances, responses):
        return np.array([float(len(response.answer)) for response in responses])

    config = settings.rewards.model_copy(update={"weights": {"empathy": 1.0}, "calibration_temperature": 0.5})
    model = rewards.RewardModel(config, {"empathy": letters}, {"empathy": (10.0, 4.0)})
    samples = [
        rollouts.Sample(TURNS[i], name, seed, 0, text, 20, 8, "stop")
        for name, seed, replies in (("base", None, ["no", "so so so"]), ("tuned", 23, [REPLY, "dog"]))
        for i, text in enumerate(replies)
    ]
    return samples, rollouts.score(samples, model, Audit())


def test_rows_hold_what_the_contract_names(scored):
    _samples, rows = scored
    assert [(row["model"], row["prompt_id"], row["sample"]) for row in rows] == [
        ("base", "c0.0", 0), ("base", "c1.1", 0), ("tuned", "c0.0", 0), ("tuned", "c1.1", 0),
    ]  # fmt: skip
    assert [row["seed"] for row in rows] == [None, None, 23, 23]
    row = rows[2]
    stated = {
        "conversation": "c0", "story": "conversation c0", "turn": 0, "prompt": TURNS[0].text, "emotion": 0.0, "polarity": 1.0, "empathy": None,
        "seed": 23, "text": REPLY, "answer": "So sorry about your dog.", "well_formed": True, "stated_intensity": 4, "stated_approach": "c",
        "answer_words": 5, "prompt_tokens": 20, "completion_tokens": 8, "finish_reason": "stop",
        "distinct_2": 1.0, "overlap": text_measures.overlap(TURNS[0].text, "So sorry about your dog."),
    }  # fmt: skip
    assert {name: row[name] for name in stated} == stated
    assert row["reasoning"].startswith("User's main concern: a\n")
    assert row["overlap"] == pytest.approx(0.5)  # sorry, dog
    assert all(type(value) is float for name, value in row.items() if name.endswith(("_raw", "_batch", "_reference")))


def test_scores_are_raw_calibrated_and_audited(scored):
    _, rows = scored
    letters = [2.0, 8.0, 24.0, 3.0]
    assert [row["empathy_raw"] for row in rows] == letters
    assert [row["audit_empathy_raw"] for row in rows] == letters
    expected = [1 / (1 + np.exp(-(n - 10) / 4 / 0.5)) for n in letters]
    assert [row["empathy_reference"] for row in rows] == pytest.approx(expected)
    assert [row["combined_reference"] for row in rows] == pytest.approx(expected)


def test_batch_calibration_is_over_each_policy_alone(scored):
    """Two scores that differ stand one SD from their mean, whatever the policy."""
    _, rows = scored
    low, high = 1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))
    assert [row["empathy_batch"] for row in rows] == pytest.approx([low, high, high, low])


def test_samples_cannot_be_changed(scored):
    with pytest.raises(dataclasses.FrozenInstanceError):
        scored[0][0].text = "other"
