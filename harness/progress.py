"""What a run shows: one line a finished trial, how far it is, and when it will be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

from harness.trials import Job, describe


class Progress:
    """Prints a line for each trial that ends.

    The remaining time is estimated from the work done so far; trials differ in size, so work is counted in rows.

    Args:
        console: where to print.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._total = self._done = 0
        self._work: Callable[[Job], float] = lambda job: 1.0
        self._remaining = self._worked = 0.0
        self._started: dict[str, float] = {}
        self._busy = 0.0
        self._slots = 1

    def begin(self, jobs: Sequence[Job], slots: int, work: Callable[[Job], float]) -> None:
        """A run of these jobs begins, so many at a time."""
        self._total, self._work, self._slots = len(jobs), work, slots
        self._remaining = sum(work(job) for job in jobs)
        self.console.print(f"{len(jobs)} trials, {slots} at a time", style="dim")

    def started(self, job: Job) -> None:
        """A trial starts."""
        self._started[job.trial.id] = time.monotonic()

    def finished(self, job: Job, last: Mapping[str, float]) -> None:
        """A trial has its result."""
        text = f"accuracy {last['test_accuracy']:.3f}  F1 {last['test_f1']:.3f}"
        self._line(job, text, "green")

    def failed(self, job: Job, error: str) -> None:
        """A trial failed."""
        lines = error.strip().splitlines() or ["unknown error"]
        self._line(job, f"FAILED: {lines[-1]}", "red")

    def died(self, job: Job) -> None:
        """A trial's process died and is started again."""
        self.console.print(f"{describe(job)}: the process died; starting it again", style="yellow")

    def end(self) -> None:
        """The run is over."""

    def _line(self, job: Job, text: str, style: str) -> None:
        took = time.monotonic() - self._started.pop(job.trial.id, time.monotonic())
        self._done += 1
        self._busy += took
        self._worked += self._work(job)
        self._remaining -= self._work(job)
        eta = self._busy / self._worked * self._remaining / self._slots if self._worked else 0.0
        left = f"about {duration(eta)} left" if self._done < self._total else "done"
        count = f"[{self._done:>{len(str(self._total))}}/{self._total}]"
        self.console.print(count, f"{describe(job)}: {text}  ({took:.0f} s; {left})", style=style, markup=False,
                           highlight=False, soft_wrap=True)  # fmt: skip


def duration(seconds: float) -> str:
    """Seconds as people say them: ``40 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
