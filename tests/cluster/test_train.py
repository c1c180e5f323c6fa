"""A worker group that loses a process is started again; what a process raises itself is the trial's error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ray.exceptions import RayActorError
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from harness.cluster import train
from harness.errors import TrialError
from harness.planning.trials import Job
from harness.store import Store

from .small import jobs_of

LOST = WorkerHealthCheckFailedError("a worker died", failure=RayActorError())


@pytest.fixture
def job(experiment_file: Callable[..., Path], tmp_path: Path) -> Job:
    file = experiment_file(seeds=[0], grid=[{"source": "generated", "methods": ["ce"]}])
    (job,) = jobs_of(file, Store(str(tmp_path / "store")), "resources.workers=2", "resources.retries=2")
    return job


def attempts(job: Job, errors: list[dict[int, Exception]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    """How often a group is started that fails with these errors, one after the other, and then succeeds."""
    left = list(errors)
    started = 0

    def group(*_: object) -> None:
        nonlocal started
        started += 1
        if left:
            raise WorkerGroupError("failed", left.pop(0))

    monkeypatch.setattr(train, "_fit_group", group)
    train.fit(job, str(tmp_path), lambda entry: None, tmp_path)
    return started


@pytest.mark.parametrize(
    "failures",
    [{0: LOST}, {1: RayActorError()}, {0: RuntimeError("connection closed by peer"), 1: LOST}],
    ids=["unhealthy", "dead", "the other fails with it"],
)
def test_a_lost_process_is_no_failure_of_the_trial(
    failures: dict[int, Exception], job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert attempts(job, [], monkeypatch, tmp_path) == 1
    assert attempts(job, [failures] * 2, monkeypatch, tmp_path) == 3
    with pytest.raises(WorkerGroupError):  # as often as retries say, and not more
        attempts(job, [failures] * 3, monkeypatch, tmp_path)


def test_an_error_of_the_trial_is_not_retried(job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    errors: list[dict[int, Exception]] = [{0: TrialError("the loss is nan"), 1: RuntimeError("connection closed")}]
    with pytest.raises(WorkerGroupError):
        attempts(job, errors, monkeypatch, tmp_path)
