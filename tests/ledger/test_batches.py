"""Finished trials in files: what is read is what MLflow has, whatever happened to the driver."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from harness.ledger import mlflow_ledger, mlflow_reader
from harness.ledger.attempts import Part
from harness.ledger.batches import BATCH, EARLIER, OPEN, batches, pack, unpack
from harness.ledger.entries import Entry, SqliteReader
from harness.ledger.mlflow_ledger import Ledger
from harness.ledger.mlflow_reader import MlflowReader
from tests.ledger.test_mlflow_ledger import begin, empty, fail, finish, job, uri

__all__ = ["empty", "uri"]
NUMBERS = count(100)
#: What may happen to a run: trials begin, finish and fail; the driver is killed, at once or between a batch's file and
#: its tag; it is started again, also without batches; a trial is deleted on MLflow's pages.
STEPS = ("begin", "finish", "finish", "finish", "fail", "kill", "kill in a batch", "go on", "go on without", "delete")


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_ledger, "SIZE", 3)


@pytest.fixture
def driver(uri: str, tmp_path: Path) -> Callable[..., Ledger]:
    def start(batched: bool = True) -> Ledger:
        ledger = Ledger(uri, tmp_path / "home", batched)
        ledger.open("toys", {}, {})
        return ledger

    return start


def parent_tags(ledger: Ledger) -> dict[str, str]:
    return batches(ledger.tags(ledger.parent))


def finish_some(ledger: Ledger, number: int) -> list[str]:
    """Finishes new trials; their run ids."""
    parts = [begin(ledger, job(next(NUMBERS))) for _ in range(number)]
    for part in parts:
        finish(ledger, part)
    return [part.run for part in parts]


def check_same(uri: str, home: Path) -> None:
    """The entries through batches are those of the database, which is read without MLflow."""
    assert MlflowReader(uri, home).trials() == SqliteReader(uri).trials()


class Queries:
    """How many runs all searches gave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found = 0
        search = MlflowClient.search_runs

        def counted(*arguments: object, **options: object) -> object:
            page = search(*arguments, **options)  # type: ignore[arg-type]
            self.found += len(page)
            return page

        monkeypatch.setattr(mlflow_reader.MlflowClient, "search_runs", counted)


def test_finished_trials_come_from_files(
    uri: str, tmp_path: Path, driver: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = driver()
    finish_some(ledger, 7)
    names = parent_tags(ledger)
    assert [path == OPEN for path in names.values()].count(True) == 1
    assert len(names) == 3
    begin(ledger, job(next(NUMBERS)))
    queries = Queries(monkeypatch)
    assert len(MlflowReader(uri, tmp_path / "home").trials()) == 8
    assert queries.found == 1 + 1 + 1, "the running trial, the parent run, and the trial of the open batch"
    check_same(uri, tmp_path / "home")
    ledger.close("FINISHED", {})
    assert OPEN not in parent_tags(ledger).values()
    check_same(uri, tmp_path / "home")


def test_a_batch_that_a_killed_driver_left_is_written_by_the_next(
    uri: str, tmp_path: Path, driver: Callable[..., Ledger]
) -> None:
    first = driver()
    finish_some(first, 2)
    (name,) = parent_tags(first)
    second = driver()
    finish_some(second, 1)
    assert parent_tags(second)[name] != OPEN
    check_same(uri, tmp_path / "home")


def test_trials_from_before_there_were_batches_get_one(
    uri: str, tmp_path: Path, driver: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_some(driver(batched=False), 5)
    assert parent_tags(driver())[EARLIER] != OPEN
    queries = Queries(monkeypatch)
    assert len(MlflowReader(uri, tmp_path / "home").trials()) == 5
    assert queries.found == 1, "the parent run"


def test_a_driver_without_batches_gives_them_up(uri: str, tmp_path: Path, driver: Callable[..., Ledger]) -> None:
    finish_some(driver(), 4)
    local = driver(batched=False)
    assert not parent_tags(local)
    finish_some(local, 1)
    check_same(uri, tmp_path / "home")


def test_a_local_ledger_has_no_batches(uri: str, tmp_path: Path) -> None:
    ledger = Ledger(uri, tmp_path / "home")
    ledger.open("toys", {}, {})
    (run,) = finish_some(ledger, 1)
    assert BATCH not in ledger.tags(run)


def test_a_file_that_is_lost_costs_time_only(uri: str, tmp_path: Path, driver: Callable[..., Ledger]) -> None:
    ledger = driver()
    finish_some(ledger, 4)
    (folder,) = (tmp_path / "home").rglob("batches")
    shutil.rmtree(folder)
    check_same(uri, tmp_path / "home")


def test_a_trial_that_was_deleted_is_left_out(uri: str, tmp_path: Path, driver: Callable[..., Ledger]) -> None:
    ledger = driver()
    run = finish_some(ledger, 4)[1]
    MlflowClient(uri).delete_run(run)
    check_same(uri, tmp_path / "home")
    MlflowClient(uri).restore_run(run)
    check_same(uri, tmp_path / "home")


def test_other_experiments_are_found_with_and_without_batches(uri: str, tmp_path: Path) -> None:
    for number, batched in enumerate((True, False, True)):
        ledger = Ledger(uri, tmp_path / "home", batched)
        ledger.open(f"toys {number}", {}, {})
        finish_some(ledger, 4)
    assert len(MlflowReader(uri, tmp_path / "home").trials()) == 12
    check_same(uri, tmp_path / "home")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(STEPS), min_size=8, max_size=30))
def test_whatever_happens_the_batches_say_what_the_database_says(
    empty: Path, tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    home = tmp_path_factory.mktemp("home")
    shutil.copy(empty, home)
    uri = f"sqlite:///{home / 'mlflow.db'}"

    def start(batched: bool = True) -> Ledger:
        ledger = Ledger(uri, home, batched)
        ledger.open("toys", {}, {})
        return ledger

    ledger, running, done = start(), list[Part](), list[str]()
    for step in steps:
        if step == "begin" or (step in ("finish", "fail") and not running):
            running.append(begin(ledger, job(next(NUMBERS))))
        elif step == "finish":
            part = running.pop(0)
            finish(ledger, part)
            done.append(part.run)
        elif step == "fail":
            fail(ledger, running.pop(0), "it broke")
        elif step == "delete" and done:
            MlflowClient(uri).delete_run(done.pop())
        elif step.startswith(("kill", "go on")):
            if step == "kill in a batch" and ledger._batch:
                kill_between_file_and_tag(ledger)
            ledger, running = start(batched=step != "go on without"), []
        check_same(uri, home)


def kill_between_file_and_tag(ledger: Ledger) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    ledger.set_tags = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        ledger._end_batch()


def test_a_file_has_everything_of_its_trials() -> None:
    entry = Entry(
        "r", "FINISHED", 5, {"label": "café, 'ß'"}, {"loss": 1e-300, "nothing": float("inf")}, "s3://b", "7", 9, 3
    )
    path, content = pack("abc", [entry, replace(entry, run="s", ended=None)])
    assert unpack(content) == [entry, replace(entry, run="s", ended=None)]
    assert path == pack("abc", unpack(content))[0]
    assert path != pack("abc", [entry])[0]
    assert not path.endswith("gz"), "S3 and MLflow would send it uncompressed"
    assert content == pack("abc", unpack(content))[1]
