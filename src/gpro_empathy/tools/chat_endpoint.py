"""Ask a language model through an endpoint that speaks OpenAI's chat protocol.

Here are waiting and asking again, and the key, which stands in no text that leaves this module.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from gpro_empathy.files import UserError
from gpro_empathy.tools import server_answer
from gpro_empathy.tools.request_budget import Budget
from gpro_empathy.tools.server_answer import Answer

KEY = "OPENAI_API_KEY"
# Waits in seconds between the tries of one question; a server that asks for a longer one gets it.
WAITS = (1, 2, 5, 15, 40)
LONGEST_WAIT = 600
LARGEST_ANSWER = 2**22
# What helps, by the status.
_WAY_OUT = {
    401: f"set {KEY} to a key of this endpoint",
    402: "top up the account, or ask another endpoint",
    403: f"the key of {KEY} has no access",
    404: "check --model, and that --base-url ends where /chat/completions follows, mostly in /v1",
    405: "check --base-url, which mostly ends in /v1",
}
_PASSING = (408, 409, 425, 429)

Messages = Sequence[Mapping[str, str]]


class UnansweredError(Exception):
    """The server has failed on a question, every time that it was asked; the text says how."""


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
        budget: Budget,
        *,
        timeout: float,
        max_tokens: int,
        note: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self.model, self.budget = _address(base_url), model, budget
        for name, value in {"--timeout": timeout, "--max-tokens": max_tokens}.items():
            if not 0 < value < float("inf"):
                raise UserError(f"{name}: {value} is no number above 0")
        self._key, self._note, self._sleep, self._timeout = _checked(key), note, sleep, timeout
        self.max_tokens, self._limit_named = max_tokens, "max_tokens"
        self._reached = False
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        self._client = httpx.Client(headers=headers, timeout=timeout)
        self._warn_of_a_key_in_the_clear()

    def ask(self, messages: Messages) -> dict[str, Any]:
        """Return the body of the reply to a conversation, at temperature 0.

        It is that of a filter's refusal, where no model replies for it.

        Raises:
            LimitReachedError: If one more request could exceed a limit.
            UnansweredError: If the server fails on this question; the next may fare better.
            UserError: If there is no server, or one that asks to wait too long.
        """
        for wait in (*WAITS, None):
            try:
                answer = self._post(messages)
            except httpx.RequestError as error:
                failure, asked_for = self._failure(error, messages), 0.0
            else:
                self._reached = True
                if (reply := answer.reply()) is not None:
                    self.budget.spend(reply.get("usage"), self._size(messages), self.max_tokens)
                    return reply
                self._raise_unless_passing(answer)
                failure, asked_for = answer.words(), answer.retry_after
            if wait is not None:
                self._wait(max(wait, asked_for), failure)
        raise UnansweredError(failure)

    def most(self, messages: Messages) -> float:
        """Return what a reply to a conversation costs at most; 0 where no prices are known."""
        return self.budget.most(self._size(messages), self.max_tokens)

    def _size(self, messages: Messages) -> int:
        return len(self._content(messages))

    def _content(self, messages: Messages) -> bytes:
        body = {"model": self.model, "messages": messages, "temperature": 0, self._limit_named: self.max_tokens}
        return json.dumps(body).encode()

    def _post(self, messages: Messages) -> Answer:
        """Send a request; once more, if the server has another name for the limit of tokens."""
        answer = self._send(self._content(messages))
        if answer.status == 400 and self._limit_named == "max_tokens" and answer.names("max_completion_tokens"):
            self._limit_named = "max_completion_tokens"
            return self._send(self._content(messages))
        return answer

    def _send(self, content: bytes) -> Answer:
        self.budget.take(len(content), self.max_tokens)
        ends, received = time.monotonic() + self._timeout, b""
        with self._client.stream("POST", self.url, content=content) as response:
            for part in response.iter_bytes():
                received += part
                # The client's own timeout is for each part of an answer.
                if time.monotonic() > ends:
                    raise httpx.ReadTimeout("timed out", request=response.request)
                if len(received) > LARGEST_ANSWER:
                    raise httpx.ReadError(f"an answer of more than {LARGEST_ANSWER} bytes", request=response.request)
        return server_answer.of_response(response.status_code, response.headers, received, self._key)

    def _failure(self, error: httpx.RequestError, messages: Messages) -> str:
        """Return how a request broke off, which may have to be paid all the same.

        Raises:
            UserError: If the server was never reached.
        """
        unconnected = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        words = server_answer.short(server_answer.without_key(str(error), self._key)) or type(error).__name__
        if unconnected and not self._reached:
            raise UserError(f"{self.url}: cannot be reached ({words}); start the server, or check --base-url")
        if not unconnected:
            self.budget.spend(None, self._size(messages), self.max_tokens)
        return f"no answer within {self._timeout:g} s" if isinstance(error, httpx.TimeoutException) else words

    def _raise_unless_passing(self, answer: Answer) -> None:
        """Raise UnansweredError, unless the same request may get another answer later."""
        if answer.status == 429 and answer.names("insufficient_quota"):
            raise UnansweredError(f"{answer.words()}; {_WAY_OUT[402]}")
        if 300 <= answer.status < 400:
            place = server_answer.short(answer.location) or "another address"
            raise UnansweredError(f"it leads to {place}; give that as --base-url, if you trust it")
        if 400 <= answer.status < 500 and answer.status not in _PASSING:
            raise UnansweredError("; ".join(filter(None, [answer.words(), _WAY_OUT.get(answer.status)])))

    def _wait(self, seconds: float, failure: str) -> None:
        if seconds > LONGEST_WAIT:
            raise UserError(
                f"{self.url}: {failure}; the server asks to wait {seconds / 60:.0f} minutes: run the command then"
            )
        self._note(f"{failure}; asking again in {seconds:.0f} s")
        self._sleep(seconds)

    def _warn_of_a_key_in_the_clear(self) -> None:
        url = httpx.URL(self.url)
        if (
            url.scheme == "http"
            and url.host not in ("localhost", "127.0.0.1", "::1")
            and server_answer.is_secret(self._key)
        ):
            self._note(f"the key of {KEY} goes to {url.host} unencrypted; https, or no key, is safer")


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
