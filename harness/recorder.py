"""Records the results of a run's trials in the ledger, and shows the progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from harness.checkers.scores import load_scores
from harness.config.sources import SOURCES
from harness.data.selection import select, select_scored
from harness.data.split import Split
from harness.errors import StoreError, TrialError
from harness.ledger.artifacts import Predictions, Scores, Weights, best_epoch
from harness.ledger.attempts import Outcome, parquet
from harness.ledger.entries import Entry
from harness.methods import methods
from harness.planning.plan import Plan
from harness.planning.trials import Job
from harness.store import Store

if TYPE_CHECKING:  # slow imports that a run without unfinished trials does not need
    import pandas as pd

    from harness.ledger.mlflow_ledger import Ledger
    from harness.training.trial_result import TrialResult


class ProgressObserver(Protocol):
    """Shows the progress of a run; calls come one at a time. See also ``harness.cluster.tune.Observer``."""

    def begin(self, jobs: Sequence[Job], slots: int, work: Callable[[Job], float]) -> None:
        """A run of these jobs begins, ``slots`` at a time; ``work`` gives the work of a job in forward-pass rows."""

    def started(self, job: Job) -> None:
        """A job starts."""

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        """An evaluation of a running job."""

    def finished(self, job: Job, last: Mapping[str, float]) -> None:
        """A job has its result; its last evaluation."""

    def failed(self, job: Job, error: str) -> None:
        """A job has failed."""

    def died(self, job: Job, how: str) -> None:
        """A job's process ended and is started again."""

    def note(self, text: str) -> None:
        """A line for the user; may come from any thread."""

    def end(self) -> None:
        """The run is over."""


class Recorder:
    """An observer that writes the results of jobs to the ledger and shows the progress.

    Args:
        plan: the experiment, with the rows of its splits.
        store: with the results of trials.
        ledger: opened.
        console: shows the progress.
        already: entries of trials whose result is in the ledger; they run again only to compute scores, and are not
            recorded again.
    """

    def __init__(
        self, plan: Plan, store: Store, ledger: Ledger, console: ProgressObserver, already: Mapping[str, Entry]
    ) -> None:
        from harness.ledger.writer import Writer

        self.plan, self.store, self.console, self.already = plan, store, console, already
        self.errors: dict[str, str] = {}
        self.ended: set[str] = set()
        self.restarts = 0
        self._last: dict[str, Mapping[str, float]] = {}  # the last evaluation of trials that run
        self._writer = Writer(ledger, self._note, console.note)

    @property
    def done(self) -> int:
        """Number of trials that have ended with a result."""
        return len(self.ended) - len(self.errors)

    def started(self, job: Job) -> None:
        """Opens a child run."""
        if job.trial.id not in self.already:
            self._writer.begin(job)
        self.console.started(job)

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        """Records the metrics of an evaluation."""
        self._last[job.trial.id] = entry
        if self._writer.has_begun(job.trial.id):
            self._writer.evaluated(job.trial.id, entry)
        self.console.evaluated(job, entry)

    def finished(self, job: Job) -> None:
        """Records the results of a trial, and that it is finished."""
        if self._writer.has_begun(job.trial.id):
            self._writer.end(job.trial.id, lambda: self._outcome(job))
        else:  # recorded earlier: only its scores are new
            splits, run = self.plan.splits[job.trial.task.name], self.already[job.trial.id].run
            self._writer.attach(job, run, lambda: parquet(score_frames(job, splits, self.store)))
        self.ended.add(job.trial.id)
        self.console.finished(job, self._last.pop(job.trial.id))

    def failed(self, job: Job, error: str, log: str = "") -> None:
        """Records the error, the end of its process's output, and that the trial has failed."""
        self.errors[job.trial.id] = error.strip()
        self.ended.add(job.trial.id)
        self._last.pop(job.trial.id, None)
        if job.trial.id not in self.already:
            if not self._writer.has_begun(job.trial.id):
                self._writer.begin(job)
            self._writer.end(job.trial.id, lambda: Outcome.failed(error, log))
        self.console.failed(job, error)

    def died(self, job: Job, how: str) -> None:
        """Records that the attempt was interrupted; ``started`` will open another."""
        if self._writer.has_begun(job.trial.id):
            outcome = Outcome.interrupted(f"the trial's process died and was started again: {how}")
            self._writer.end(job.trial.id, lambda: outcome)
        self.restarts += 1
        self.console.died(job, how)

    def close(self, why: str = "interrupted: the run was stopped") -> None:
        """Writes everything that is not written; trials that have not ended are recorded as interrupted.

        Raises:
            UserError: something could not be recorded.
        """
        for trial in self._writer.begun():
            self._writer.end(trial, lambda: Outcome.interrupted(why))
        self._writer.drain()

    def _outcome(self, job: Job) -> Outcome:
        """The result of a trial, from the store."""
        from harness.training.trial_result import load_result

        splits = self.plan.splits[job.trial.task.name]
        try:
            result = load_result(job.trial, self.store)
            if result is None:
                place = self.store.root
                return Outcome.failed(f"no result in the store {place}; check that all workers use this store")
            frames = result_frames(job, result, splits) | score_frames(job, splits, self.store)
        except (StoreError, TrialError) as error:  # the next run reads the result again and does not train
            return Outcome.failed(str(error))
        return Outcome.finished(result.runtime, result.environment, result.history, frames)

    def _note(self, job: Job, error: str) -> None:
        """A trial turns out to have failed when it is written."""
        self.errors.setdefault(job.trial.id, error.strip())


def result_frames(job: Job, result: TrialResult, splits: Mapping[str, Split]) -> dict[str, pd.DataFrame]:
    """Test predictions (last and best epoch on validation) and the weights of the weighed rows, by file name."""
    trial, test = job.trial, splits["test"]
    epochs = {best_epoch(result.history), len(result.history)}
    log_probs = {epoch: result.arrays["test"][epoch - 1] for epoch in epochs}
    frames = {Predictions.FILE: Predictions.to_frame(test.ids, trial.task.labels, test.labels, log_probs)}
    if "weights" in result.arrays:
        rows = select(SOURCES[trial.source].splits, splits, trial.fraction, trial.seed, trial.fold)
        weights = result.arrays["weights"]
        if not methods.get(trial.method.name).weighs_real_rows:  # others keep weight 1
            weighed = set(select(SOURCES[trial.source].weighed, splits, trial.fraction, trial.seed).ids)
            chosen = [position for position, id_ in enumerate(rows.ids) if id_ in weighed]
            rows, weights = rows.take(chosen), weights[:, chosen]
        names = np.array(trial.task.labels)[rows.labels].tolist()
        frames[Weights.FILE] = Weights.to_frame(rows.ids, names, rows.corruptions, weights)
    return frames


def score_frames(job: Job, splits: Mapping[str, Split], store: Store) -> dict[str, pd.DataFrame]:
    """The log-probabilities of the rows that a checker scored, by file name."""
    frames = {}
    for digests in job.scores.values():
        rows = select_scored(tuple(digests), splits, job.trial.fraction, job.trial.seed, job.trial.fold)
        values = load_scores(job.trial.id, digests, store).log_probabilities
        frames[Scores.file(job.trial.id, digests)] = Scores.to_frame(rows.ids, job.trial.task.labels, values)
    return frames
