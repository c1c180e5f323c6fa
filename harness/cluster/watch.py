"""When a run should start no further trials, and which trials have gone silent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: Trials in a row that may fail because of the place they run in.
LIMIT = 3


class PlaceWatch:
    """Stops a run where the place fails and not the trials: a full disk, a store that is away, workers that die.

    Every further trial would be trained and then lost.

    Args:
        limit: failures in a row.

    Attributes:
        reason: why no further trial should start; "" as long as they should.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.reason = ""
        self._limit = limit
        self._failures = 0

    def finished(self) -> None:
        """A trial has its result."""
        self._failures = 0

    def failed(self, error: str, place: bool) -> None:
        """A trial has failed, because of its ``place`` or of itself."""
        if not place:
            return
        self._failures += 1
        if self._failures == self._limit:
            last = error.strip().splitlines()[-1] if error.strip() else "unknown error"
            self.reason = f"{self._limit} trials in a row failed because of the place they ran in. The last: {last}"


class SilenceWatch(Generic[T]):
    """Finds trials that have given no sign of life for too long.

    Args:
        minutes: the limit; None for no limit.
        clock: returns seconds, monotonic.
    """

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.minutes = minutes
        self._limit = None if minutes is None else 60.0 * minutes
        self._clock = clock
        self._heard: dict[T, float] = {}
        self._looked = clock()

    def heard(self, trial: T) -> None:
        """A trial starts, or was evaluated."""
        self._heard[trial] = self._clock()

    def ended(self, trial: T) -> None:
        """A trial has ended."""
        self._heard.pop(trial, None)

    def silent(self) -> list[T]:
        """The trials beyond the limit, each once; looked for every few seconds."""
        now = self._clock()
        if self._limit is None or now - self._looked < min(5.0, self._limit):
            return []
        self._looked = now
        silent = [trial for trial, heard in self._heard.items() if now - heard > self._limit]
        for trial in silent:
            del self._heard[trial]
        return silent
