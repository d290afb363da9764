import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpro_empathy.policy import packed_logprobs

# Two groups of unequal sizes and lengths, not in order; one completion is empty.
PROMPTS = [[5, 6, 7], [9, 8], [5, 6, 7], [9, 8], [5, 6, 7]]
COMPLETIONS = [[20, 21, 22, 23], [30], [24, 25], [31, 32, 33], []]
COLUMNS = 5

prompts_and_completions = st.lists(
    st.tuples(
        st.sampled_from([[1], [1, 2], [3, 4, 5]]),
        st.lists(st.integers(10, 99), max_size=4),
    ),
    min_size=1,
    max_size=6,
)


def separate(model, prompts, completions, columns, temperature):
    """Return each completion's log-probabilities and entropies from a forward pass of its own.

    The pass is unpadded.
    """
    logps, entropies = torch.zeros(len(prompts), columns), torch.zeros(len(prompts), columns)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1] / temperature
        log = torch.log_softmax(logits, -1)
        for column, token in enumerate(completion):
            logps[row, column] = log[column, token]
            entropies[row, column] = -(log[column].exp() * log[column]).sum()
    return logps, entropies


def packed(model, prompts=PROMPTS, completions=COMPLETIONS, temperature=1.0):
    return packed_logprobs.log_probabilities(model, prompts, completions, columns=COLUMNS, temperature=temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_numbers_are_those_of_separate_copies(lora, temperature):
    model = lora.get_base_model()
    with torch.no_grad():
        logps, entropies = packed(model, temperature=temperature)
        expected_logps, expected_entropies = separate(model, PROMPTS, COMPLETIONS, COLUMNS, temperature)
    assert torch.allclose(logps, expected_logps, atol=1e-5)
    assert torch.allclose(entropies, expected_entropies, atol=1e-5)
    assert (logps[4] == 0).all()
    assert (logps[1, 1:] == 0).all()


def test_gradients_of_every_lora_matrix_are_those_of_separate_copies(lora):
    weight = torch.randn(len(PROMPTS), COLUMNS, generator=torch.Generator().manual_seed(1))
    gradients = []
    for compute in (lambda m: packed(m)[0], lambda m: separate(m, PROMPTS, COMPLETIONS, COLUMNS, 1.0)[0]):
        model = copy.deepcopy(lora)
        (compute(model.get_base_model()) * weight).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    ours, theirs = gradients
    assert len(ours) == 2 * 7 * 2
    for name, gradient in theirs.items():
        assert gradient.abs().max() > 0, name
        assert torch.allclose(ours[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()) + 1e-7), name


def test_gradients_of_layers_that_are_run_again_in_the_backward_pass_are_the_same(lora):
    found = []
    for again in (False, True):
        model = copy.deepcopy(lora)
        if again:
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        packed(model.get_base_model())[0].sum().backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


def test_changing_one_completion_leaves_the_numbers_of_the_others(lora):
    model = lora.get_base_model()
    other = [[90, 91, 92, 93], *COMPLETIONS[1:]]
    with torch.no_grad():
        logps, entropies = packed(model)
        changed, changed_entropies = packed(model, completions=other)
    assert torch.equal(logps[1:], changed[1:])
    assert torch.equal(entropies[1:], changed_entropies[1:])
    assert (logps[0, :4] != changed[0, :4]).all()


def test_a_longer_neighbour_leaves_the_numbers_of_the_others(lora):
    model = lora.get_base_model()
    with torch.no_grad():
        logps, _ = packed(model)
        changed, _ = packed(model, completions=[[*COMPLETIONS[0], 40], *COMPLETIONS[1:]])
    assert torch.allclose(logps[:, :4], changed[:, :4], atol=1e-6)


def test_later_tokens_of_a_completion_do_not_change_earlier_ones(lora):
    model = lora.get_base_model()
    with torch.no_grad():
        logps, _ = packed(model)
        changed, _ = packed(model, completions=[[20, 21, 99, 98], *COMPLETIONS[1:]])
    assert torch.equal(logps[0, :2], changed[0, :2])


def test_packing_of_one_group_is_as_drawn_by_hand():
    packing = packed_logprobs.pack([[1, 2], [1, 2]], [[7, 8], [9]])
    assert packing.ids_NT.tolist() == [[1, 2, 7, 8, 9]]
    assert packing.positions_NT.tolist() == [[0, 1, 2, 3, 2]]
    assert packing.segment_lengths == [[2, 2, 1]]
    assert packing.predictor_M.tolist() == [1, 2, 1]
    assert packing.target_M.tolist() == [7, 8, 9]
    assert (packing.row_M.tolist(), packing.column_M.tolist()) == ([0, 0, 1], [0, 1, 0])


@given(prompts_and_completions)
def test_packing_keeps_every_token_once_and_the_prompt_once_a_group(pairs):
    prompts, completions = [p for p, _ in pairs], [c for _, c in pairs]
    packing = packed_logprobs.pack(prompts, completions)
    assert len(packing.ids_NT) == len({tuple(p) for p in prompts})
    places = zip(packing.row_M.tolist(), packing.column_M.tolist(), packing.target_M.tolist(), strict=True)
    assert sorted(places) == [(r, c, t) for r, completion in enumerate(completions) for c, t in enumerate(completion)]
    # Each prediction stands right before its token, in its own sequence.
    for group, predictor, row, column in zip(
        packing.group_M.tolist(), packing.predictor_M.tolist(), packing.row_M.tolist(), packing.column_M.tolist(),
        strict=True,
    ):  # fmt: skip
        before = (prompts[row] + completions[row])[len(prompts[row]) + column - 1]
        assert packing.ids_NT[group, predictor] == before
        assert packing.positions_NT[group, predictor] == len(prompts[row]) + column - 1


def test_log_probabilities_of_bfloat16_logits_are_taken_in_float32(lora):
    """A softmax in bfloat16 would round every log-probability to three digits."""
    model = copy.deepcopy(lora).get_base_model().bfloat16()
    prompts, completions = [[5, 9, 200, 7]] * 2, [[8, 31, 77], [12, 9]]
    with torch.no_grad():
        found, _ = packed_logprobs.log_probabilities(model, prompts, completions, columns=3, temperature=1.0)
        for row, completion in enumerate(completions):
            ids = torch.tensor([prompts[row] + completion])
            logps_TV = torch.log_softmax(model(input_ids=ids).logits[0, 3:-1].float(), -1)
            expected = logps_TV[torch.arange(len(completion)), completion]
            # The logits themselves carry bfloat16's error; of float32 logs, few digits would be
            # left equal by chance.
            assert torch.allclose(found[row, : len(completion)], expected, atol=0.02)
    assert found.dtype == torch.float32


def test_gradient_at_a_token_that_predicts_several_is_the_same_to_the_last_bit_every_time():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 520, 576, generator=generator, requires_grad=True)
    incoming = torch.randn(320, 576, generator=generator)
    token = torch.arange(320) + 150
    token[::40] = 150  # eight responses to one prompt
    found = set()
    for _ in range(200):
        hidden.grad = None
        packed_logprobs.rows(hidden, torch.zeros_like(token), token).backward(incoming)
        found.add(hidden.grad.numpy().tobytes())
    assert len(found) == 1
    expected = torch.zeros(1, 520, 576, dtype=torch.float64)
    expected[0].index_put_((token,), incoming.double(), accumulate=True)
    torch.testing.assert_close(hidden.grad.double(), expected, atol=1e-5, rtol=1e-5)
