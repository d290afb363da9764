import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from gpro_empathy.scorer import empathy_scorer, encoder, windows

TALK = ("my dog died", "oh no", "he was old", "so sad", "yes")


@pytest.fixture(scope="module")
def tokenizer():
    return encoder.load("random", None, None)[1]


def prefixes(texts):
    """Return the context of each text of a conversation."""
    return [texts[:i] for i in range(len(texts))]


def read(tokenizer, texts, contexts, max_tokens=64, context_turns=2):
    """Return the turns of each window, in words, and its rows."""
    made = windows.windows(tokenizer, texts, contexts, max_tokens=max_tokens, context_turns=context_turns)
    return [
        ([tokenizer.decode(turn, skip_special_tokens=True) for turn in window.turns], list(window.rows))
        for window in made
    ]


def test_conversation_that_fits_is_one_window(tokenizer):
    assert read(tokenizer, TALK, prefixes(TALK)) == [(list(TALK), [0, 1, 2, 3, 4])]


def test_window_without_room_is_followed_by_one_that_begins_with_the_last_turns(tokenizer):
    # With [CLS] and [SEP] the turns have 5, 4, 5, 4 and 3 tokens.
    assert read(tokenizer, TALK, prefixes(TALK), max_tokens=14) == [
        (list(TALK[:3]), [0, 1, 2]),
        (list(TALK[1:4]), [3]),
        (list(TALK[2:]), [4]),
    ]


def test_oldest_context_gives_way_to_the_turn(tokenizer):
    assert read(tokenizer, TALK[3:4], [TALK[:3]], max_tokens=10) == [(list(TALK[2:4]), [0])]
    assert read(tokenizer, TALK[3:4], [TALK[:3]], max_tokens=11) == [(["no", *TALK[2:4]], [0])]
    assert read(tokenizer, ["a b c d e f g h"], [TALK], max_tokens=8) == [(["a b c d e f"], [0])]


def test_conversations_and_repeated_beginnings_are_kept_apart(tokenizer):
    texts = [*TALK[:2], *TALK[:2]]
    assert read(tokenizer, texts, [(), TALK[:1], (), TALK[:1]]) == [(list(TALK[:2]), [0, 1]), (list(TALK[:2]), [2, 3])]


def test_answer_is_read_after_the_message(tokenizer):
    assert read(tokenizer, ["oh no", "so what"], [TALK[:1]] * 2) == [
        ([TALK[0], "oh no"], [0]),
        ([TALK[0], "so what"], [1]),
    ]


def test_without_context_every_turn_stands_alone(tokenizer):
    assert read(tokenizer, TALK, prefixes(TALK), context_turns=0) == [([text], [i]) for i, text in enumerate(TALK)]


def test_refuses_contexts_that_do_not_pair_up(tokenizer):
    with pytest.raises(ValueError, match=r"2\b.*\b1\b"):
        read(tokenizer, ["a", "b"], [()])


@effort(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="ab c", min_size=1, max_size=30), max_size=8), st.integers(0, 3), st.integers(8, 40))
def test_every_row_is_rated_once_in_a_window_that_is_not_too_long(tokenizer, texts, context_turns, max_tokens):
    made = windows.windows(tokenizer, texts, prefixes(texts), max_tokens=max_tokens, context_turns=context_turns)
    assert [row for window in made for row in window.rows] == list(range(len(texts)))
    for window in made:
        assert window.tokens <= max_tokens
        before = len(window.turns) - len(window.rows)
        assert before <= context_turns
        ids = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"] if texts else []
        assert list(window.turns[before:]) == [ids[row] for row in window.rows]


def test_tokens_attend_to_their_turn_and_to_those_before_it():
    mask = windows.attention_mask(torch.tensor([[0, 0, 1, -1]]))[0, 0]
    assert mask.tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [True, True, True, False],
        [False, False, False, True],
    ]


def test_later_turns_do_not_change_a_score(context_scorer):
    whole = context_scorer.score(TALK[:3], prefixes(TALK[:3]))
    for end in (1, 2):
        assert context_scorer.score(TALK[:end], prefixes(TALK[:end])) == pytest.approx(whole[:end], abs=1e-5)


def test_turn_of_a_window_is_scored_as_with_its_context_by_itself(context_scorer):
    together = context_scorer.score(TALK[:3], prefixes(TALK[:3]))
    alone = np.concatenate([context_scorer.score([TALK[i]], [TALK[:i]]) for i in range(3)])
    assert together == pytest.approx(alone, abs=1e-5)


def test_score_is_the_head_on_the_mean_of_the_states_of_the_turn(context_scorer):
    ids = [context_scorer.tokenizer(text)["input_ids"] for text in TALK[:2]]
    n, m = map(len, ids)
    mask = torch.ones(n + m, n + m, dtype=torch.bool)
    mask[:n, n:] = False
    with torch.no_grad():
        states = context_scorer.encoder(
            input_ids=torch.tensor([ids[0] + ids[1]]), attention_mask=mask[None, None]
        ).last_hidden_state[0]
        expected = context_scorer.head(states[n:].mean(0)) * context_scorer.label_sd + context_scorer.label_mean
    assert context_scorer.score([TALK[1]], [TALK[:1]])[0] == pytest.approx(expected.numpy(), abs=1e-5)


def test_encoder_without_context_gives_what_it_gives_with_a_plain_mask(settings):
    single = empathy_scorer.build(settings.train_scorer.model_copy(update={"encoder": "random"})).eval()
    padded = single.tokenizer(list(TALK), padding=True, return_tensors="pt")
    with torch.no_grad():
        states = single.encoder(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"])
        mask = padded["attention_mask"][:, :, None]
        mean = (states.last_hidden_state * mask).sum(1) / mask.sum(1)
        expected = single.head(mean) * single.label_sd + single.label_mean
    assert single.score(TALK) == pytest.approx(expected.numpy(), abs=1e-5)
