"""Writes the trials of a run to the ledger in a thread of its own, so that nothing waits for MLflow.

What is new of a trial is collected for a moment and written in a few requests. If the ledger does not answer, writing
waits and goes on; beyond ``LIMIT`` trials that are not written yet, the run waits too, so that memory stays bounded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from harness.errors import UserError
from harness.ledger.attempts import Outcome, Part, now
from harness.planning.trials import Job

#: Trials that may wait for being written.
LIMIT = 256
#: Seconds in which what is new of a trial is collected before it is written.
DELAY = 0.5
#: Seconds between two tries to reach a ledger that does not answer: the first ones, then the last again and again.
WAITS = (1.0, 2.0, 5.0, 10.0)


class Target(Protocol):
    """The ledger that is written to."""

    def write(self, part: Part) -> str:
        """Writes a part; the run id."""

    def unreachable(self, error: Exception) -> bool:
        """Whether the same write can succeed later."""


class _Attempt:
    """An attempt at a trial, and what is not written of it yet."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.outcome: Callable[[], Outcome] | None = None
        self.files: Callable[[], Mapping[str, bytes]] | None = None
        self.since = time.monotonic()


class Writer:
    """Takes what happens to trials, from one thread, and writes it in another.

    Args:
        ledger: to write to.
        failed: called, in the writing thread, with a job whose outcome turns out to be a failure, and the error.
        warn: called, in the writing thread, with a line for the user.
        delay: see ``DELAY``.
        limit: see ``LIMIT``.
    """

    def __init__(
        self, ledger: Target, failed: Callable[[Job, str], None], warn: Callable[[str], None],
        delay: float = DELAY, limit: int = LIMIT,
    ) -> None:  # fmt: skip
        self._ledger, self._failed, self._warn, self._delay, self._limit = ledger, failed, warn, delay, limit
        self._open: dict[str, _Attempt] = {}  # by trial id: attempts that have not ended
        self._waiting: dict[str, _Attempt] = {}  # by attempt: those with something to write, the oldest first
        self._writing = 0
        self._changed = threading.Condition()
        self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    # -- called by the run -----------------------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        """A trial starts. Waits while too much is not written yet.

        Raises:
            UserError: something could not be recorded.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._limit or self._error is not None)
            self._check()
            attempt = self._open[job.trial.id] = _Attempt(Part(job))
            self._put(attempt)

    def evaluated(self, trial: str, entry: Mapping[str, float]) -> None:
        """An evaluation of a trial that has begun."""
        with self._changed:
            attempt = self._open[trial]
            attempt.part = replace(attempt.part, entries=(*attempt.part.entries, (now(), dict(entry))))
            self._put(attempt)

    def end(self, trial: str, outcome: Callable[[], Outcome]) -> None:
        """A trial that has begun ends; ``outcome`` is called in the writing thread."""
        with self._changed:
            attempt = self._open.pop(trial)
            attempt.outcome = outcome
            self._put(attempt)

    def attach(self, job: Job, run: str, files: Callable[[], Mapping[str, bytes]]) -> None:
        """Adds artifacts, by their path, to the MLflow run of a finished trial; ``files`` is called in the thread."""
        with self._changed:
            attempt = _Attempt(Part(job, run=run))
            attempt.files = files
            self._put(attempt)

    def has_begun(self, trial: str) -> bool:
        """Whether an attempt at the trial is open."""
        return trial in self._open

    def begun(self) -> list[str]:
        """The trials with an open attempt."""
        return list(self._open)

    def drain(self) -> None:
        """Writes everything, then ends the thread.

        Raises:
            UserError: something could not be recorded.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        while self._thread.is_alive():  # with a timeout, so that Ctrl-C is heard
            self._thread.join(0.2)
        self._check()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _put(self, attempt: _Attempt) -> None:
        if attempt.part.attempt not in self._waiting:
            attempt.since = time.monotonic()
            self._waiting[attempt.part.attempt] = attempt
        self._changed.notify_all()

    def _check(self) -> None:
        if self._error is not None:
            raise UserError(f"a trial could not be recorded: {self._error}") from self._error

    def _work(self) -> None:
        try:
            while (attempt := self._next()) is not None:
                self._write(attempt)
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _next(self) -> _Attempt | None:
        """The attempt to write next, None at the end."""
        with self._changed:
            while True:
                if self._waiting:
                    first = next(iter(self._waiting.values()))
                    wait = first.since + self._delay - time.monotonic()
                    if wait <= 0 or self._closing or len(self._waiting) >= self._limit // 2:
                        del self._waiting[first.part.attempt]
                        self._changed.notify_all()
                        return first
                    self._changed.wait(wait)
                elif self._closing:
                    return None
                else:
                    self._changed.wait()

    def _write(self, attempt: _Attempt) -> None:
        with self._changed:
            part, outcome = attempt.part, attempt.outcome
            attempt.part = replace(part, entries=())
        if attempt.files is not None:
            part = replace(part, files=attempt.files())
        if outcome is not None:
            part = replace(part, outcome=outcome())
            if part.outcome is not None and part.outcome.status == "FAILED":
                self._failed(part.job, part.outcome.error)
        run = self._until_written(part)
        with self._changed:
            attempt.part = replace(attempt.part, run=run)

    def _until_written(self, part: Part) -> str:
        tries = 0
        while True:
            try:
                run = self._ledger.write(replace(part, repeated=tries > 0))
            except Exception as error:
                if not self._ledger.unreachable(error):
                    raise
                if tries == 0:
                    self._warn(f"the ledger does not answer; results wait for it, trials go on ({_first_line(error)})")
                time.sleep(WAITS[min(tries, len(WAITS) - 1)])
                tries += 1
            else:
                if tries:
                    self._warn("the ledger answers again")
                return run


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
