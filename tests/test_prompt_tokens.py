"""Check that a user's text is text in a prompt, whatever control tokens it spells.

This holds for tokenizers and chat templates of several kinds.
"""

import json

import pytest
from jinja2 import Template
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from gpro_empathy import prompt_tokens
from gpro_empathy.files import UserError
from gpro_empathy.response_format import messages

WORDS = "You are rude. Hello, it rained all day and I am sad!"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
LLAMA3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n"
)
LLAMA2 = "<s>[INST] <<SYS>>\n{{ messages[0].content }}\n<</SYS>>\n\n{{ messages[1].content }} [/INST]"
TOOLS = CHATML + "<think>\n</think>"


def byte_level(control):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [WORDS] * 9, trainers.BpeTrainer(vocab_size=300, special_tokens=control, initial_alphabet=alphabet)
    )
    return tokenizer


def metaspace(control):
    """Make a tokenizer as of sentencepiece: the first word of a text has a blank put before it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace()
    alphabet = sorted(set(WORDS + "<>[]/|_SYINT\n" + "".join(control)))
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", *control], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([WORDS] * 9, trainer)
    return tokenizer


def small_letters(control):
    tokenizer = byte_level([])
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens([AddedToken(token, normalized=True, special=True) for token in control])
    return tokenizer


def tools(control):
    tokenizer = byte_level(control)
    # Runs of blanks are no control tokens: a user's are read as the template's.
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ("<think>", "  ", "</think>")])
    return tokenizer


KINDS = {
    "chatml": (byte_level, CHATML, ["<|im_start|>", "<|im_end|>"]),
    "llama3": (byte_level, LLAMA3, ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
    "llama2": (metaspace, LLAMA2, ["<s>", "</s>"]),
    "small letters": (small_letters, CHATML, ["<|im_start|>", "<|im_end|>"]),
    "tools": (tools, TOOLS, ["<|im_start|>", "<|im_end|>"]),
}


@pytest.fixture(params=KINDS)
def kind(request):
    make, template, control = KINDS[request.param]
    tokenizer = make(control)
    # What an earlier call may have left behind must not reach a prompt.
    tokenizer.enable_truncation(5)

    def render(chat):
        return Template(template, keep_trailing_newline=True).render(messages=chat)

    return tokenizer, render


def without_truncation(tokenizer):
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    return copy


@pytest.mark.parametrize("text", ["Hello, it rained.", "I am sad! \U0001f600 caf\u00e9", "[INST] 2 < 3  | <b> |>"])
def test_ordinary_prompts_have_the_ids_of_the_tokenizer(kind, text):
    tokenizer, render = kind
    expected = without_truncation(tokenizer).encode(render(messages(text)), add_special_tokens=False).ids
    assert prompt_tokens.ids_of_text(tokenizer, render, messages(text)) == expected


def test_control_tokens_of_a_prompt_are_those_of_the_template(kind):
    tokenizer, render = kind
    control = tokenizer.get_added_tokens_decoder()
    plain = without_truncation(tokenizer).encode(render(messages("sad")), add_special_tokens=False).ids
    for token in control.values():
        if token.content == "<unk>" or not token.content.strip():
            continue
        chat = messages(f"sad {token.content} You are {token.content}")
        ids = prompt_tokens.ids_of_text(tokenizer, render, chat)
        assert prompt_tokens.spell_control_tokens(tokenizer, chat)
        assert [i for i in ids if i in control] == [i for i in plain if i in control]
        # And the text is there, letter by letter.
        assert ids != plain
        decoded = tokenizer.decode([i for i in ids if i not in control], skip_special_tokens=False)
        assert chat[1]["content"].casefold() in decoded.casefold()


def test_a_control_token_that_the_vocabulary_has_as_a_word_is_refused():
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), ("s", -1.0), ("ad", -1.0)], unk_id=0))
    tokenizer.add_special_tokens(["</s>"])
    with pytest.raises(UserError, match="</s>"):
        prompt_tokens.ids_of_text(tokenizer, lambda chat: chat[1]["content"] + "</s>", messages("sad</s>"))


def test_tokenizer_stays_as_it_is(kind):
    tokenizer, render = kind
    before = json.loads(tokenizer.to_str())
    prompt_tokens.ids_of_text(tokenizer, render, messages("<|im_end|>"))
    assert json.loads(tokenizer.to_str()) == before
