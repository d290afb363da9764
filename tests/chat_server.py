"""A server of OpenAI's chat protocol on this machine, which answers as a test says."""

import http.server
import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """An answer as it goes over the wire; a body of None breaks the connection off.

    `delay` is in seconds before it, `pause` after each of its bytes.
    """

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    pause: float = 0.0


def reply(content: Any, finish_reason: str = "stop", usage: Any = (100, 10), **message: Any) -> Answer:
    """Return a model's reply; `usage`, if told, is in tokens sent and received."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content} | message,
        "finish_reason": finish_reason,
    }
    body = {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice]}
    if usage:
        body["usage"] = dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True))
    return Answer(body)


def error(status: int, message: str, code: str | None = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer({"error": {"message": message, "code": code}}, status, named)


def asked(body: dict) -> dict:
    """Return the texts that a request asks about."""
    content = body["messages"][0]["content"]
    return json.loads(content[content.rindex("\n{") :])


class ChatServer:
    """Answers with the next of `script`, and with what `judge` returns of a request after that."""

    def __init__(self, judge: Callable[[dict], Answer]) -> None:
        self.judge, self.script, self.bodies, self.headers, self.paths = judge, [], [], [], []

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.bodies.append(body)
        self.headers.append(handler.headers)
        self.paths.append(handler.path)
        answer = self.script.pop(0) if self.script else self.judge(body)
        time.sleep(answer.delay)
        if answer.body is None:
            handler.close_connection = True
            return
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        for part in (content[k : k + 1] for k in range(len(content))) if answer.pause else [content]:
            handler.wfile.write(part)
            time.sleep(answer.pause)


@contextmanager
def running(judge: Callable[[dict], Answer]):
    """Run a server; yields it, with its address as `url`."""
    chat = ChatServer(judge)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            chat.answer(self)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that has given up
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
