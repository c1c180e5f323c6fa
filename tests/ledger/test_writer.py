"""The thread that writes trials to the ledger: order, collection, a ledger that is away, back pressure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from harness.errors import UserError
from harness.ledger import writer as module
from harness.ledger.attempts import Outcome, Part
from harness.ledger.writer import Writer
from harness.planning.trials import Job
from tests.ledger.test_mlflow_ledger import job


class FakeLedger:
    """Keeps what is written; can be away, or refuse."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.away, self.refuses = 0, False
        self.gate = threading.Event()
        self.gate.set()

    def write(self, part: Part) -> str:
        self.gate.wait(10)
        if self.refuses:
            raise ValueError("no such experiment")
        if self.away:
            self.away -= 1
            raise ConnectionError("connection refused\nlong explanation")
        self.parts.append(part)
        return part.run or f"run-{part.attempt}"

    def unreachable(self, error: Exception) -> bool:
        return isinstance(error, ConnectionError)

    def epochs(self, of: Job) -> list[float]:
        return [entry["epoch"] for part in self.parts if part.job == of for _, entry in part.entries]


class Made:
    """A writer with its ledger and what it says."""

    def __init__(self, delay: float = 0.0, limit: int = 256) -> None:
        self.ledger = FakeLedger()
        self.failures: list[tuple[str, str]] = []
        self.lines: list[str] = []
        self.writer = Writer(
            self.ledger, lambda job, error: self.failures.append((job.trial.id, error)), self.lines.append, delay, limit
        )

    def trial(self, job: Job, outcome: Callable[[], Outcome] = lambda: Outcome("FINISHED")) -> None:
        self.writer.begin(job)
        for epoch in (1.0, 2.0, 3.0):
            self.writer.evaluated(job.trial.id, {"epoch": epoch})
        self.writer.end(job.trial.id, outcome)


def test_all_that_is_new_of_a_trial_is_written_together() -> None:
    made = Made(delay=30.0)
    for seed in range(5):
        made.trial(job(seed))
    made.writer.drain()
    assert [part.job for part in made.ledger.parts] == [job(seed) for seed in range(5)], "in order, each once"
    assert all(part.outcome is not None and len(part.entries) == 3 for part in made.ledger.parts)


def test_a_trial_is_written_as_it_goes() -> None:
    made = Made()
    made.writer.begin(job())
    deadline = time.monotonic() + 10
    while not made.ledger.parts and time.monotonic() < deadline:
        time.sleep(0.001)
    (begun,) = made.ledger.parts
    assert (begun.run, begun.outcome) == ("", None)
    for epoch in (1.0, 2.0):
        made.writer.evaluated(job().trial.id, {"epoch": epoch})
    made.writer.end(job().trial.id, lambda: Outcome("FINISHED"))
    made.writer.drain()
    assert made.ledger.epochs(job()) == [1.0, 2.0], "in order, each once"
    assert {part.run for part in made.ledger.parts[1:]} == {f"run-{begun.attempt}"}
    assert [part.outcome is not None for part in made.ledger.parts] == [False] * (len(made.ledger.parts) - 1) + [True]


def test_two_attempts_at_a_trial_are_two_runs() -> None:
    made = Made()
    made.trial(job(), lambda: Outcome.interrupted("died"))
    made.trial(job())
    made.writer.drain()
    ends = [(part.attempt, part.outcome.status) for part in made.ledger.parts if part.outcome]
    assert [status for _, status in ends] == ["KILLED", "FINISHED"]
    assert len({attempt for attempt, _ in ends}) == 2


def test_a_ledger_that_is_away_delays_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITS", (0.001,))
    made = Made()
    made.ledger.away = 7
    for seed in range(3):
        made.trial(job(seed))
    made.writer.drain()
    for seed in range(3):
        assert made.ledger.epochs(job(seed)) == [1.0, 2.0, 3.0]
    assert made.ledger.parts[0].repeated
    assert not made.ledger.parts[-1].repeated
    away, back = made.lines
    assert away == "the ledger does not answer; results wait for it, trials go on (connection refused)"
    assert back == "the ledger answers again"


def test_the_run_waits_when_too_much_is_not_written() -> None:
    made = Made(limit=4)
    made.ledger.gate.clear()
    begun: list[int] = []

    def run() -> None:
        for seed in range(20):
            made.writer.begin(job(seed))
            begun.append(seed)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(0.2)
    assert len(begun) in (4, 5), "four wait, one may be in the hands of the thread"
    made.ledger.gate.set()
    thread.join(10)
    assert len(begun) == 20
    made.writer.drain()
    assert len({part.job.trial.id for part in made.ledger.parts}) == 20


def test_a_refusal_ends_the_run_with_its_reason() -> None:
    made = Made()
    made.ledger.refuses = True
    made.writer.begin(job(0))
    with pytest.raises(UserError, match="could not be recorded: no such experiment"):
        made.writer.drain()
    with pytest.raises(UserError, match="could not be recorded"):
        made.writer.begin(job(1))


def test_an_outcome_that_turns_out_to_be_a_failure_is_told() -> None:
    made = Made()
    made.trial(job(), lambda: Outcome.failed("no result in the store"))
    made.writer.drain()
    assert made.failures == [(job().trial.id, "no result in the store")]


def test_files_are_added_to_a_finished_trial() -> None:
    made = Made(delay=30.0)
    made.writer.attach(job(), "run-7", lambda: {"scores.parquet": b"1"})
    made.writer.drain()
    (part,) = made.ledger.parts
    assert (part.run, part.files, part.outcome) == ("run-7", {"scores.parquet": b"1"}, None)
