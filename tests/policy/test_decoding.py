import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpro_empathy.policy import decoding
from gpro_empathy.policy import sampling as policy_sampling
from gpro_empathy.policy.decoding import DecoderSampler

PROMPTS = [[5, 9, 200, 7], [11, 12], [300, 301, 302, 303, 304, 305]]


def how(temperature=1.0, top_p=1.0, max_tokens=6, eos_ids=(2,), pad_id=0):
    return policy_sampling.Sampling(temperature, top_p, max_tokens, eos_ids, pad_id)


def drawn(probabilities, uniform, **sampling):
    """Return the tokens drawn from one distribution at each of the uniform numbers."""
    logits = torch.log(torch.tensor(probabilities)).expand(len(uniform), -1)
    return decoding.draw(logits, how(**sampling), torch.tensor(uniform, dtype=torch.float64)).tolist()


# One token


def test_token_is_where_the_cumulative_distribution_passes_the_uniform_number():
    # By id: [0, 0.2), [0.2, 0.7), [0.7, 1).
    assert drawn([0.2, 0.5, 0.3], [0.0, 0.19, 0.21, 0.69, 0.71, 0.999]) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("tokens", [decoding.BLOCK - 1, decoding.BLOCK, 5 * decoding.BLOCK + 7])
def test_draw_from_a_large_distribution_is_that_of_one_cumulative_sum(tokens):
    weights = np.random.default_rng(3).exponential(size=tokens) ** 4
    weights[tokens // 3 : tokens // 2] = weights[-3:] = 0
    probabilities = weights / weights.sum()
    ends = probabilities.cumsum()
    likely = np.flatnonzero(probabilities > 1e-5)
    assert drawn(probabilities.tolist(), (ends - probabilities / 2)[likely].tolist()) == likely.tolist()
    (last,) = drawn(probabilities.tolist(), [1 - 1e-16])
    assert probabilities[last] > 0
    assert probabilities[last + 1 :].sum() < 1e-5


def test_top_p_keeps_the_smallest_set_that_holds_the_mass():
    # By falling probability 1 (0.5), 2 (0.3), 0 (0.2): 0.6 needs the first two, 0.8 in all; 1 has
    # 0.625 of that.
    assert drawn([0.2, 0.5, 0.3], [0.0, 0.62, 0.63, 0.9999], top_p=0.6) == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.3, {1}), (0.49, {1}), (0.51, {1, 3}), (0.79, {1, 3}), (0.81, {0, 1, 3}), (0.99, {0, 1, 2, 3})],
)
def test_tokens_outside_the_top_p_set_are_never_drawn(top_p, kept):
    uniform = np.linspace(0, 1, 1000, endpoint=False).tolist()
    assert set(drawn([0.15, 0.5, 0.05, 0.3], uniform, top_p=top_p)) == kept


def test_top_p_set_of_a_flat_distribution_is_found_beyond_the_candidates():
    tokens = decoding.TOP_P_CANDIDATES[-1] * 4
    uniform = ((np.arange(4000) + 0.5) / 4000).tolist()
    assert len(set(drawn([1 / tokens] * tokens, uniform, top_p=0.75))) == pytest.approx(0.75 * tokens, abs=2)


def test_temperature_divides_the_logits():
    # Odds of 3:1 become 9:1 at T = 1/2, and sqrt(3):1 at T = 2.
    assert drawn([0.25, 0.75], [0.0999, 0.1001], temperature=0.5) == [0, 1]
    assert drawn([0.25, 0.75], [0.3659, 0.3661], temperature=2.0) == [0, 1]


@given(
    weights=st.lists(st.floats(0.01, 1), min_size=2, max_size=12),
    top_p=st.floats(0.05, 1),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_drawn_token_has_more_likely_ones_than_it_hold_less_than_top_p(weights, top_p, uniform):
    probabilities = np.array(weights) / sum(weights)
    (token,) = drawn(probabilities.tolist(), [uniform], top_p=top_p)
    assert probabilities[probabilities > probabilities[token] * 1.001].sum() < top_p + 1e-5


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_frequencies_are_the_probabilities_of_the_models_first_token(base, top_p):
    """Bound the total variation between 2,000 draws and the distribution of a plain forward pass.

    The model is sharpened.
    """
    with torch.no_grad():
        logits = base(torch.tensor([PROMPTS[0]])).logits[0, -1] / 0.02
    expected = torch.softmax(logits.double(), -1).numpy()
    if top_p < 1:
        order = np.argsort(-expected)
        kept = order[: int((np.cumsum(expected[order]) < top_p).sum()) + 1]
        inside = np.zeros_like(expected)
        inside[kept] = expected[kept] / expected[kept].sum()
        expected = inside
    rows = 2000
    uniform = torch.from_numpy((np.arange(rows) + 0.5) / rows)[:, None]
    tokens = [
        token
        for part in uniform.split(500)
        for (token,) in decoding.decode(base, PROMPTS[:1], 500, how(0.02, top_p, max_tokens=1), part)
    ]
    found = np.bincount(tokens, minlength=len(expected)) / rows
    assert 0.5 * np.abs(found - expected).sum() < 0.02
    assert found[expected == 0].sum() == 0


# Whole responses


def sample(model, prompts, samples, sampling, seed=0):
    return DecoderSampler(model).sample(prompts, samples, sampling, np.random.default_rng(seed))


def plain_decode(model, prompt, sampling, uniform):
    """Sample one response without cache, batch or padding."""
    ids = list(prompt)
    for number in uniform:
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[:, -1]
        ids += decoding.draw(logits, sampling, torch.tensor([number], dtype=torch.float64)).tolist()
        if ids[-1] in sampling.eos_ids:
            break
    return ids[len(prompt) :]


@pytest.fixture
def sharp(base):
    """Return the tiny policy with logits far enough apart for rounding not to decide."""
    with torch.no_grad():
        base.model.norm.weight.mul_(5.0)
    return base


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_responses_are_those_of_a_plain_loop_without_cache(sharp, top_p):
    sampling = how(top_p=top_p)
    uniform = np.random.default_rng(3).random((6, 6))
    found = decoding.decode(sharp, PROMPTS, 2, sampling, torch.from_numpy(uniform))
    expected = [plain_decode(sharp, PROMPTS[row // 2], sampling, uniform[row]) for row in range(6)]
    assert found == expected


def test_response_does_not_depend_on_what_shares_its_batch(sharp):
    uniform = torch.from_numpy(np.random.default_rng(4).random((3, 6)))
    together = decoding.decode(sharp, PROMPTS, 1, how(), uniform)
    alone = [decoding.decode(sharp, [PROMPTS[i]], 1, how(), uniform[i : i + 1])[0] for i in range(3)]
    reversed_ = decoding.decode(sharp, PROMPTS[::-1], 1, how(), uniform.flip(0))
    assert together == alone == reversed_[::-1]


def test_finished_responses_are_dropped_without_changing_the_others(sharp):
    """Choose end tokens so that responses stop at different steps.

    Those that stop must be prefixes of the ones that go on.
    """
    uniform = torch.from_numpy(np.random.default_rng(5).random((6, 6)))
    endless = decoding.decode(sharp, PROMPTS, 2, how(), uniform)
    assert {len(response) for response in endless} == {6}
    ends = (endless[0][0], endless[2][3], endless[3][1])
    open_counts = []
    stopped = decoding.decode(
        sharp, PROMPTS, 2, how(eos_ids=ends), uniform, on_token=lambda step, count: open_counts.append(count)
    )
    for full, short in zip(endless, stopped, strict=True):
        first = next((i for i, token in enumerate(full) if token in ends), 5)
        assert short == full[: first + 1]
    assert len({len(response) for response in stopped}) >= 3
    alive = [sum(len(r) > step + 1 or r[-1] not in ends for r in stopped) for step in range(len(open_counts))]
    assert open_counts == alive


def test_decoding_stops_when_all_responses_have_ended(sharp):
    uniform = torch.from_numpy(np.random.default_rng(5).random((1, 6)))
    (endless,) = decoding.decode(sharp, PROMPTS[:1], 1, how(), uniform)
    end = next(step for step in range(1, 6) if endless[step] not in endless[:step])
    steps = []
    (response,) = decoding.decode(
        sharp, PROMPTS[:1], 1, how(eos_ids=(endless[end],)), uniform, on_token=lambda step, count: steps.append(step)
    )
    assert (response, steps) == (endless[: end + 1], list(range(end + 1)))


def test_samples_of_a_prompt_stand_together_and_differ(base):
    responses = sample(base, PROMPTS, 3, how())
    assert len(responses) == 9
    assert len({tuple(response) for response in responses}) == 9
    first = decoding.decode(
        base, PROMPTS[1:2], 3, how(), torch.from_numpy(np.random.default_rng(0).random((9, 6))[3:6])
    )
    assert responses[3:6] == first


def test_one_seed_gives_the_same_responses_and_another_gives_others(base):
    assert sample(base, PROMPTS, 2, how()) == sample(base, PROMPTS, 2, how())
    assert sample(base, PROMPTS, 2, how()) != sample(base, PROMPTS, 2, how(), seed=1)


def test_cold_samples_are_the_greedy_ones_of_transformers(sharp, tokenizer):
    cold = how(temperature=1e-4, max_tokens=8, eos_ids=(tokenizer.eos_token_id,), pad_id=tokenizer.pad_token_id)
    found = sample(sharp, PROMPTS, 1, cold)
    for prompt, response in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt])
        greedy = sharp.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
        assert response == greedy[0, len(prompt) :].tolist()


def test_sampling_of_a_tokenizer_ends_at_its_end_token(tokenizer):
    found = policy_sampling.for_tokenizer(tokenizer, 7, 0.8, 0.95)
    assert dataclasses.astuple(found) == (0.8, 0.95, 7, (tokenizer.eos_token_id,), tokenizer.pad_token_id)
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


def test_fewer_samples_have_the_numbers_of_the_first_of_all(sharp):
    rng, other = np.random.default_rng(7), np.random.default_rng(7)
    every = DecoderSampler(sharp).sample(PROMPTS, 3, how(), rng)
    first = DecoderSampler(sharp, drawn_per_prompt=3).sample(PROMPTS, 1, how(), other)
    assert first == every[::3]
    assert rng.random() == other.random()  # what is sampled next from either has equal numbers too


def test_sampling_in_parts_draws_what_sampling_at_once_does(sharp):
    rng = np.random.default_rng(8)
    sampler = DecoderSampler(sharp, drawn_per_prompt=2)
    parts = [sampler.sample([prompt], 2, how(), rng) for prompt in PROMPTS]
    assert [ids for part in parts for ids in part] == sampler.sample(PROMPTS, 2, how(), np.random.default_rng(8))


@pytest.mark.parametrize("training", [True, False])
def test_model_is_left_in_its_mode(base, training, monkeypatch):
    monkeypatch.setattr(decoding, "decoder_of", lambda model: model)  # as on a GPU
    modes = []
    base.train(training)
    sampler = DecoderSampler(base, on_token=lambda *_: modes.append(base.training))
    sampler.sample(PROMPTS, 1, how(), np.random.default_rng(0))
    assert set(modes) == {False}
    assert base.training is training
