"""Jobs of the tiny grid, and what is compared of their results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.config.experiment import load
from harness.data.split_files import save_split
from harness.planning.plan import make
from harness.planning.trials import Job
from harness.store import Store
from harness.training.trial_result import TrialResult, load_result


class Listener:
    """An observer that records its calls."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.errors: dict[str, str] = {}
        self.logs: dict[str, str] = {}
        self.entries: dict[str, list[dict[str, float]]] = {}

    def started(self, job: Job) -> None:
        self.events.append(("started", job.trial.id))

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        self.entries.setdefault(job.trial.id, []).append(dict(entry))

    def finished(self, job: Job) -> None:
        self.events.append(("finished", job.trial.id))

    def failed(self, job: Job, error: str, log: str = "") -> None:
        self.events.append(("failed", job.trial.id))
        self.errors[job.trial.id] = error
        self.logs[job.trial.id] = log

    def died(self, job: Job, how: str) -> None:
        self.events.append(("died", job.trial.id))


def jobs_of(file: Path, store: Store, *overrides: str) -> list[Job]:
    """The jobs of an experiment, whose splits are then in the store."""
    plan = make(load(file, overrides), None)
    for splits in plan.splits.values():
        for split in splits.values():
            save_split(split, store)
    return plan.jobs


def result_of(job: Job, store: Store) -> TrialResult:
    """The stored result of a job; it must be there."""
    result = load_result(job.trial, store)
    assert result is not None, f"{job.label} left no result in {store.root}"
    return result


def assert_same_bits(jobs: list[Job], one: Store, other: Store) -> None:
    """Histories, predictions and weights of all jobs are equal, bit for bit."""
    for job in jobs:
        a, b = result_of(job, one), result_of(job, other)
        assert a.history == b.history, job.label
        assert a.arrays.keys() == b.arrays.keys()
        for name, values in a.arrays.items():
            assert values.dtype == b.arrays[name].dtype
            np.testing.assert_array_equal(values, b.arrays[name], err_msg=f"{job.label}: {name}")
