"""What a generation shows while it runs: a bar with rate, remaining time and cost, or a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from harness.generation.corpus import Corpus, Estimate
from harness.llm.settings import Generation

QUIET_SECONDS = 30.0  # without a terminal, a line about the progress comes at most so often
NOTE_SECONDS = 5.0  # the same trouble of many requests is told once


class Bar:
    """An observer for people. A context manager.

    Args:
        console: where to print.
        clock: seconds, monotonic.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._total = self._done = self._new = 0
        self._begun = self._told = clock()
        self._noted = float("-inf")
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self.status = ""

    def __enter__(self) -> Bar:
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
        """So many answers are wanted next."""
        self._total += calls

    def answered(self, new: bool, cost: float | None) -> None:
        """An answer is there."""
        self._done += 1
        self._new += new
        now = self._clock()
        rate = self._new / max(now - self._begun, 1e-9)
        parts = [f"{rate * 60:.0f} a minute"] if self._new else ["from the journal"]
        if rate:
            parts.append(f"about {timedelta(seconds=round((self._total - self._done) / rate))} left")
        if cost is not None:
            parts.append(f"cost {cost:.4f}")
        self.status = ", ".join(parts)
        if self._bar is not None:
            self._bar.update(self._task, total=self._total, completed=self._done, description=self.status)
        elif now - self._told > QUIET_SECONDS:
            self._told = now
            self._console.print(f"{self._done} of {self._total} answers, {self.status}", style="dim")

    def note(self, text: str) -> None:
        """A trouble that passes."""
        if self._clock() - self._noted > NOTE_SECONDS:
            self._noted = self._clock()
            self._console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def show_estimate(found: Estimate, settings: Generation, out: Console) -> None:
    """What a run will take."""
    table = Table("", "expected", "at most", title=f"{settings.n} rows by {settings.sampling.model}: estimate")
    table.add_row("calls", str(found.calls), f"{found.calls} a round, {settings.max_rounds} rounds")
    table.add_row("of them in the journal", str(found.done), "")
    table.add_row("prompt tokens", f"{found.tokens_in:,}", "")
    table.add_row("answer tokens", f"{found.tokens_out:,}", f"{found.tokens_out_most:,}")
    if found.cost is not None and found.cost_most is not None:
        table.add_row("cost", f"{found.cost:.4f}", f"{found.cost_most:.4f}")
    else:
        table.add_row("cost", "give --price-in and --price-out", "")
    out.print(table)
    out.print("Nothing was asked. Tokens are estimated on the high side; rejected rows take further rounds.")


def show_corpus(corpus: Corpus, settings: Generation, path: str, out: Console) -> None:
    """How it went, and where to look."""
    out.print(f"{len(corpus.rows)} rows: {path}", soft_wrap=True, markup=False)
    if corpus.rejects:
        reasons = ", ".join(f"{reason} {count}" for reason, count in corpus.rejects.items())
        out.print(f"rejected: {reasons}", soft_wrap=True, markup=False)
    usage = corpus.usage
    out.print(f"{usage.calls} answers, {usage.tokens_in:,} prompt and {usage.tokens_out:,} answer tokens")
    if not corpus.complete:
        why = f"{corpus.stopped} was reached" if corpus.stopped else f"{settings.max_rounds} rounds were not enough"
        text = f"Incomplete: {len(corpus.rows)} of {sum(corpus.quotas)} rows; {why}. The same command goes on."
        out.print(text, style="yellow", soft_wrap=True)
