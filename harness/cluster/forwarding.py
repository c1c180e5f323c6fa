"""Training in a thread of its own, so that it does not wait until Tune has taken each of its reports."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from queue import SimpleQueue
from typing import Any

Entry = dict[str, Any]


@cache
def _thread() -> ThreadPoolExecutor:
    """The thread of a process in which its trials train, one after the other."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="training")


def run(train: Callable[[Callable[[Entry], None]], None], forward: Callable[[list[Entry]], None]) -> list[Entry]:
    """Trains in another thread and forwards its reports from this one, several at once if they come faster.

    Args:
        train: trains; is given what it has to call with every entry.
        forward: called in this thread with the entries that have come since the last call; may take its time.

    Returns:
        The entries that were not forwarded: the last ones.

    Raises:
        Exception: what ``train`` raised, once the entries before it are forwarded.
    """
    entries: SimpleQueue[Entry | None] = SimpleQueue()
    future: Future[None] = _thread().submit(train, entries.put)
    future.add_done_callback(lambda _: entries.put(None))
    waiting: list[Entry] = []
    while True:
        entry = entries.get()
        if entry is None:
            break
        waiting.append(entry)
        if entries.empty():
            forward(waiting)
            waiting = []
    if future.exception() is not None and waiting:
        forward(waiting)
    future.result()
    return waiting
