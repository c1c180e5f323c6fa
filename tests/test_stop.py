"""`harness stop`, from the command line to a driver whose trials are only pretended."""

from __future__ import annotations

import io
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from harness import driver
from harness.cli import app
from harness.cli.progress import Progress
from harness.config.experiment import load
from harness.errors import RunStoppedError, UserError
from harness.ledger.entries import Entry, open_reader
from harness.ledger.signals import STOP, Signals
from harness.paths import Paths
from harness.planning.plan import make
from harness.planning.trials import Job


def test_a_stop_reaches_the_driver_and_the_next_run_forgets_it(
    experiment_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make(load(experiment_file(grid=[{"source": "generated", "methods": ["ce"]}]), ()), None)
    paths = Paths.at(tmp_path / "home")
    words: list[str] = []
    seen: list[str] = []

    def command(*more: str) -> str:
        arguments = [*more, "--home", str(paths.home), "--tracking-uri", paths.tracking_uri]
        return CliRunner().invoke(app.app, arguments, catch_exceptions=False).output

    def run(todo: list[Job], *others: Any) -> None:
        """Starts the first trial, then `harness stop` is called."""
        recorder, signals = others[-2:]
        assert isinstance(signals, Signals)
        recorder.started(todo[0])
        seen.append(parent().tags[STOP])
        seen.append(command("stop", "small", *words))
        seen.append(command("status", "small"))
        signals.look()
        if words:
            time.sleep(10)
        else:
            assert signals.stop_requested()
            recorder.failed(todo[0], "nan", "log")

    def parent() -> Entry:
        return open_reader(paths.tracking_uri, paths.home).parents()["small"]

    def statuses() -> list[str]:
        return sorted(entry.status for entry in open_reader(paths.tracking_uri, paths.home).trials().values())

    def execute() -> None:
        driver.execute(plan, paths, None, "harness run", Progress(Console(file=io.StringIO())))

    monkeypatch.setattr(driver, "_run", run)
    with pytest.raises(RunStoppedError, match=r"1 of 2 trials are left\. Run the same command to continue\."):
        execute()
    assert (statuses(), parent().status) == (["FAILED"], "KILLED")
    assert "it starts no more trials, and ends after 1 running trial. See `harness status small`." in seen[1]
    assert "a stop is requested; the driver was heard of" in seen[2]
    assert "it ends when the running trials do" in seen[2]
    with pytest.raises(UserError, match="nothing to stop: the last run of 'small' stopped"):
        command("stop", "small")

    words.append("--now")
    with pytest.raises(RunStoppedError, match="2 of 2 trials are left"):
        execute()
    assert seen[3] == "", "the first request is forgotten"
    assert "it ends now, with 1 running trial" in seen[4]
    assert (statuses(), parent().status) == (["KILLED"], "KILLED")


def test_an_interrupt_closes_the_query_that_it_hit(
    experiment_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cursor of a query that was not read to its end keeps a SQLite ledger locked as long as it lives."""
    cursors: list[weakref.ref[Cursor]] = []
    closed: list[bool] = []

    class Cursor:
        """As a local variable of the interrupted function keeps it."""

    class Unwritten:
        """A ledger that writes nothing."""

        parent = "run"

        def abandon(self, why: str) -> None:
            closed.append(cursors[0]() is None)

        def __getattr__(self, name: str) -> Callable[..., float]:
            return lambda *_: 0.0

    def run(*_: object) -> None:
        cursor = Cursor()
        cursors.append(weakref.ref(cursor))
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "_run", run)
    monkeypatch.setattr("harness.ledger.mlflow_ledger.Ledger", lambda uri, home: Unwritten())
    plan = make(load(experiment_file(grid=[{"source": "generated", "methods": ["ce"]}]), ()), None)
    with pytest.raises(KeyboardInterrupt):
        driver.execute(plan, Paths.at(tmp_path), None, "harness run", Progress(Console(file=io.StringIO())))
    assert closed == [True]
