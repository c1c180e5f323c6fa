"""Progress of a run: a line for each trial that ends, the share of the work done, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from harness.planning.trials import Job, describe

AT_ONCE = 0.5  # seconds
QUIET_SECONDS = 30.0  # minimum time between lines about the progress, without a terminal


class Progress:
    """Prints a line for each trial that ends; on a terminal, a bar stays below.

    Trials differ in size, so progress is counted in work (rows), and evaluations of running trials count as well. The
    remaining time follows from the work done since the start.

    Args:
        console: where to print.
        clock: returns seconds, monotonic.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._start = self._last_line = clock()
        self._count = self._ended = 0
        self._share: dict[str, float] = {}  # of the work of a running trial
        self._weights: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._bar: Bar | None = None
        self._task = TaskID(0)

    def begin(self, jobs: Sequence[Job], slots: int, work: Callable[[Job], float]) -> None:
        """A run of these jobs begins, ``slots`` at a time; ``work`` gives the work of each, in rows."""
        self._start = self._last_line = self._clock()
        self._weights = {job.trial.id: work(job) for job in jobs}
        self._count = len(jobs)
        when = f"{min(slots, len(jobs))} at a time" if slots else "as soon as the autoscaler has added a node"
        self._console.print(f"{len(jobs)} trial{'s' * (len(jobs) != 1)} to run, {when}")
        if self._console.is_terminal:
            columns = (BarColumn(None), TextColumn("{task.percentage:3.0f} %"), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("starting", total=1.0)
            self._bar.start()

    def started(self, job: Job) -> None:
        """A trial starts."""
        self._started[job.trial.id] = self._clock()
        self._share[job.trial.id] = 0.0

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        """A running trial was evaluated."""
        self._share[job.trial.id] = min(1.0, entry["epoch"] / job.trial.evaluations)
        self._refresh()
        if self._bar is None and self.done >= 0.01 and self._clock() - self._last_line > QUIET_SECONDS:
            self._print(f"{self.done:.0%} done, {self._left()}", "dim")

    def finished(self, job: Job, last: Mapping[str, float]) -> None:
        """A trial has its result."""
        self._end(job, f"accuracy {last['test_accuracy']:.3f}, macro F1 {last['test_f1']:.3f}", "")

    def failed(self, job: Job, error: str) -> None:
        """A trial failed."""
        lines = error.strip().splitlines() or ["unknown error"]
        self._end(job, f"FAILED: {lines[-1]}", "red")

    def died(self, job: Job, how: str) -> None:
        """A trial's process died and is started again."""
        self._share[job.trial.id] = 0.0
        self._print(f"{describe(job)}: its process died; starting it again ({how})", "yellow")

    def note(self, text: str) -> None:
        """A line for the user."""
        self._print(text, "dim")

    def end(self) -> None:
        """The run is over."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    @property
    def done(self) -> float:
        """The share of the work that is done, in [0, 1]."""
        total = sum(self._weights.values())
        return sum(self._weights.get(id_, 0.0) * share for id_, share in self._share.items()) / total if total else 1.0

    def remaining(self) -> float | None:
        """Estimated seconds left, from the work done since the start; None before the first progress."""
        done = self.done
        return (self._clock() - self._start) * (1.0 - done) / done if done > 0 else None

    def _left(self) -> str:
        seconds = self.remaining()
        return "" if seconds is None else f"about {duration(seconds)} left"

    def _end(self, job: Job, text: str, style: str) -> None:
        took = self._clock() - self._started.pop(job.trial.id, self._clock())
        self._share[job.trial.id] = 1.0
        if took < AT_ONCE:  # its result was in the store already: that says nothing of the time of the others
            self._weights[job.trial.id] = 0.0
        self._ended += 1
        left = self._left() if self._ended < self._count else f"all done in {duration(self._clock() - self._start)}"
        width = len(str(self._count))
        line = f"[{self._ended:>{width}}/{self._count}] {describe(job)}: {text} ({duration(took)}; {left})"
        self._print(line, style)
        self._refresh()

    def _print(self, line: str, style: str) -> None:
        self._last_line = self._clock()
        self._console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    def _refresh(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, description=self._left())


def duration(seconds: float) -> str:
    """Seconds as text: ``40 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 99.5:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
