"""One Ray Tune run for a whole grid: a trial starts as soon as its checkers are finished."""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune import Callback, FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.search import Searcher

from harness.cluster.nodes import Cluster, CurrentSlots
from harness.config.experiment import Resources
from harness.errors import TrialError
from harness.planning.trials import Job
from harness.store import Store


class Observer(Protocol):
    """Is called in the driver on every event of a job, one call at a time."""

    def started(self, job: Job) -> None:
        """A job starts, for the first time or again after ``died``."""

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        """An evaluation of a running job."""

    def finished(self, job: Job) -> None:
        """The job's result is in the store."""

    def failed(self, job: Job, error: str) -> None:
        """The job ended without a result."""

    def died(self, job: Job) -> None:
        """The job's process ended; it will be started again."""


class _Stateless:
    """Pickles to nothing: Tune pickles its parts in order to resume, but a run is resumed from the ledger."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class DependencySearcher(_Stateless, Searcher):
    """Gives jobs to Tune, each as soon as its checkers are finished.

    Args:
        jobs: the jobs to run, in the preferred order; checkers that are not among them count as finished.
        observer: is told of jobs that cannot run because a checker failed.
        limit: largest number of jobs at once; it is called again and again, because nodes join and leave.
    """

    def __init__(self, jobs: list[Job], observer: Observer, limit: Callable[[], int] | None = None) -> None:
        super().__init__(metric="status", mode="max")
        self._limit = limit
        self._waiting = {job.trial.id: job for job in jobs}
        self._order = {id_: position for position, id_ in enumerate(self._waiting)}
        self._missing = {id_: set(job.trial.checkers) & self._waiting.keys() for id_, job in self._waiting.items()}
        self._dependents: dict[str, list[str]] = {}
        for id_, checkers in self._missing.items():
            for checker in checkers:
                self._dependents.setdefault(checker, []).append(id_)
        self._ready = [
            position for id_, position in self._order.items() if not self._missing[id_]
        ]  # sorted, and so a heap
        self._ids = list(self._waiting)
        self._blocked: list[tuple[str, str]] = []  # ids of a job and of its failed checker
        self._running: dict[str, str] = {}
        self._observer = observer

    def suggest(self, trial_id: str) -> Any:
        """The next job that can run, None if all wait for checkers or for room, FINISHED without remaining jobs."""
        while self._blocked:
            id_, checker = self._blocked.pop(0)
            job = self._waiting.pop(id_, None)
            if job is not None:
                self._close(id_, failed=True)
                self._observer.failed(job, f"its checker {checker} failed")
        if self._ready and self._limit is not None and len(self._running) >= self._limit():
            return None
        if self._ready:
            id_ = self._ids[heappop(self._ready)]
            self._running[trial_id] = id_
            return {"job": self._waiting.pop(id_).model_dump_json()}
        return None if self._waiting else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Releases the jobs that waited for this one."""
        self._close(self._running.pop(trial_id), failed=error or (result or {}).get("status") != 1)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the record."""

    def _close(self, id_: str, failed: bool) -> None:
        for dependent in self._dependents.pop(id_, ()):
            if failed:
                self._blocked.append((dependent, id_))
            else:
                self._missing[dependent].discard(id_)
                if not self._missing[dependent] and dependent in self._waiting:
                    heappush(self._ready, self._order[dependent])


class ObserverCallback(_Stateless, Callback):
    """Translates Tune's callbacks to those of an observer."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial starts in its actor."""
        self._observer.started(_job(trial))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """A trial reported an evaluation."""
        if isinstance(result.get("entry"), dict):
            self._observer.evaluated(_job(trial), result["entry"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended, with a result or with an exception."""
        last = trial.last_result or {}
        if last.get("status") == 1:
            self._observer.finished(_job(trial))
        else:
            self._observer.failed(_job(trial), str(last.get("error", "the trial ended without reporting a result")))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died; Tune starts it again."""
        self._observer.died(_job(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died more often than it may be restarted."""
        self._observer.failed(
            _job(trial), f"the trial's process died {trial.num_failures} times: killed, or out of memory"
        )


def run(
    jobs: list[Job], resources: Resources, store: Store, cluster: Cluster, observer: Observer, scratch: Path
) -> None:
    """Runs jobs to the end, in one Tune run.

    Args:
        jobs: checkers before their dependents; checkers that are not among them must be finished.
        resources: of one trial.
        store: with the splits and scores; results are written to it.
        cluster: from ``connect``.
        observer: is told of starts, evaluations and ends.
        scratch: folder for Ray's own files.
    """
    folder = Path(tempfile.mkdtemp(prefix="tune-", dir=_make_folder(scratch)))
    grouped = resources.workers > 1
    bundle = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": (resources.memory_gb or 0.0) * 1e9}
    if grouped:  # its workers take the devices; Tune rejects a trial without any resources
        bundle = {"memory": 1e8}
    function = _trainable(store.root, resources, folder)
    tuner = Tuner(
        tune.with_resources(function, PlacementGroupFactory([bundle])),
        tune_config=TuneConfig(
            # without a fixed number of concurrent trials: nodes may join and leave during the run
            search_alg=DependencySearcher(jobs, observer, CurrentSlots(cluster, resources)), num_samples=len(jobs),
            reuse_actors=True,
        ),
        run_config=RunConfig(
            name="trials", storage_path=str(folder), callbacks=[ObserverCallback(observer)], verbose=0,
            failure_config=FailureConfig(max_failures=resources.retries),
        ),
    )  # fmt: skip
    try:
        tuner.fit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _trainable(store: str, resources: Resources, scratch: Path) -> Callable[[dict[str, Any]], None]:
    """The function that a Tune actor calls for each of its trials."""

    def trial(config: dict[str, Any]) -> None:
        from harness.cluster import train  # torch, which the driver does without

        job = Job.model_validate_json(config["job"])
        try:
            train.fit(job, store, resources, lambda entry: tune.report({"entry": entry}), scratch)
        except Exception as error:  # an error of the trial itself: it would fail again
            text = str(error) if isinstance(error, TrialError) else traceback.format_exc()
            tune.report({"status": 0, "error": text})
        else:
            tune.report({"status": 1})

    return trial


def _job(trial: Any) -> Job:
    return Job.model_validate_json(trial.config["job"])


def _make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
