"""A real HTTP server that speaks the chat-completions format and answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Failure:
    """An answer that is none."""

    status: int
    message: str = "no"


Answer = str | Failure | bytes
"""A completion's text, a failure, or a raw body."""


@dataclass
class ChatServer:
    """What it was asked, and where it listens."""

    answer: Callable[[list[dict[str, str]]], Answer]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def prompts(self) -> list[list[dict[str, str]]]:
        return [request["messages"] for request in self.requests]

    @property
    def spec(self) -> str:
        return f"local-chat-completions,model=parrot-1,base_url={self.url}"


@contextmanager
def serve(answer: Callable[[list[dict[str, str]]], Answer]) -> Iterator[ChatServer]:
    server = ChatServer(answer)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.requests.append(body)
                server.headers.append(dict(self.headers.items()))
                given = server.answer(body["messages"])
            if isinstance(given, Failure):
                self._send(given.status, json.dumps({"error": {"message": given.message}}).encode())
            elif isinstance(given, bytes):
                self._send(200, given)
            else:
                choice = {"index": 0, "message": {"role": "assistant", "content": given}, "finish_reason": "stop"}
                self._send(200, json.dumps({"object": "chat.completion", "choices": [choice]}).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listener.server_address[1]}/v1/chat/completions"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def is_grading(messages: list[dict[str, str]]) -> bool:
    """Whether a prompt asks on which texts a category shows."""
    return "JSON list" in messages[0]["content"]


def array(messages: list[dict[str, str]]) -> list[Any]:
    """The one JSON array of a prompt: from the line `[` to the line `]`."""
    lines = messages[-1]["content"].split("\n")
    assert lines.count("[") == lines.count("]") == 1
    return json.loads("\n".join(lines[lines.index("[") : lines.index("]") + 1]))
