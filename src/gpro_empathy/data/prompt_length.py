"""Count the tokens of a chat prompt without loading torch.

The tokenizers of transformers import it, whatever USE_TORCH says, and with it seconds that the
stage has no use for.
"""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import jinja2
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from gpro_empathy import files, prompt_tokens
from gpro_empathy.files import UserError


def counter(folder: Path) -> Callable[[list[dict[str, str]]], int]:
    """Return a function from chat messages to the number of tokens of the prompt that they make.

    Args:
        folder: A converted policy, with tokenizer.json and chat_template.jinja.

    Raises:
        UserError: If one of its files is missing or not in its format.
    """
    # Read by our own code first, for its messages: those of tokenizers name no file.
    tokenizer = Tokenizer.from_str(json.dumps(files.read_json(folder / "tokenizer.json")))
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    # What templates of hub models may call.
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    place = folder / "chat_template.jinja"
    text = files.read_text(place, "policy.model has no chat template; choose an instruct model")
    settings = files.read_json(folder / "tokenizer_config.json")
    special = {key: value for key, value in settings.items() if key.endswith("_token") and isinstance(value, str)}
    try:
        template = environment.from_string(text)
    except jinja2.TemplateError as error:
        raise UserError(f"{place}: not a template that is understood ({error})") from None

    def render(messages: prompt_tokens.Messages) -> str:
        try:
            return template.render(messages=messages, add_generation_prompt=True, **special)
        except jinja2.TemplateError as error:
            raise UserError(f"{place}: cannot be filled in ({error})") from None

    def count(messages: prompt_tokens.Messages) -> int:
        if prompt_tokens.spell_control_tokens(tokenizer, messages):
            return len(prompt_tokens.ids_of_text(tokenizer, render, messages))
        return len(tokenizer.encode(render(messages), add_special_tokens=False).ids)

    return count


class _Generation(Extension):
    """The tag {% generation %}, which marks what a model says, and changes no text."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Parser) -> list[Node]:
        """Return what stands between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> None:
    raise UserError(f"the policy's chat template refuses the prompt: {message}")
