"""What a server of OpenAI's chat protocol answers: a reply, a refusal, or an error in words."""

import email.utils
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gpro_empathy.tools import chat

_LONGEST_WORDS = 300
# How hosts call it where their filter lets no model see a question.
_FILTERED = ("content_filter", "content_policy_violation")
# A key that is shorter is a word such as EMPTY, for a server that asks for none.
_SHORTEST_SECRET = 8


@dataclass(frozen=True)
class Answer:
    """The status of an HTTP answer, its body, as text where it is not JSON, and two of its headers.

    `retry_after` is in seconds, 0 where the server tells none.
    """

    status: int
    body: Any
    location: str = ""
    retry_after: float = 0.0

    def reply(self) -> dict[str, Any] | None:
        """Return the body if a model replied, or a filter refused in its place; else None."""
        choices = self.body.get("choices") if isinstance(self.body, dict) else None
        first = choices[0] if isinstance(choices, list) and choices else None
        if self.status == 200 and isinstance(first, dict) and isinstance(first.get("message"), dict):
            return self.body
        filtered = self.status == 400 and isinstance(self.body, dict) and any(map(self.names, _FILTERED))
        return self.body if filtered else None

    def names(self, word: str) -> bool:
        """Tell whether a word stands anywhere in the body."""
        return word in (self.body if isinstance(self.body, str) else json.dumps(self.body))

    def words(self) -> str:
        """Return the status, and what the server says of it in whichever of the usual places."""
        error = self.body.get("error", self.body) if isinstance(self.body, dict) else self.body
        if isinstance(error, dict):
            error = error.get("message") or error.get("detail") or json.dumps(error)
        return f"the server answers {self.status}: {short(str(error)) or 'nothing further'}"


def of_response(status: int, headers: Mapping[str, str], content: bytes, key: str | None) -> Answer:
    """Return an answer without the key, which some servers repeat."""
    text = content.decode(errors="replace")
    try:
        # Written anew, as the key may be escaped in it.
        body = json.loads(without_key(json.dumps(json.loads(text)), key and json.dumps(key)[1:-1]))
    except (ValueError, RecursionError):
        body = without_key(text, key)
    return Answer(
        status, body, without_key(headers.get("location", ""), key), retry_after(headers.get("retry-after", ""))
    )


def retry_after(value: str) -> float:
    """Return the seconds that a server asks to wait, told as a number or a date; 0 for none."""
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max((email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):  # no date, or one without a time zone
        return 0.0


def is_secret(key: str | None) -> bool:
    """Tell whether a key is more than a word for none."""
    return len(key or "") >= _SHORTEST_SECRET


def without_key(text: str, key: str | None) -> str:
    """Return a text with another word where the key stands."""
    return text.replace(key, "[key]") if key and is_secret(key) else text


def short(text: str) -> str:
    """Return a text of a server in one line, bounded, without what a terminal acts on."""
    line = chat.printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST_WORDS else f"{line[:_LONGEST_WORDS]} ..."
