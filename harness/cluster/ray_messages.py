"""What Ray writes to the console by itself goes to a file; our own output and Python's stderr stay on the console."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import ray._private.worker

STDERR = 2  # the file descriptor that C++ code writes to


@contextmanager
def ray_messages(file: Path) -> Iterator[None]:
    """Sends Ray's own messages to ``file``; an empty file is removed at the end.

    They come by two ways, past every log level. C++ code writes to file descriptor 2, which becomes the file, while
    ``sys.stderr`` keeps writing to where it wrote before. When a node dies, a thread of the driver prints the last
    lines of the node's state to ``sys.stdout``, also with ``log_to_driver=False``; they go to descriptor 2 instead.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    before = sys.stderr
    _flush(before)
    console = os.dup(STDERR)
    with file.open("ab") as log:
        os.dup2(log.fileno(), STDERR)
    stream = _copy(before, console)
    if stream is not None:
        sys.stderr = stream
    show = ray._private.worker.print_to_stdstream
    ray._private.worker.print_to_stdstream = _write
    try:
        yield
    finally:
        ray._private.worker.print_to_stdstream = show
        _flush(sys.stderr)
        if sys.stderr is stream:
            sys.stderr = before
        os.dup2(console, STDERR)
        os.close(console)
        if file.stat().st_size == 0:
            file.unlink()


def _write(data: dict[str, Any], ignore_prefix: bool) -> None:
    """Takes the place of Ray's function that prints a message of the cluster."""
    text = "\n".join(map(str, data.get("lines", ())))
    os.write(STDERR, f"({data.get('pid')}) {text}\n".encode(errors="replace"))


def _copy(stream: TextIO | None, console: int) -> TextIO | None:
    """A stream like ``stream`` on a copy of a descriptor; None if it does not write to descriptor 2 (under pytest)."""
    try:
        if stream is None or stream.fileno() != STDERR:
            return None
    except (OSError, ValueError):
        return None
    # never closed: Ray gives it to faulthandler, which may write to it until the process ends
    return os.fdopen(os.dup(console), "w", buffering=1, encoding=stream.encoding, errors=stream.errors)


def _flush(stream: TextIO | None) -> None:
    with suppress(OSError, ValueError, AttributeError):
        stream.flush()  # type: ignore[union-attr]
