"""Progress and results of ``harness generate``: a bar with rate, remaining time and cost; lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from harness.generation.corpus import Corpus, Estimate
from harness.generation.settings import Generation

QUIET_SECONDS = 30.0  # minimum time between lines about the progress, without a terminal
NOTE_SECONDS = 5.0  # minimum time between notes: many requests report the same failure


class ProgressBar:
    """An observer that prints the progress. A context manager.

    Args:
        console: the console to print on.
        clock: returns seconds, monotonic.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._total = self._done = self._new = 0
        self._start = self._last_line = clock()
        self._last_note = float("-inf")
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self.status = ""

    def __enter__(self) -> ProgressBar:
        if self._console.is_terminal:
            columns = (BarColumn(None), MofNCompleteColumn(), TextColumn("answers, {task.description}"))
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("starting", total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, calls: int) -> None:
        """``calls`` more answers are requested."""
        self._total += calls

    def answered(self, new: bool, cost: float | None) -> None:
        """An answer arrived."""
        self._done += 1
        self._new += new
        now = self._clock()
        rate = self._new / max(now - self._start, 1e-9)
        parts = [f"{rate * 60:.0f} per minute"] if self._new else ["from the journal"]
        if rate:
            parts.append(f"about {timedelta(seconds=round((self._total - self._done) / rate))} left")
        if cost is not None:
            parts.append(f"cost {cost:.4f}")
        self.status = ", ".join(parts)
        if self._bar is not None:
            self._bar.update(self._task, total=self._total, completed=self._done, description=self.status)
        elif now - self._last_line > QUIET_SECONDS:
            self._last_line = now
            self._console.print(f"{self._done} of {self._total} answers, {self.status}", style="dim")

    def note(self, text: str) -> None:
        """Prints a message, e.g. about a retry."""
        if self._clock() - self._last_note > NOTE_SECONDS:
            self._last_note = self._clock()
            self._console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def show_estimate(estimate: Estimate, settings: Generation, out: Console) -> None:
    """Prints the estimate of a run."""
    table = Table("", "expected", "at most", title=f"{settings.n} rows by {settings.sampling.model}: estimate")
    table.add_row("calls", str(estimate.calls), f"{estimate.calls} per round, {settings.max_rounds} rounds")
    table.add_row("answered in the journal", str(estimate.done), "")
    table.add_row("prompt tokens", f"{estimate.tokens_in:,}", "")
    table.add_row("answer tokens", f"{estimate.tokens_out:,}", f"{estimate.max_tokens_out:,}")
    if estimate.cost is not None and estimate.max_cost is not None:
        table.add_row("cost", f"{estimate.cost:.4f}", f"{estimate.max_cost:.4f}")
    else:
        table.add_row("cost", "set limits.price_in and limits.price_out", "")
    out.print(table)
    out.print("No request was sent. Token counts are rather too high; rejected rows need more rounds.")


def show_corpus(corpus: Corpus, settings: Generation, path: str, out: Console) -> None:
    """Prints a summary of the corpus and its path."""
    out.print(f"{len(corpus.rows)} rows: {path}", soft_wrap=True, markup=False)
    if corpus.rejects:
        reasons = ", ".join(f"{reason} {count}" for reason, count in corpus.rejects.items())
        out.print(f"rejected: {reasons}", soft_wrap=True, markup=False)
    usage = corpus.usage
    out.print(f"{usage.calls} answers, {usage.tokens_in:,} prompt and {usage.tokens_out:,} answer tokens")
    if not corpus.complete:
        why = f"{corpus.stopped} was reached" if corpus.stopped else f"{settings.max_rounds} rounds were not enough"
        text = f"Incomplete: {len(corpus.rows)} of {sum(corpus.quotas)} rows; {why}. Run the same command to continue."
        out.print(text, style="yellow", soft_wrap=True)
