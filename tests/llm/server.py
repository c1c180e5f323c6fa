"""A fake OpenAI-compatible server over real HTTP, on its own port, which records requests and fails on demand.

It reads the JSON objects in a prompt (the form of the answer, the examples, the row), never the words around them.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

Body = dict[str, Any]
#: Maps a request and its number to (status, headers, content), or to None, which drops the connection. The content is
#: the text of the answer, or the message of an error; a mapping is sent as it is, in place of the whole response body.
Reply = Callable[[Body, int], "tuple[int, dict[str, str], str | Body] | None"]
#: What an answer can hold: a form is an object with one of these keys alone.
KINDS = ("values", "rows", "label")
_STARTS, _ENDS = ("ba", "ke", "li", "mo", "nu", "pe", "ra", "si", "to", "vu"), ("den", "fal", "gor", "han", "jil")
_WORDS = [a + b for a, b in itertools.product(_STARTS, _ENDS)]


def prompt(body: Body) -> str:
    """The user message of a request."""
    return str(body["messages"][-1]["content"])


def json_objects(text: str) -> list[Body]:
    """The JSON objects in a text, from the first to the last, without those inside others."""
    objects, decoder, start = [], json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            content, end = decoder.raw_decode(text, start)
        except ValueError:
            end = start + 1
        else:
            objects.append(content)
        start = text.find("{", end)
    return objects


def is_form(content: Body) -> bool:
    """Whether an object is the form of an answer."""
    return len(content) == 1 and next(iter(content)) in KINDS


def form(body: Body) -> Body:
    """The form of the answer that a prompt asks for."""
    (content,) = [content for content in json_objects(prompt(body)) if is_form(content)]
    return content


def shown(body: Body) -> list[Body]:
    """The rows in a prompt: the examples, and the row to classify."""
    return [content for content in json_objects(prompt(body)) if not is_form(content)]


def kind(body: Body) -> str:
    """What a request asks for: ``values``, ``rows`` or ``label``."""
    return str(next(iter(form(body))))


def requested_label(body: Body) -> str:
    """The label of the rows that a request asks for."""
    return str(form(body)["rows"][0]["label"])


def sentence(*seed: int) -> str:
    """Ten made-up words, different for every seed."""
    return " ".join(np.random.default_rng(seed).choice(_WORDS, 10))


def good(body: Body, number: int, rows: int = 3) -> tuple[int, dict[str, str], str]:
    """The answer of a good model to request ``number``; ``rows`` in an answer."""
    if kind(body) == "values":
        return 200, {}, json.dumps({"values": ["weather", "sports", "music"]})
    if kind(body) == "label":
        positive = "good" in json.dumps(shown(body)[-1])
        return 200, {}, json.dumps({"label": "positive" if positive else "negative"})
    (template,) = form(body)["rows"]
    columns = [name for name in template if name != "label"]
    entries = [
        {column: sentence(number, row, i) for i, column in enumerate(columns)} | {"label": template["label"]}
        for row in range(rows)
    ]
    return 200, {}, json.dumps({"rows": entries})


class Fake:
    """The server's state: the requests that it got, and how it answers.

    Attributes:
        bodies: every request, in order of arrival.
        keys: the Authorization header of each.
        times: monotonic seconds of each.
        most: maximum number of simultaneous requests.
        latency: seconds before each answer.
        usage: whether answers report the tokens used.
    """

    def __init__(self, reply: Reply = good, latency: float = 0.0) -> None:
        self.reply, self.latency = reply, latency
        self.bodies: list[Body] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.most = self._now = 0
        self.usage = True
        self.lock = threading.Lock()
        self.url = ""

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.keys.append(handler.headers.get("Authorization"))
            self.times.append(time.monotonic())
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            if self.latency:
                time.sleep(self.latency)
            answer = self.reply(body, number)
        finally:
            with self.lock:
                self._now -= 1
        if answer is None:
            handler.close_connection = True
            handler.connection.close()
            return
        status, headers, content = answer
        if isinstance(content, str):
            content = self._completion(content) if status == 200 else {"error": {"message": content}}
        self._send(handler, status, headers, json.dumps(content).encode())

    def _completion(self, content: str) -> Body:
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        out: Body = {"id": "x", "object": "chat.completion", "created": 0, "model": "fake-1", "choices": [choice]}
        if self.usage:
            out["usage"] = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        return out

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], raw: bytes) -> None:
        try:
            handler.send_response(status)
            sent = {"Content-Type": "application/json", "Content-Length": str(len(raw))} | headers
            for name, value in sent.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(raw)
        except OSError:
            handler.close_connection = True  # the client is gone: it was killed, or timed out


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    """Runs a server on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            fake.handle(self)

        def log_message(self, format: str, *args: object) -> None:
            """Ignored."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            """Ignored: connections are dropped on purpose."""

    server = Server(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
