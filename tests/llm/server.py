"""A small OpenAI-compatible server over real HTTP, on a port of its own, that counts and misbehaves as told."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

Body = dict[str, Any]
#: gives (status, headers, content of the answer or an error body); None drops the connection
Reply = Callable[[Body, int], "tuple[int, dict[str, str], str] | None"]
_STARTS, _ENDS = ("ba", "ke", "li", "mo", "nu", "pe", "ra", "si", "to", "vu"), ("den", "fal", "gor", "han", "jil")
_WORDS = [a + b for a, b in itertools.product(_STARTS, _ENDS)]


def kind(body: Body) -> str:
    """Which prompt a request is: ``values``, ``rows`` or ``label``."""
    form = body["messages"][-1]["content"].rsplit("\n", 1)[-1]
    return str(next(iter(json.loads(form))))


def wanted(body: Body) -> tuple[str, int]:
    """The label and the number of rows that a prompt for rows asks for."""
    prompt = body["messages"][-1]["content"]
    label = re.search(r'with the label "([^"]*)"', prompt)
    rows = re.search(r"Write (\d+) new", prompt)
    assert label is not None
    assert rows is not None
    return label[1], int(rows[1])


def sentence(*seed: int) -> str:
    """Ten made-up words, different for every seed."""
    return " ".join(np.random.default_rng(seed).choice(_WORDS, 10))


def good(body: Body, number: int) -> tuple[int, dict[str, str], str]:
    """What a good model answers to request ``number``."""
    if kind(body) == "values":
        return 200, {}, json.dumps({"values": ["weather", "sports", "music"]})
    if kind(body) == "label":
        return 200, {}, json.dumps({"label": "positive" if "good" in _asked(body) else "negative"})
    label, rows = wanted(body)
    form = json.loads(body["messages"][-1]["content"].rsplit("\n", 1)[-1])["rows"][0]
    columns = [name for name, value in form.items() if value == "..."]
    entries = []
    for row in range(rows):
        texts = {column: sentence(number, row, i) for i, column in enumerate(columns)}
        entries.append(texts | {name: label for name in form if name not in columns})
    return 200, {}, json.dumps({"rows": entries})


def _asked(body: Body) -> str:
    return str(body["messages"][-1]["content"].rsplit("\n{", 2)[-2])


class Fake:
    """The server's state: what it was asked, and how it answers.

    Attributes:
        bodies: every request, in order of arrival.
        keys: the Authorization header of each.
        times: monotonic seconds of each.
        most: requests under way at the same time, at most.
        latency: seconds before each answer.
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
        raw = self._completion(body, content) if status == 200 else json.dumps({"error": {"message": content}})
        self._send(handler, status, headers, raw.encode())

    def _completion(self, body: Body, content: str) -> str:
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        out: Body = {"id": "x", "object": "chat.completion", "created": 0, "model": "fake-1", "choices": [choice]}
        if self.usage:
            out["usage"] = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        return json.dumps(out)

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
            handler.close_connection = True  # the client has gone: it was killed, or would not wait


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    """Starts the server on a free port of 127.0.0.1, and ends it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            fake.handle(self)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            """A dropped connection is meant."""

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
