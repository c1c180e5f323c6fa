"""What a driver and other machines tell each other through the ledger: a heartbeat, and requests to stop.

Both are tags of the parent run, so that they work from any machine that can use the ledger.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Any, Protocol

#: Tags of a parent run: when its driver was last alive, when that driver began (both in milliseconds since the epoch),
#: and the requested stop.
ALIVE, BEGAN, STOP = "harness.alive", "harness.began", "harness.stop"
#: Seconds between two heartbeats, and between two looks for a request to stop.
BEAT_SECONDS, LOOK_SECONDS = 30.0, 5.0
#: Wakes the main thread. Not SIGINT, which a driver started in the background of a script ignores.
WAKE = signal.SIGUSR2


class Stop(StrEnum):
    """How a run is to stop; the value of the tag."""

    NO = ""
    AFTER_RUNNING = "after the running trials"
    NOW = "now"


class TagStore(Protocol):
    """Reads and writes the tags of a run; see ``harness.ledger.mlflow_ledger.Ledger``."""

    def tags(self, run: str) -> Mapping[str, str]:
        """All tags."""

    def set_tags(self, run: str, tags: Mapping[str, str]) -> None:
        """Sets some tags."""


class Signals:
    """Writes a driver's heartbeat and looks for requests to stop, in a thread, as a context manager.

    Entering removes an earlier request to stop. A request to stop now raises KeyboardInterrupt in the main thread, as
    Ctrl-C does. A ledger that is out of reach for a while does not disturb the run.

    Args:
        ledger: reads and writes the tags.
        run: the parent run.
        clock: seconds since the epoch.
    """

    def __init__(self, ledger: TagStore, run: str, clock: Callable[[], float] = time.time) -> None:
        self._ledger, self._run, self._clock = ledger, run, clock
        self._stop = Stop.NO
        self._last_beat = 0.0
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="harness-signals", daemon=True)
        self._handler: Any = None  # the previous handler of WAKE

    def __enter__(self) -> Signals:
        self.beat({BEGAN: str(int(self._clock() * 1000)), STOP: Stop.NO})
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(WAKE, signal.default_int_handler)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._over.set()
        if self._handler is not None:
            signal.signal(WAKE, self._handler)

    def beat(self, tags: Mapping[str, str] | None = None) -> None:
        """Writes that the driver is alive, and other tags with it."""
        self._last_beat = self._clock()
        self._ledger.set_tags(self._run, {ALIVE: str(int(self._last_beat * 1000)), **(tags or {})})

    def look(self) -> None:
        """Reads whether a stop is requested; the first request to stop now interrupts the main thread."""
        stop = Stop(self._ledger.tags(self._run).get(STOP, ""))
        interrupt = stop is Stop.NOW and self._stop is not Stop.NOW
        self._stop = stop or self._stop
        with self._lock:
            if interrupt and self._handler is not None and not self._over.is_set():
                signal.pthread_kill(threading.main_thread().ident or 0, WAKE)

    def stop_requested(self) -> Stop:
        """The requested stop, as of the last look; ``Stop.NO`` is falsy."""
        return self._stop

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            with suppress(Exception):  # every ledger has its own errors; the next round may reach it
                self.look()
            if self._clock() - self._last_beat >= BEAT_SECONDS - LOOK_SECONDS / 2:
                with suppress(Exception):
                    self.beat()
