"""Says when the head of the cluster is gone: Ray then ends the driver's process without a word."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TIMEOUT = 5.0  # seconds to open a connection
INTERVAL = 5.0  # seconds between two looks
MISSED = 2  # looks in a row without an answer until the user is told


def open_connection(address: str) -> None:
    """Opens a TCP connection to HOST:PORT, and closes it.

    Raises:
        OSError, ValueError, OverflowError: nothing answers, or the address is none.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), TIMEOUT).close()


@contextmanager
def head_watch(address: str, log: Path, interval: float = INTERVAL) -> Iterator[None]:
    """Prints a line to stderr when the head stops answering, and another if it comes back.

    Ray's C++ code waits a minute for a lost head (RAY_gcs_rpc_server_reconnect_timeout_s) and then ends the process;
    nothing in Python, no ``finally`` and no ``atexit``, runs after that.
    """
    stopped = threading.Event()
    thread = threading.Thread(target=_watch, args=(address, log, interval, stopped), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _watch(address: str, log: Path, interval: float, stopped: threading.Event) -> None:
    missed = 0
    while not stopped.wait(interval):
        try:
            open_connection(address)
        except OSError:
            missed += 1
            if missed == MISSED:
                _say(
                    f"the head of the Ray cluster at {address} does not answer. Ray ends this run if it is not back "
                    f"within a minute; the same command then goes on. Ray's own messages: {log}"
                )
        else:
            if missed >= MISSED:
                _say(f"the head of the Ray cluster at {address} answers again")
            missed = 0


def _say(text: str) -> None:
    print(f"harness: {text}", file=sys.stderr, flush=True)
