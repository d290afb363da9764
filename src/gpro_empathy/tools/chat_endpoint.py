"""Ask a language model through an endpoint that speaks OpenAI's chat protocol.

Waiting and asking again, limits on requests and cost, and the key, which no text that leaves this
module holds.
"""

import email.utils
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from gpro_empathy.files import UserError
from gpro_empathy.tools import chat

KEY = "OPENAI_API_KEY"
# Waits in seconds between the tries of one question; a server that asks for a longer one gets it.
WAITS = (1, 2, 5, 15, 40)
LONGEST_WAIT = 600
LARGEST_REPLY = 2**22
# Of a request that the server has not counted: more tokens than texts have.
BYTES_PER_TOKEN = 2
# A key that is shorter is a word such as EMPTY, for a server that asks for none.
_SHORTEST_SECRET = 8
_LONGEST_WORDS = 300
# Told of the whole endpoint, whatever the question was.
_REFUSED = {
    401: f"set {KEY} to a key of this endpoint",
    402: "the account has no money left",
    403: f"the key of {KEY} has no access",
    404: "check --model, and that --base-url ends where /chat/completions follows, mostly in /v1",
    405: "check --base-url, which mostly ends in /v1",
}
_AGAIN = (408, 409, 425, 429)
_FILTERED = ("content_filter", "content_policy_violation")


class LimitReachedError(Exception):
    """A limit of the user's stands before the next request; its text says which."""


class UnansweredError(Exception):
    """The server has failed on a question, every time that it was asked; the text says how."""


@dataclass(frozen=True)
class Limits:
    """What all requests of an endpoint may come to.

    Args:
        requests: Number of requests, repeated ones too.
        cost: In the currency of the prices; None for no limit.
        prices: Of a million tokens that are sent, and that are received; None if unknown.

    Raises:
        UserError: If a number is negative or none, or a cost comes without prices.
    """

    requests: int
    cost: float | None = None
    prices: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        given = {"--max-requests": self.requests, "--max-cost": self.cost}
        given |= dict.fromkeys(["--prices"], min(self.prices) if self.prices else None)
        for name, value in given.items():
            if value is not None and not 0 <= value < float("inf"):
                raise UserError(f"{name}: {value} is no number from 0")
        if self.cost is not None and self.prices is None:
            raise UserError("--max-cost needs --prices, of a million tokens sent and received, to know what a request costs")


class Endpoint:
    """A model behind an endpoint, with the count of what was asked of it.

    Args:
        base_url: What /chat/completions is put behind.
        key: Sent to the endpoint and nowhere else; None for none.
        timeout: Seconds until a request is given up.
        max_tokens: Tokens of a reply at most.
        note: Called with a line about each wait.

    Raises:
        UserError: If the address or the key cannot be one.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        key: str | None,
        limits: Limits,
        *,
        timeout: float,
        max_tokens: int,
        note: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self.model, self.limits = _address(base_url), model, limits
        self.requests, self.tokens, self.cost = 0, (0, 0), 0.0
        self._key, self._note, self._sleep, self._timeout = _checked(key), note, sleep, timeout
        self._max_tokens, self._named = max_tokens, "max_tokens"
        self._reached = False
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        self._client = httpx.Client(headers=headers, timeout=timeout)

    def ask(self, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Return the body of the reply to a conversation, at temperature 0, with the key taken out.

        A filter of the endpoint that refuses the question is such a reply too.

        Raises:
            LimitReachedError: If one more request could exceed a limit.
            UnansweredError: If the server fails on this question, and may not on another.
            UserError: If it would fail on any question.
        """
        for wait in (*WAITS, None):
            content = self._content(messages)
            try:
                status, headers, text = self._post(content)
                if status == 400 and self._named in text and "max_completion_tokens" in text:
                    # Models that reason before they reply know the limit by this name alone.
                    self._named = "max_completion_tokens"
                    status, headers, text = self._post(self._content(messages))
            except httpx.RequestError as error:
                failure, asked_for = self._failure(error, content), 0.0
            else:
                self._reached = True
                if status < 500 and status not in (200, *_AGAIN):
                    return self._refused(status, headers, text)
                body = _parsed(text)
                if status == 200 and _has_reply(body):
                    self._count(body, content)
                    return body
                if status == 429 and "insufficient_quota" in text:
                    raise UserError(f"{self.url}: {_words(body, text)}; the account has no quota left")
                failure, asked_for = _told(status, body, text), _retry_after(headers.get("retry-after"))
            if wait is None:
                break
            self._wait(max(wait, asked_for), failure)
        raise UnansweredError(failure)

    def _content(self, messages: Sequence[Mapping[str, str]]) -> bytes:
        body = {"model": self.model, "messages": messages, "temperature": 0, self._named: self._max_tokens}
        return json.dumps(body).encode()

    def _post(self, content: bytes) -> tuple[int, httpx.Headers, str]:
        """Send one request; return status, headers and text of what comes back."""
        self._stay_within_limits(content)
        self.requests += 1
        ends, received = time.monotonic() + self._timeout, b""
        with self._client.stream("POST", self.url, content=content) as response:
            for part in response.iter_bytes():
                received += part
                # The client's own limit is one for each part of a reply.
                if time.monotonic() > ends:
                    raise httpx.ReadTimeout("timed out", request=response.request)
                if len(received) > LARGEST_REPLY:
                    raise httpx.ReadError(f"a reply of more than {LARGEST_REPLY} bytes", request=response.request)
        return response.status_code, response.headers, self._without_key(received.decode(errors="replace"))

    def _stay_within_limits(self, content: bytes) -> None:
        if self.requests >= self.limits.requests:
            raise LimitReachedError(f"--max-requests {self.limits.requests}")
        if self.limits.cost is not None and self.cost + self._most(content) > self.limits.cost:
            raise LimitReachedError(f"--max-cost {self.limits.cost:g}, of which {self.cost:.4g} is spent")

    def _most(self, content: bytes) -> float:
        """Return what a request costs at most."""
        sent, received = self.limits.prices or (0.0, 0.0)
        return (sent * len(content) / BYTES_PER_TOKEN + received * self._max_tokens) / 1e6

    def _count(self, body: dict, content: bytes) -> None:
        """Add what a request took by the server's count; at its most, where it tells none."""
        usage = body.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        used = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        if not all(isinstance(count, int) and count >= 0 for count in used):
            self.cost += self._most(content)
            return
        self.tokens = (self.tokens[0] + used[0], self.tokens[1] + used[1])
        if self.limits.prices:
            self.cost += sum(price * count for price, count in zip(self.limits.prices, used, strict=True)) / 1e6

    def _failure(self, error: httpx.RequestError, content: bytes) -> str:
        """Return what a request broke off with; it may have to be paid all the same.

        Raises:
            UserError: If the server was never reached.
        """
        unconnected = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        words = _short(self._without_key(str(error))) or type(error).__name__
        if unconnected and not self._reached:
            raise UserError(f"{self.url}: cannot be reached ({words}); start the server, or check --base-url")
        if not unconnected:
            self.cost += self._most(content)
        return f"no reply within {self._timeout:g} s" if isinstance(error, httpx.TimeoutException) else words

    def _refused(self, status: int, headers: httpx.Headers, text: str) -> dict:
        """Return the refusal of a filter as a reply; raise any other one."""
        body = _parsed(text)
        if status == 400 and any(name in text for name in _FILTERED):
            return body if isinstance(body, dict) else {"error": text}
        words = _told(status, body, text)
        if 300 <= status < 400:
            place = _short(self._without_key(headers.get("location", "elsewhere")))
            raise UserError(f"{self.url}: leads to {place}; give that as --base-url if you trust it")
        if status in _REFUSED:
            raise UserError(f"{self.url}: {words}; {_REFUSED[status]}")
        raise UnansweredError(words)

    def _wait(self, seconds: float, failure: str) -> None:
        if seconds > LONGEST_WAIT:
            raise UserError(f"{self.url}: {failure}; the server asks to wait {seconds / 60:.0f} minutes: run the command then")
        self._note(f"{failure}; asking again in {seconds:.0f} s")
        self._sleep(seconds)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key and len(self._key) >= _SHORTEST_SECRET else text


def _address(base_url: str) -> str:
    try:
        url = httpx.URL(base_url.strip())
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        # Not quoted, as it may hold a password.
        raise UserError(
            "--base-url: takes an address such as http://localhost:8000/v1, without name, password, ? or #; "
            f"a key comes from {KEY}"
        )
    path = url.path.rstrip("/").removesuffix("/chat/completions")
    return str(url.copy_with(path=f"{path}/chat/completions"))


def _checked(key: str | None) -> str | None:
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"{KEY}: holds a character that no key has; set it anew")
    return key or None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _has_reply(body: Any) -> bool:
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(first, dict) and isinstance(first.get("message"), dict)


def _retry_after(value: str | None) -> float:
    """Return the seconds that a server asks to wait: told as such, or as a date; 0 if it does not."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        return max((email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):  # no date, or one without a time zone
        return 0.0


def _told(status: int, body: Any, text: str) -> str:
    return f"the server answers {status}: {_words(body, text)}"


def _words(body: Any, text: str) -> str:
    """Return what a server says of an error, in whichever of the usual places."""
    error = body.get("error", body) if isinstance(body, dict) else text
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or text
    return _short(str(error)) or "nothing further"


def _short(text: str) -> str:
    line = chat.printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST_WORDS else f"{line[:_LONGEST_WORDS]} ..."
