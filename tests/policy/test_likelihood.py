import numpy as np
import pytest
import torch

from gpro_empathy import response_format
from gpro_empathy.policy import likelihood, loading

REASONING = (
    "<reasoning>\nUser's main concern: the dog\nEmotional content: sad\nIntensity level (0-5): 3\n"
    "Response approach: comfort\n</reasoning>\n"
)
UTTERANCES = ["My dog died.", "the rent again", "My dog died.", "My dog died.", "ok then"]
TEXTS = [
    f"{REASONING}<answer>\nI am so sorry about your dog.\n</answer>",
    f"{REASONING}<answer>\nBy how much? That is a lot.\n</answer>",
    "no blocks at all",
    f"{REASONING}<answer>\ncut at the limit of tokens x",
    f"{REASONING}<answer>\nthe dog\n</answer>",
]


def plain(model, tokenizer, utterance, response):
    """Return the mean log-probability of the answer's tokens, one text at a time."""
    prompt = loading.prompt_ids(tokenizer, response_format.messages(utterance))
    text, answer = response.text, response.answer
    start = text.index(f"\n{answer}\n</answer>") + 1 if "</answer>" in text else 0
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    with torch.no_grad():
        log = torch.log_softmax(model(torch.tensor([prompt + encoded["input_ids"]])).logits[0].float(), -1)
    values = [
        float(log[len(prompt) + i - 1, token])
        for i, (token, (first, last)) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
        if last > start and first < start + len(answer)
    ]
    return np.mean(values)


@pytest.mark.parametrize("size", [1, 3, 16])
def test_it_is_the_mean_log_probability_of_the_answers_tokens(base, tokenizer, monkeypatch, size):
    monkeypatch.setattr(likelihood, "RESPONSES_PER_FORWARD", size)
    responses = [response_format.parse_response(text) for text in TEXTS]
    expected = [plain(base, tokenizer, *pair) for pair in zip(UTTERANCES, responses, strict=True)]
    found = likelihood.Likelihood(base, tokenizer)(UTTERANCES, responses)
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
    assert (found < 0).all()


def test_an_empty_reply_costs_what_ending_at_once_does(base, tokenizer):
    prompt = loading.prompt_ids(tokenizer, response_format.messages("ok then"))
    with torch.no_grad():
        log = torch.log_softmax(base(torch.tensor([prompt])).logits[0, -1].float(), -1)
    found = likelihood.Likelihood(base, tokenizer)(["ok then"], [response_format.parse_response("")])
    assert found[0] == pytest.approx(float(log[tokenizer.eos_token_id]), abs=1e-4)


def test_an_answer_that_stands_in_the_reasoning_too_is_scored_where_it_answers(base, tokenizer):
    response = response_format.parse_response(TEXTS[-1])
    assert response.well_formed
    found = likelihood.Likelihood(base, tokenizer)(["ok then"], [response])
    assert found[0] == pytest.approx(plain(base, tokenizer, "ok then", response), abs=1e-4)
