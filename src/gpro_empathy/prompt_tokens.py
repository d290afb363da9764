"""Tokens of a chat prompt in which a user's text is text, whatever control tokens it spells."""

import json
import re
import secrets
from collections.abc import Callable, Sequence

from tokenizers import AddedToken, Tokenizer

from gpro_empathy.files import UserError

Messages = Sequence[dict[str, str]]


def spell_control_tokens(tokenizer: Tokenizer, messages: Messages) -> bool:
    """Return whether a user's message would be read as a control token, such as `<|im_end|>`."""
    control = _control_tokens(tokenizer).keys()
    texts = [message["content"] for message in messages if message["role"] == "user"]
    return any(not control.isdisjoint(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)


def ids_of_text(tokenizer: Tokenizer, render: Callable[[Messages], str], messages: Messages) -> list[int]:
    """Return the token ids of a prompt whose control tokens are the chat template's alone.

    They are those of the tokenizer where no user's message spells a control token.

    Args:
        render: The chat template: from messages to the prompt as text.

    Raises:
        UserError: If the vocabulary has a control token as an ordinary word too.
    """
    added = tokenizer.get_added_tokens_decoder()
    control = _control_tokens(tokenizer)
    # A name that no user can have written stands for each user's text, and one for each control
    # token.
    mark = secrets.token_hex(16)
    name_of_id = {i: f"<|{mark}.{i}|>" if i in control else token.content for i, token in added.items()}
    texts = [message["content"] for message in messages if message["role"] == "user"]
    places = (f"{mark}:{number}:" for number in range(len(texts)))
    masked = [{**message, "content": next(places)} if message["role"] == "user" else message for message in messages]
    name_of_content = {token.content: name_of_id[i] for i, token in control.items()}
    # As the tokenizer finds them: the longest of those that begin at a place.
    pattern = "|".join(map(re.escape, sorted(name_of_content, key=len, reverse=True)))
    prompt = re.sub(pattern, lambda match: name_of_content[match[0]], render(masked))
    prompt = re.sub(rf"{mark}:(\d+):", lambda match: texts[int(match[1])], prompt)

    renamed = _with_added_tokens(tokenizer, [_named(name_of_id[i], token) for i, token in added.items()])
    id_of_renamed = {renamed.token_to_id(name): i for i, name in name_of_id.items()}
    ids = renamed.encode(prompt, add_special_tokens=False).ids
    for content in {control[i].content for i in ids if i in control and i not in id_of_renamed}:
        if any(content in text for text in texts):
            raise UserError(
                f"the policy's tokenizer can only read {content!r} in a user's message as a control token; "
                "remove it from the message"
            )
    return [id_of_renamed.get(i, i) for i in ids]


def _control_tokens(tokenizer: Tokenizer) -> dict[int, AddedToken]:
    """Return, by id, the tokens that are found in text before it is cut into words.

    Runs of blanks are left out.
    """
    return {i: token for i, token in tokenizer.get_added_tokens_decoder().items() if token.content.strip()}


def _named(name: str, token: AddedToken) -> AddedToken:
    return AddedToken(
        name, single_word=token.single_word, lstrip=token.lstrip, rstrip=token.rstrip, normalized=token.normalized
    )


def _with_added_tokens(tokenizer: Tokenizer, added: list[AddedToken]) -> Tokenizer:
    """Return a copy with other added tokens, and without padding and truncation.

    The ids of the added tokens may be others too.
    """
    content = json.loads(tokenizer.to_str())
    content |= {"added_tokens": [], "post_processor": None, "padding": None, "truncation": None}
    copy = Tokenizer.from_str(json.dumps(content))
    copy.add_tokens(added)
    return copy
