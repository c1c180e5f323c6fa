"""Runs the unfinished trials of a planned experiment on the cluster and writes their results to the ledger."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import yaml
from filelock import FileLock, Timeout

from harness.checkers.scores import load_scores
from harness.config.sources import SOURCES
from harness.data.benchmarks import catalogue
from harness.data.selection import select, select_scored
from harness.data.split import Split
from harness.data.split_files import save_split
from harness.errors import RunStoppedError, UserError
from harness.ledger.artifacts import (
    PlannedTrial,
    PlanRecord,
    Predictions,
    Scores,
    Texts,
    Weights,
    best_epoch,
    to_parquet,
)
from harness.ledger.entries import Entry, finished, open_reader
from harness.ledger.legacy import describe_sources
from harness.methods import methods
from harness.paths import Paths
from harness.planning.estimate import work
from harness.planning.plan import Plan, missing
from harness.planning.trials import Job, describe
from harness.store import Store

if TYPE_CHECKING:  # slow imports that a run without unfinished trials does not need
    import pandas as pd

    from harness.ledger.mlflow_ledger import Ledger
    from harness.ledger.signals import Signals
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

    def end(self) -> None:
        """The run is over."""


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        finished: number of trials that this run finished.
        reused: number of trials that were finished before.
        failed: description -> error of each trial that failed in this run.
    """

    finished: int
    reused: int
    failed: dict[str, str]


def execute(
    plan: Plan, paths: Paths, address: str | None, command: str, console: ProgressObserver,
    only: Collection[str] | None = None,
) -> Summary:  # fmt: skip
    """Runs the unfinished trials of an experiment.

    Args:
        plan: the experiment.
        paths: store, ledger and local folder.
        address: of a Ray cluster; None for RAY_ADDRESS, or else this machine.
        command: the command line, for the record.
        console: shows the progress.
        only: ids of the trials to run, with the checkers that they need; None for all.

    Raises:
        UserError: another run of the same experiment uses this home folder, or the cluster is too small.
        RunStoppedError: `harness stop` has stopped it.
    """
    name = plan.experiment.name
    locks = paths.home / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / f"{name}.lock", timeout=0):
            return _execute(plan, paths, address, command, console, only)
    except Timeout:
        raise UserError(f"another run of the experiment {name!r} is using {paths.home}; wait until it ends") from None


def _execute(
    plan: Plan, paths: Paths, address: str | None, command: str, console: ProgressObserver,
    only: Collection[str] | None,
) -> Summary:  # fmt: skip
    started = time.perf_counter()
    store = Store(paths.store)
    reader = open_reader(paths.tracking_uri, paths.home)
    entries = reader.trials()
    finished_ids = finished(entries)
    left_alone = set() if only is None else plan.trials.keys() - only
    todo = missing(plan, finished_ids | left_alone, store)
    files = plan_files(plan)
    parent = reader.parents().get(plan.experiment.name)
    unchanged = parent is not None and reader.artifact(parent, PlanRecord.FILE) == files[PlanRecord.FILE]
    if not todo and unchanged and parent is not None and parent.status == "FINISHED":
        return Summary(0, len(plan.jobs), {})
    for splits in plan.splits.values():
        for split in splits.values():
            save_split(split, store)

    from harness.ledger.mlflow_ledger import Ledger
    from harness.ledger.provenance import provenance
    from harness.ledger.signals import Signals

    ledger = Ledger(paths.tracking_uri, paths.home)
    ledger.open(plan.experiment.name, provenance(plan.experiment.description, command), files)
    recorder = Recorder(plan, store, ledger, console, {id_: entries[id_] for id_ in finished_ids})
    signals = Signals(ledger, ledger.parent)
    status = "KILLED"
    try:
        if todo:
            with signals:
                _run(todo, plan, paths, store, address, recorder, signals)
        left = [job for job in todo if job.trial.id not in recorder.ended]
        if left and signals.stop_requested():
            raise RunStoppedError
        for job in left:
            recorder.failed(job, "the trial ended without reporting a result; see Ray's log")
        status = "FAILED" if recorder.errors else "FINISHED"
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # a query that an interrupt left open would lock a SQLite ledger
        ledger.abandon("interrupted: the run was stopped")
        if isinstance(error, KeyboardInterrupt | RunStoppedError) and signals.stop_requested():
            count = len(todo) - len(recorder.ended)
            raise RunStoppedError(
                f"{count} of {len(todo)} trials are left. Run the same command to continue."
            ) from None
        raise
    finally:
        console.end()
        metrics = {}
        if todo:
            from harness.training.memory import own_peak_memory_mb

            metrics["driver_peak_memory_mb"] = own_peak_memory_mb()
            metrics["wall_seconds"] = ledger.before("wall_seconds") + time.perf_counter() - started
        ledger.close(status, metrics)
    reused = len((finished_ids & plan.trials.keys()) - {job.trial.id for job in todo})
    return Summary(recorder.done, reused, {describe(plan.trials[i]): text for i, text in recorder.errors.items()})


def _run(
    todo: list[Job], plan: Plan, paths: Paths, store: Store, address: str | None, recorder: Recorder, signals: Signals
) -> None:
    from harness.cluster import tune

    cluster = tune.connect(address, paths.home)
    try:
        tune.check_store(store, cluster)
        recorder.console.begin(todo, cluster.slots(plan.experiment.resources), work(plan))
        tune.run(todo, plan.experiment.resources, store, cluster, recorder, paths.home / "ray", signals.stop_requested)
    finally:
        tune.disconnect()


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
        self.plan, self.store, self.ledger, self.console, self.already = plan, store, ledger, console, already
        self.errors: dict[str, str] = {}
        self.ended: set[str] = set()
        self.done = 0
        self._runs: dict[str, str] = {}

    def started(self, job: Job) -> None:
        """Creates a child run."""
        if job.trial.id not in self.already:
            self._runs[job.trial.id] = self.ledger.begin(job)
        self.console.started(job)

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        """Writes the metrics of an evaluation."""
        if job.trial.id in self._runs:
            self.ledger.epoch(self._runs[job.trial.id], entry)
        self.console.evaluated(job, entry)

    def finished(self, job: Job) -> None:
        """Writes the results of a trial and marks it as finished."""
        from harness.training.trial_result import load_result

        result = load_result(job.trial, self.store)
        if result is None:
            return self.failed(job, f"no result in the store {self.store.root}; check that all workers use this store")
        splits = self.plan.splits[job.trial.task.name]
        scores = score_frames(job, splits, self.store)
        if run := self._runs.pop(job.trial.id, None):
            frames = result_frames(job, result, splits) | scores
            self.ledger.finish(run, result.runtime, result.environment, result.history, frames)
        else:  # recorded earlier: only its scores are new
            self.ledger.attach(self.already[job.trial.id].run, scores)
        self.done += 1
        self.ended.add(job.trial.id)
        self.console.finished(job, result.history[-1])

    def failed(self, job: Job, error: str, log: str = "") -> None:
        """Writes the error, and the end of its process's output, and marks the trial as failed."""
        self.errors[job.trial.id] = error.strip()
        self.ended.add(job.trial.id)
        if job.trial.id not in self.already:
            self.ledger.fail(self._runs.pop(job.trial.id, "") or self.ledger.begin(job), error, log)
        self.console.failed(job, error)

    def died(self, job: Job, how: str) -> None:
        """Marks the child run as interrupted; ``started`` will create another."""
        if run := self._runs.pop(job.trial.id, None):
            self.ledger.interrupt(run, f"the trial's process died and was started again: {how}")
        self.console.died(job, how)


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


def plan_files(plan: Plan) -> dict[str, bytes]:
    """The files of the parent run: plan, experiment (to repeat the run), and the texts of the training rows."""
    experiment = resolved_experiment(plan)
    settings = {key: value for key, value in experiment.items() if key != "benchmarks"}
    trials = [
        PlannedTrial(
            trial=job.trial.id, benchmark=job.trial.task.name, source=job.trial.source, method=job.trial.method.name,
            label=job.label, seed=job.trial.seed, fraction=job.trial.fraction, variants=list(job.variants),
            requested=job.requested, quality_checker=job.trial.quality, diversity_checker=job.trial.diversity,
            threads=job.trial.threads, diversity_folds=list(job.trial.diversity_folds),
        )
        for job in plan.jobs
    ]  # fmt: skip
    benchmarks = {
        name: {
            "labels": list(plan.benchmarks[name].labels),
            "splits": [_outline(split, plan.benchmarks[name].labels) for split in splits.values()],
        }
        for name, splits in plan.splits.items()
    }
    record = PlanRecord(plan.experiment.name, settings, benchmarks, describe_sources(), trials)
    text = yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True)
    files = {PlanRecord.FILE: record.to_bytes(), "experiment.yaml": text.encode()}
    trained = dict.fromkeys(name for row in plan.experiment.grid for name in SOURCES[row.source].splits)
    for name, splits in plan.splits.items():
        rows = select([split for split in trained if split in splits], splits, None, 0)
        files[Texts.file(name)] = to_parquet(Texts.to_frame(rows.ids, rows.texts, rows.pairs))
    return files


def resolved_experiment(plan: Plan) -> dict[str, Any]:
    """The experiment with all settings resolved, so that it repeats the run; catalogue benchmarks stay names."""
    experiment = plan.experiment.model_dump(mode="json")
    names = catalogue()
    experiment["benchmarks"] = [
        entry if isinstance(entry, str) and entry in names
        else spec.model_dump(mode="json", exclude={"limits"}, exclude_none=True)
        for entry, spec in zip(plan.experiment.benchmarks, plan.benchmarks.values(), strict=True)
    ]  # fmt: skip
    for row in experiment["grid"]:
        row["methods"] = [{"name": method["name"], **method["settings"]} for method in row["methods"]]
    return experiment


def _outline(split: Split, labels: Sequence[str]) -> dict[str, Any]:
    counts = np.bincount(split.labels, minlength=len(labels)).tolist()
    return {
        "split": split.name, "rows": len(split), "digest": split.digest,
        "counts": dict(zip(labels, counts, strict=True)),
    }  # fmt: skip
