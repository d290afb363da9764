"""Count the tokens of a chat prompt without loading torch.

The tokenizers of transformers import it, whatever USE_TORCH says, and with it seconds that the
stage has no use for.
"""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

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
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    # What templates of hub models may call.
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    template = environment.from_string(files.read_text(folder / "chat_template.jinja"))
    special = files.read_json(folder / "tokenizer_config.json")

    def render(messages: prompt_tokens.Messages) -> str:
        bos = special.get("bos_token") or ""
        return template.render(messages=messages, add_generation_prompt=True, bos_token=bos)

    def count(messages: prompt_tokens.Messages) -> int:
        if prompt_tokens.spell_control_tokens(tokenizer, messages):
            return len(prompt_tokens.ids_of_text(tokenizer, render, messages))
        return len(tokenizer.encode(render(messages), add_special_tokens=False).ids)

    return count


def _refuse(message: str) -> None:
    raise UserError(f"the policy's chat template refuses the prompt: {message}")
