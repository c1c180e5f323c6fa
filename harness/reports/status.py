"""How far an experiment is, from the ledger alone: states of trials, time left, cost, whether its driver is alive."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from harness.ledger.artifacts import PlannedTrial, PlanRecord
from harness.ledger.entries import ERROR, EVALUATIONS, EXPERIMENT, NAME, TRIAL, Entry, Reader
from harness.ledger.legacy import recover_plan
from harness.ledger.signals import ALIVE, BEGAN, STOP
from harness.phases import Phase

#: The tags and metrics of trials that a status needs.
KEYS = (EXPERIMENT, NAME, ERROR, EVALUATIONS, "test_accuracy", *(phase.key for phase in Phase))
#: Seconds without a heartbeat after which a driver counts as silent: four beats.
SILENT_AFTER = 120.0
HOUR = 3600.0


@dataclass(frozen=True)
class RunningTrial:
    """A trial that runs: its id, its name, since when (milliseconds since the epoch), and how far it is.

    ``evaluations`` is the number that it will have, or None in ledgers of earlier versions.
    """

    trial: str
    name: str
    since: int
    epoch: int
    evaluations: int | None


@dataclass(frozen=True)
class FailedTrial:
    """A trial that failed: its id, its name, and the last line of its error."""

    trial: str
    name: str
    error: str


@dataclass(frozen=True)
class Status:
    """The state of an experiment. Times are milliseconds since the epoch, durations seconds.

    Attributes:
        experiment: its name.
        state: ``running``, ``stopping`` (a stop is requested), ``silent`` (its driver gave no sign for
            ``SILENT_AFTER`` seconds), ``finished``, ``failed`` (ended with failed trials) or ``stopped``.
        driver_silence: seconds since the driver's last heartbeat; None if it has ended, or wrote none.
        began: when the last driver began.
        ended: when it ended; None while it runs.
        planned: number of trials. They are ``done``, ``running``, ``waiting``, ``failed`` or ``interrupted``.
        waiting_for_checkers: how many of the waiting ones need a trial that is not done.
        trials_per_hour: trials finished in the last hour, or since ``began`` if that is less.
        device: ``GPU`` or ``CPU core``.
        devices_in_use: by the running trials.
        device_hours: spent by finished trials in their timed phases, and by running ones since their start.
        device_hours_total: estimate for all trials; None before there is anything to estimate from.
        seconds_left: estimate until all trials are done, with as many at a time as now; None without an estimate.
        running_trials: the running ones, oldest first.
        failed_trials: the failed ones.
    """

    experiment: str
    state: str
    driver_silence: float | None
    began: int
    ended: int | None
    planned: int
    done: int
    running: int
    waiting: int
    waiting_for_checkers: int
    failed: int
    interrupted: int
    trials_per_hour: float
    device: str
    devices_in_use: float
    device_hours: float
    device_hours_total: float | None
    seconds_left: float | None
    running_trials: list[RunningTrial] = field(default_factory=list)
    failed_trials: list[FailedTrial] = field(default_factory=list)

    @property
    def live(self) -> bool:
        """Whether its driver has not ended, as far as the ledger knows."""
        return self.state in ("running", "stopping", "silent")


def read_status(name: str, parent: Entry, entries: Mapping[str, Entry], reader: Reader, now: float) -> Status:
    """The status of an experiment.

    Args:
        name: of the experiment.
        parent: its parent run.
        entries: of all trials of the ledger, with the tags and metrics of ``KEYS``.
        reader: of the ledger, for the plan.
        now: seconds since the epoch.
    """
    content = reader.artifact(parent, PlanRecord.FILE)
    plan = PlanRecord.from_bytes(content) if content else recover_plan(name, parent, reader.trials(), reader)
    return status(plan, parent, entries, now)


def status(plan: PlanRecord, parent: Entry, entries: Mapping[str, Entry], now: float) -> Status:
    """The status of a planned experiment; see ``read_status``."""
    began = int(parent.tags.get(BEGAN) or parent.started)
    state, silence = _driver(parent, now)
    alive = state in ("running", "stopping")
    planned = {trial.trial: trial for trial in plan.trials}
    states = {id_: _trial_state(entries.get(id_), began if alive else None) for id_ in planned}
    counts = Counter(states.values())
    ids: dict[str, list[str]] = {name: [id_ for id_ in planned if states[id_] == name] for name in counts}
    running = sorted((entries[id_] for id_ in ids.get("running", [])), key=lambda entry: entry.started)
    spent = {id_: _seconds(entries[id_]) for id_ in ids.get("done", [])}
    age = {entry.tags[TRIAL]: max(0.0, now - entry.started / 1000) for entry in running}
    devices, device = _devices(plan.settings.get("resources") or {})
    expected = _expected_seconds(planned, spent, {id_: (entries[id_], seconds) for id_, seconds in age.items()})
    again = {id_ for id_ in ids.get("failed", []) if entries[id_].started < began}  # this run tries them again
    open_ids = [id_ for id_ in planned if states[id_] in ("running", "waiting", "interrupted") or id_ in again]
    left = {id_: max(0.0, expected[id_] - age.get(id_, 0.0)) for id_ in open_ids} if expected else None
    hours = devices * (sum(spent.values()) + sum(age.values())) / HOUR
    return Status(
        experiment=plan.name, state=state, driver_silence=silence, began=began,
        ended=None if parent.status == "RUNNING" else parent.ended,  # MLflow keeps the last end of a run that goes on
        planned=len(planned), done=counts["done"], running=counts["running"], waiting=counts["waiting"],
        waiting_for_checkers=sum(not _ready(planned[id_], states) for id_ in ids.get("waiting", [])),
        failed=counts["failed"], interrupted=counts["interrupted"],
        trials_per_hour=_rate([entries[id_] for id_ in spent], began, now), device=device,
        devices_in_use=devices * len(running) if alive else 0.0, device_hours=hours,
        device_hours_total=None if left is None else hours + devices * sum(left.values()) / HOUR,
        seconds_left=_time_left(left, len(running)) if alive and left is not None else None,
        running_trials=[_running_trial(entry) for entry in running],
        failed_trials=[
            FailedTrial(id_, entries[id_].tags.get(NAME, id_), entries[id_].error) for id_ in ids.get("failed", [])
        ],
    )  # fmt: skip


def group_errors(failed: Iterable[FailedTrial]) -> list[tuple[str, list[FailedTrial]]]:
    """Failed trials by the last line of their error, most frequent first; those whose checker failed come last.

    Lines that differ only in numbers, ids or quoted names are one group, shown with ``…`` in their place.
    """
    groups: dict[str, list[FailedTrial]] = {}
    for trial in failed:
        groups.setdefault(re.sub(r"'[^']*'|\b[0-9a-f]{12,}\b|\b\d[\d.e+-]*", "…", trial.error), []).append(trial)
    ordered = sorted(groups.items(), key=lambda item: (item[0].startswith("its checker"), -len(item[1])))
    return [(trials[0].error if len({t.error for t in trials}) == 1 else text, trials) for text, trials in ordered]


def _driver(parent: Entry, now: float) -> tuple[str, float | None]:
    """The state of an experiment's driver, and the seconds since its last heartbeat."""
    ends = {"FINISHED": "finished", "FAILED": "failed"}
    if parent.status != "RUNNING":
        return ends.get(parent.status, "stopped"), None
    silence = max(0.0, now - int(parent.tags[ALIVE]) / 1000) if parent.tags.get(ALIVE) else None
    if silence is None or silence > SILENT_AFTER:
        return "silent", silence
    return ("stopping" if parent.tags.get(STOP) else "running"), silence


def _trial_state(entry: Entry | None, began: int | None) -> str:
    """The state of a planned trial.

    Args:
        entry: its entry, or None.
        began: when the driver began that is running, and will try trials that were interrupted before it; or None.
    """
    if entry is None:
        return "waiting"
    if entry.status == "KILLED":
        return "waiting" if began is not None and entry.started < began else "interrupted"
    return {"FINISHED": "done", "FAILED": "failed"}.get(entry.status, "running")


def _ready(trial: PlannedTrial, states: Mapping[str, str]) -> bool:
    """Whether all checkers of a trial are done."""
    checkers = (trial.quality_checker, trial.diversity_checker, *trial.diversity_folds)
    return all(states.get(checker) == "done" for checker in checkers if checker)


def _seconds(entry: Entry) -> float:
    """The timed phases of a finished trial."""
    values = (entry.metrics.get(phase.key, 0.0) for phase in Phase)
    return sum(value for value in values if not math.isnan(value))


def _devices(resources: Mapping[str, Any]) -> tuple[float, str]:
    """The devices that a trial takes, and their kind."""
    workers = resources.get("workers") or 1
    if resources.get("gpus"):
        return resources["gpus"] * workers, "GPU"
    return float(resources.get("cpus") or 1) * workers, "CPU core"


def _expected_seconds(
    planned: Mapping[str, PlannedTrial], spent: Mapping[str, float], running: Mapping[str, tuple[Entry, float]]
) -> dict[str, float]:
    """The estimated seconds of every planned trial; empty if nothing is known.

    The mean of the most similar trials: of the same benchmark, source and method; else of the same source and method;
    else of all. Without a finished trial, running ones count by the share of their evaluations.
    """
    known = dict(spent) or {
        id_: age * int(entry.tags[EVALUATIONS]) / entry.epoch for id_, (entry, age) in running.items()
        if entry.epoch and entry.tags.get(EVALUATIONS)
    }  # fmt: skip
    if not known:
        return {}
    alike: dict[tuple[str, ...], list[float]] = {}
    for id_, seconds in known.items():
        for key in _similarity(planned[id_]):
            alike.setdefault(key, []).append(seconds)
    means = {key: mean(values) for key, values in alike.items()}
    return {id_: next(means[key] for key in _similarity(trial) if key in means) for id_, trial in planned.items()}


def _similarity(trial: PlannedTrial) -> list[tuple[str, ...]]:
    return [(trial.benchmark, trial.source, trial.label), (trial.source, trial.label), ()]


def _time_left(left: Mapping[str, float], running: int) -> float | None:
    """Seconds until all is done with as many trials at a time as run now; None while none runs."""
    if not left:
        return 0.0
    return max(sum(left.values()) / running, *left.values()) if running else None


def _rate(finished: Iterable[Entry], began: int, now: float) -> float:
    """Trials finished per hour, over the last hour or since ``began``."""
    start = max(now - HOUR, began / 1000)
    count = sum(start <= (entry.ended or 0) / 1000 <= now for entry in finished)
    return count * HOUR / max(now - start, 1.0)


def _running_trial(entry: Entry) -> RunningTrial:
    total = entry.tags.get(EVALUATIONS)
    id_ = entry.tags[TRIAL]
    return RunningTrial(id_, entry.tags.get(NAME, id_), entry.started, entry.epoch, int(total) if total else None)
