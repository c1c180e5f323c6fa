"""One Ray Tune run for a whole grid: a trial starts as soon as its checkers are finished."""

from __future__ import annotations

import shutil
import tempfile
import traceback
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune import Callback, FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.search import Searcher

from harness.cluster.nodes import Cluster, CurrentSlots
from harness.cluster.watch import PlaceWatch, SilenceWatch
from harness.cluster.worker_log import WorkerLog, describe_death
from harness.config.resources import Resources
from harness.errors import StoreError, TrialError
from harness.planning.trials import Job
from harness.store import Store

#: Called by a worker with the metrics of every evaluation.
Report = Callable[[dict[str, Any]], None]
#: Trains a trial: job, root of the store, report, folder for Ray's state.
Fit = Callable[[Job, str, Report, Path], None]


class Observer(Protocol):
    """Is called in the driver on every event of a job, one call at a time."""

    def started(self, job: Job) -> None:
        """A job starts, for the first time or again after ``died``."""

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        """An evaluation of a running job."""

    def finished(self, job: Job) -> None:
        """The job's result is in the store."""

    def failed(self, job: Job, error: str, log: str = "") -> None:
        """The job ended without a result; ``log``: the end of what its process printed."""

    def died(self, job: Job, how: str) -> None:
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
        stop: returns true once no more jobs are to be given.
    """

    def __init__(
        self, jobs: list[Job], observer: Observer, limit: Callable[[], int] | None = None,
        stop: Callable[[], Any] = lambda: False,
    ) -> None:  # fmt: skip
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
        kinds = kinds_of_resources(jobs)
        self._kinds = {job.trial.id: kinds.index(job.resources) for job in jobs}
        self._blocked: list[tuple[str, str]] = []  # ids of a job and of its failed checker
        self._running: dict[str, str] = {}
        self._observer, self._stop = observer, stop

    def suggest(self, trial_id: str) -> Any:
        """The next job that can run, None if all wait for checkers or for room, FINISHED without remaining jobs."""
        if self._stop():
            return Searcher.FINISHED
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
            del self._waiting[id_]
            return {"trial": id_, "resources": self._kinds[id_]}
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
    """Translates Tune's callbacks to those of an observer.

    Args:
        jobs: that Tune runs.
        observer: to tell.
        place: is told of trials that fail because of the place they run in.
        silence: finds trials that hang; their processes are ended.
    """

    def __init__(self, jobs: list[Job], observer: Observer, place: PlaceWatch, silence: SilenceWatch[Any]) -> None:
        self._jobs, self._observer = {job.trial.id: job for job in jobs}, observer
        self._place, self._silence = place, silence
        self._hung: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial starts in its actor."""
        self._silence.heard(trial)
        self._observer.started(self._job(trial))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """A trial reported an evaluation."""
        self._silence.heard(trial)
        if isinstance(result.get("entry"), dict):
            self._observer.evaluated(self._job(trial), result["entry"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended, with a result or with an exception."""
        self._silence.ended(trial)
        last = trial.last_result or {}
        if last.get("status") == 1:
            self._place.finished()
            self._observer.finished(self._job(trial))
        else:
            error = str(last.get("error", "the trial ended without reporting a result"))
            self._place.failed(error, bool(last.get("place")))
            self._observer.failed(self._job(trial), error, str(last.pop("log", "")))
        trial.run_metadata.metric_analysis.clear()  # Tune keeps every trial, and so most of what it knows of it
        trial.run_metadata.metric_n_steps.clear()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died; Tune starts it again."""
        self._observer.died(self._job(trial), self._death(trial)[0])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died more often than it may be restarted."""
        how, log = self._death(trial)
        times = f" {trial.num_failures} times, last" if trial.num_failures > 1 else ""
        error = f"the trial's process died{times}: {how}"
        self._place.failed(error, True)
        self._observer.failed(self._job(trial), error, log)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune has served an event, or waited a moment for one."""
        for trial in self._silence.silent():
            self._hung.add(trial.trial_id)
            if trial.temporary_state.ray_actor is not None:
                ray.kill(trial.temporary_state.ray_actor)

    def _death(self, trial: Any) -> tuple[str, str]:
        """How a trial's process ended, and the end of its log."""
        self._silence.ended(trial)
        how, log = describe_death(trial.error_file)
        if trial.trial_id in self._hung:
            self._hung.discard(trial.trial_id)
            how = f"it gave no sign of life for {self._silence.minutes:g} min (resources.silence_minutes) and was ended"
        return how, log

    def _job(self, trial: Any) -> Job:
        return self._jobs[trial.config["trial"]]


def run(
    jobs: list[Job], resources: Resources, store: Store, cluster: Cluster, observer: Observer, scratch: Path,
    stop: Callable[[], Any] = lambda: False, fit: Fit | None = None,
) -> str:  # fmt: skip
    """Runs jobs, in one Tune run, to the end or until the place that they run in fails one after the other.

    Args:
        jobs: checkers before their dependents; checkers that are not among them must be finished. Each runs with its
            own resources.
        resources: of the experiment: how many trials at once, retries, the limit on silence.
        store: with the splits and scores; results are written to it.
        cluster: from ``connect``.
        observer: is told of starts, evaluations and ends.
        scratch: folder for Ray's own files.
        stop: returns true once no more jobs are to be started; running ones end as usual.
        fit: what a worker calls in place of ``train.fit``; for measurements.

    Returns:
        Why it stopped before the end, "" if it did not.
    """
    folder = Path(tempfile.mkdtemp(prefix="tune-", dir=_make_folder(scratch)))
    place = PlaceWatch()
    # Tune unpickles this function for every trial: it must not hold something of every trial
    bundles = [_bundle(kind) for kind in kinds_of_resources(jobs)]
    limit = CurrentSlots(cluster, {job.resources for job in jobs}, resources.most)
    tuner = Tuner(
        tune.with_resources(_trainable(jobs, store.root, folder, fit), lambda config: bundles[config["resources"]]),
        tune_config=TuneConfig(
            # without a fixed number of concurrent trials: nodes may join and leave during the run
            search_alg=DependencySearcher(jobs, observer, limit, lambda: stop() or place.reason),
            num_samples=len(jobs), reuse_actors=True,
        ),
        run_config=RunConfig(
            name="trials", storage_path=str(folder), verbose=0,
            callbacks=[ObserverCallback(jobs, observer, place, SilenceWatch(resources.silence_minutes))],
            failure_config=FailureConfig(max_failures=resources.retries),
        ),
    )  # fmt: skip
    try:
        tuner.fit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return place.reason


def kinds_of_resources(jobs: list[Job]) -> list[Resources]:
    """The different resources that jobs run with."""
    return list(dict.fromkeys(job.resources for job in jobs))


def _bundle(resources: Resources) -> PlacementGroupFactory:
    """What Tune reserves for a trial; the workers of a group reserve their devices themselves."""
    if resources.workers > 1:  # Tune rejects a trial without any resources
        return PlacementGroupFactory([{"memory": 1e8}])
    memory = (resources.memory_gb or 0.0) * 1e9
    return PlacementGroupFactory([{"CPU": resources.cpus, "GPU": resources.gpus, "memory": memory}])


def _trainable(jobs: list[Job], store: str, scratch: Path, fit: Fit | None = None) -> Callable[[dict[str, Any]], None]:
    """The function that a Tune actor calls for each of its trials.

    The jobs are one object of Ray's, so that Tune, which keeps all trials and their settings, keeps only their ids.
    """
    stored = ray.put({job.trial.id: zlib.compress(job.model_dump_json().encode(), 1) for job in jobs})

    def trial(config: dict[str, Any]) -> None:
        job = Job.model_validate_json(zlib.decompress(_fetched(stored)[config["trial"]]))
        _attempt(job, store, scratch, fit or _train)

    return trial


def _attempt(job: Job, store: str, scratch: Path, fit: Fit) -> None:
    """Trains a trial in this process and reports how it ended."""
    log = WorkerLog()
    try:
        fit(job, store, lambda entry: tune.report({"entry": entry}), scratch)
    except Exception as error:  # an error of the trial itself, or of the place: it would fail again
        text = whole = traceback.format_exc()
        output = log.end()
        if isinstance(error, TrialError | StoreError):
            text, output = str(error), f"{output}\n{whole}"
        tune.report({"status": 0, "error": text, "log": output, "place": isinstance(error, StoreError)})
    else:
        tune.report({"status": 1})


@cache
def _fetched(jobs: ray.ObjectRef[dict[str, bytes]]) -> dict[str, bytes]:
    """An object of Ray's, once a process."""
    found: dict[str, bytes] = ray.get(jobs)
    return found


def _train(job: Job, store: str, report: Report, scratch: Path) -> None:
    from harness.cluster import train  # torch, which the driver does without

    train.fit(job, store, report, scratch)


def _make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
