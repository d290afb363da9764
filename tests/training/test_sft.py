import copy

import pytest
import torch

from gpro_empathy import response_format
from gpro_empathy.files import UserError
from gpro_empathy.policy import loading
from gpro_empathy.training import sft

DEMONSTRATIONS = [
    {"utterance": utterance, "response": response}
    for utterance, response in [
        ("My dog died.", "I am sorry."),
        ("My dog ran away last night and I cannot sleep.", "How long have you had it?"),
        ("the rent again", "By how much?"),
        ("I lost it all in the flood", "All of it? That is a lot to carry."),
        ("ok", "Fine."),
        ("My dog died.", "Were you with it?"),
    ]
]


@pytest.fixture
def config(settings):
    return settings.warm_start.model_copy(
        update={"demonstrations": 6, "epochs": 1, "batch_size": 6, "learning_rate": 1e-2, "seed": 3}
    )


def plain_loss(model, tokenizer, demonstrations):
    """Return the mean negative log-probability of the response tokens, one text at a time.

    The end token is included.
    """
    total, count = torch.zeros(()), 0
    for demonstration in demonstrations:
        prompt = loading.prompt_ids(tokenizer, response_format.messages(demonstration["utterance"]))
        text = demonstration["response"] + tokenizer.eos_token
        response = tokenizer(text, add_special_tokens=False)["input_ids"]
        logits = model(torch.tensor([prompt + response])).logits[0]
        log = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
        total = total - log[torch.arange(len(response)), response].sum()
        count += len(response)
    return total / count


def test_loss_and_gradients_are_those_of_one_text_at_a_time(lora, tokenizer):
    plain = copy.deepcopy(lora)
    expected = plain_loss(plain, tokenizer, DEMONSTRATIONS)
    expected.backward()
    examples = [sft._tokens(tokenizer, demonstration) for demonstration in DEMONSTRATIONS]
    assert sft._accumulate(lora.get_base_model(), examples) == pytest.approx(float(expected), abs=1e-5)
    theirs = dict(plain.named_parameters())
    for name, parameter in lora.named_parameters():
        if parameter.requires_grad:
            scale = float(theirs[name].grad.abs().max())
            assert scale > 0
            assert torch.allclose(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-4 * scale), name


@pytest.mark.parametrize("size", [1, 6])
def test_size_of_a_forward_pass_changes_no_number(lora, tokenizer, monkeypatch, size):
    examples = [sft._tokens(tokenizer, demonstration) for demonstration in DEMONSTRATIONS]
    expected = sft._accumulate(lora.get_base_model(), examples)
    monkeypatch.setattr(sft, "EXAMPLES_PER_FORWARD", size)
    assert sft._accumulate(lora.get_base_model(), examples) == pytest.approx(expected, abs=1e-5)


def test_first_loss_is_that_of_the_untrained_policy(base, tokenizer, config, tiny_policy):
    with torch.no_grad():
        expected = float(plain_loss(base, tokenizer, DEMONSTRATIONS))
    _, losses = sft.train(base, tokenizer, DEMONSTRATIONS, config, tiny_policy)
    assert losses == [pytest.approx(expected, abs=1e-5)]


def test_training_lowers_the_loss(base, tokenizer, config, tiny_policy):
    longer = config.model_copy(update={"epochs": 8, "learning_rate": 1e-2})
    model, losses = sft.train(base, tokenizer, DEMONSTRATIONS, longer, tiny_policy)
    assert len(losses) == 8
    # A random two-layer model has small logits: there is not more to gain.
    assert losses[-1] < losses[0] - 0.1
    with torch.no_grad():
        assert float(plain_loss(model.eval(), tokenizer, DEMONSTRATIONS)) < losses[-1]


@pytest.mark.parametrize(
    ("changes", "updates"),
    [
        ({"batch_size": 4}, 2),
        ({"batch_size": 4, "epochs": 3}, 6),
        ({"demonstrations": 2, "batch_size": 1}, 2),
        ({"demonstrations": 100, "batch_size": 5}, 2),
    ],
)
def test_number_of_updates_follows_from_the_settings(base, tokenizer, config, tiny_policy, changes, updates):
    _, losses = sft.train(base, tokenizer, DEMONSTRATIONS, config.model_copy(update=changes), tiny_policy)
    assert len(losses) == updates


def test_one_seed_gives_one_adapter(policy_folder, tokenizer, config, tiny_policy):
    results = []
    for seed in (3, 3, 4):
        base = loading.load_base(tiny_policy, policy_folder)
        settings = config.model_copy(update={"batch_size": 2, "seed": seed})
        model, losses = sft.train(base, tokenizer, DEMONSTRATIONS, settings, tiny_policy)
        results.append((losses, {n: p for n, p in model.named_parameters() if p.requires_grad}))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(p, results[1][1][n]) for n, p in results[0][1].items())
    assert results[0][0] != results[2][0]


def test_refuses_to_learn_from_nothing(base, tokenizer, config, tiny_policy):
    with pytest.raises(UserError, match=r"demonstration.*warm_start\.enabled"):
        sft.train(base, tokenizer, [], config, tiny_policy)


def test_card_tells_settings_and_losses(config, tiny_policy):
    card = sft.card(tiny_policy, config, [2.5, 1.25])
    assert card.startswith("# Warm start of random\n")
    assert "rank 4" in card
    assert "from 2.500 to 1.250 nats" in card


def test_learning_rate_rises_to_its_peak_and_falls_to_the_last_update():
    shares = [sft._share_of_peak(done, 30) for done in range(30)]
    peak = sft.WARMUP_UPDATES - 1
    assert shares[peak] == max(shares) == 1.0
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert 0 < shares[-1] < 0.1


def test_a_training_shorter_than_the_rise_still_moves():
    assert [sft._share_of_peak(done, 2) for done in range(2)] == [0.5, 1.0]


def test_mean_loss_is_that_of_one_text_at_a_time(lora, tokenizer):
    with torch.no_grad():
        expected = float(plain_loss(lora, tokenizer, DEMONSTRATIONS))
    assert sft.mean_loss(lora, tokenizer, DEMONSTRATIONS) == pytest.approx(expected, abs=1e-5)
