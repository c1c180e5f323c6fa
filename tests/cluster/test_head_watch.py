"""A head that goes away is reported while there is still a process to report it."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from harness.cluster.head_watch import head_watch


def wait_for(text: str, capsys: pytest.CaptureFixture[str]) -> str:
    shown, end = "", time.monotonic() + 30
    while text not in shown:
        assert time.monotonic() < end, f"only {shown!r}"
        time.sleep(0.01)
        shown += capsys.readouterr().err
    return shown


def test_a_head_that_is_gone_and_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    server = socket.create_server(("127.0.0.1", 0), backlog=100)
    port = server.getsockname()[1]
    with head_watch(f"127.0.0.1:{port}", Path("home/logs/ray.log"), interval=0.01):
        time.sleep(0.1)
        assert capsys.readouterr().err == ""
        server.close()
        lost = wait_for("home/logs/ray.log", capsys)
        assert f"head of the Ray cluster at 127.0.0.1:{port} does not answer. Ray ends this run" in lost
        time.sleep(0.1)
        assert capsys.readouterr().err == "", "once, not at every look"
        with socket.create_server(("127.0.0.1", port), backlog=100):
            wait_for("answers again", capsys)
