"""What is recorded of trials whose result cannot be read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config.experiment import load
from harness.errors import StoreError
from harness.ledger.attempts import Outcome
from harness.planning.plan import Plan, make
from harness.recorder import Recorder
from harness.store import Store
from tests.ledger.test_writer import FakeLedger


class Console:
    """Shows nothing."""

    def __getattr__(self, name: str):
        return lambda *_: None


@pytest.fixture
def plan(experiment_file) -> Plan:
    return make(load(experiment_file(grid=[{"source": "generated", "methods": ["ce"]}], seeds=[0])), None)


def outcome(plan: Plan, store: Store) -> tuple[Recorder, Outcome]:
    """What is written of the first trial, which has just said that it is finished."""
    ledger = FakeLedger()
    recorder, (job, *_) = Recorder(plan, store, ledger, Console(), {}), plan.jobs
    recorder.started(job)
    recorder.evaluated(job, {"epoch": 1.0})
    recorder.finished(job)
    recorder.close()
    (last,) = (part.outcome for part in ledger.parts if part.outcome)
    return recorder, last


def test_a_result_that_is_not_in_the_store_is_a_failure(plan, tmp_path: Path) -> None:
    recorder, last = outcome(plan, Store(str(tmp_path)))
    assert (last.status, recorder.done, len(recorder.errors)) == ("FAILED", 0, 1)
    assert "check that all workers use this store" in last.error


def test_a_store_that_cannot_be_read_fails_the_trial_and_not_the_run(plan, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("the store does not answer")

    monkeypatch.setattr("harness.training.trial_result.load_result", refuse)
    recorder, last = outcome(plan, Store(str(tmp_path)))
    assert (last.status, last.error) == ("FAILED", "the store does not answer")
    assert list(recorder.errors.values()) == ["the store does not answer"]


def test_trials_that_have_not_ended_are_recorded_as_interrupted(plan, tmp_path: Path) -> None:
    ledger = FakeLedger()
    recorder = Recorder(plan, Store(str(tmp_path)), ledger, Console(), {})
    recorder.started(plan.jobs[0])
    recorder.close()
    (last,) = (part.outcome for part in ledger.parts if part.outcome)
    assert (last.status, last.error) == ("KILLED", "interrupted: the run was stopped")
