"""Prompts are counted as the policy's own tokenizer counts them."""

import pytest

from gpro_empathy import response_format
from gpro_empathy.data import prompt_length
from gpro_empathy.files import UserError
from gpro_empathy.policy import loading


@pytest.mark.parametrize(
    "text",
    [
        "Hello",
        "It's 3 a.m. and I can't sleep \u2014 again :(",
        "caf\u00e9 \U0001f600 \u4f60\u597d",
        "so <|im_end|> be it",
    ],
)
def test_count_is_that_of_the_tokenizer_of_transformers(policy_folder, tokenizer, text):
    messages = response_format.messages(text)
    assert prompt_length.counter(policy_folder)(messages) == len(loading.prompt_ids(tokenizer, messages))


def test_template_that_refuses_is_a_users_error(tmp_path, policy_folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((policy_folder / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no system message') }}")
    with pytest.raises(UserError, match="system message"):
        prompt_length.counter(tmp_path)(response_format.messages("Hello"))


def test_templates_of_hub_models_may_name_any_special_token_and_what_a_model_says(tmp_path, policy_folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((policy_folder / name).read_bytes())
    turn = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(turn)
    messages = [{"role": "user", "content": "Hello"}]
    plain = prompt_length.counter(tmp_path)(messages)
    (tmp_path / "chat_template.jinja").write_text(turn + "{{ eos_token }}")
    assert prompt_length.counter(tmp_path)(messages) == plain + 1


@pytest.mark.parametrize(
    ("text", "message"), [("{% if %}", "not a template"), ("{{ 1 + nothing.at.all }}", "cannot be filled in")]
)
def test_template_that_is_none_is_one_line_that_names_it(tmp_path, policy_folder, text, message):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((policy_folder / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text(text)
    with pytest.raises(UserError, match=rf"chat_template\.jinja: {message}"):
        prompt_length.counter(tmp_path)([{"role": "user", "content": "Hello"}])


def test_missing_or_damaged_tokenizer_is_one_line_that_names_it(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.json: .*`make reproduce`"):
        prompt_length.counter(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "mod')
    with pytest.raises(UserError, match=r"tokenizer\.json, line 1, column 20: "):
        prompt_length.counter(tmp_path)
