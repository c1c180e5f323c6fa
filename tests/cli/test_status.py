"""What `harness status`, `stop`, `retry` and `show --failed` print, and what they do to a ledger."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from harness.cli import app, views
from harness.cli.status import detail, overview, show_failed
from harness.errors import UserError
from harness.ledger import entries
from harness.ledger.entries import Entry
from harness.paths import Paths
from harness.reports.status import FailedTrial, RunningTrial, Status
from tests.reports.fake_ledger import FakeLedger

STATUS = Status(
    experiment="night", state="running", driver_silence=4.0, began=0, ended=None, planned=20, done=11, running=1,
    waiting=5, waiting_for_checkers=3, failed=2, interrupted=1, trials_per_hour=26.4, device="GPU", devices_in_use=2.0,
    device_hours=1.5, device_hours_total=2.0, seconds_left=420.0,
    running_trials=[RunningTrial("0a", "toy · dimp", 0, 2, 5)],
    failed_trials=[FailedTrial("0b", "toy · [imp]", "no [space] left"), FailedTrial("0c", "toy · ce", "NaN")],
)  # fmt: skip


def printed(what: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=120, highlight=False).print(what)
    return out.getvalue()


def changed(**changes: object) -> Status:
    return Status(**(vars(STATUS) | changes))


def test_the_screen_of_an_experiment() -> None:
    text = printed(detail(STATUS, price=4.0))
    assert "the driver was heard of 4 s ago" in text
    assert "11 of 20 trials done · 1 running · 5 waiting (3 for a checker) · 2 failed · 1 interrupted" in text
    assert re.search(r"about 7 min left \(until .*\d\d:\d\d\) · 26 trials an hour · 2 GPUs in use", text)
    assert "1.50 GPU-hours so far, about 2.00 in total · cost 6.00 so far, about 8.00 in total, at 4 a GPU-hour" in text
    assert re.search(r"0a +toy · dimp .* 2 of 5", text)
    assert re.search(r"0b +toy · \[imp\] +no \[space\] left", text), "brackets are no markup"
    assert max(map(len, text.splitlines())) <= 120


def test_a_driver_that_is_not_heard_of() -> None:
    silent = changed(state="silent", driver_silence=720.0, seconds_left=None)
    assert "the driver has not been heard of for 12 min: it was killed, or cannot reach the ledger" in (
        printed(detail(silent)).replace("\n", " ")
    )
    assert "has written no heartbeat" in printed(detail(changed(state="silent", driver_silence=None)))


def test_a_run_that_has_ended_has_no_time_left() -> None:
    ended = changed(state="failed", ended=1000, seconds_left=None)
    assert "an hour" not in printed(detail(ended))
    assert "with failed trials" in printed(detail(ended))


def test_a_line_for_every_experiment() -> None:
    lines = printed(overview([STATUS, changed(experiment="day", ended=0, state="finished", failed=0)])).splitlines()
    assert re.search(r"night +running since .* 11 of 20 +1 +5 +2 +1 +7 min", lines[1])
    assert re.search(r"day +finished .* 11 of 20 +1 +5 +1 *$", lines[2])
    assert "no experiment yet" in printed(overview([]))


@pytest.fixture
def status_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs `harness status` on a ledger in memory; what it printed."""
    ledger = FakeLedger({"toys": {"ce": {0: 0.5, 1: None}}, "games": {"ce": {0: 0.5}}})
    monkeypatch.setattr(entries, "open_reader", lambda uri, home: ledger)

    def call(*words: str) -> str:
        result = CliRunner().invoke(app.app, ["status", *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


def test_json_of_one_and_of_all(status_of: Callable[..., str]) -> None:
    one = json.loads(status_of("toys", "--json"))
    assert (one["experiment"], one["done"], one["waiting"], one["failed_trials"]) == ("toys", 1, 1, [])
    assert {entry["experiment"] for entry in json.loads(status_of("--json"))} == {"toys", "games"}


def test_a_watch_ends_with_the_run(status_of: Callable[..., str]) -> None:
    assert "1 of 2 trials done" in status_of("toys", "--watch")


def test_unknown_experiments_and_contradictions_are_refused(status_of: Callable[..., str]) -> None:
    with pytest.raises(UserError, match=r"no run of the experiment 'toy'.*Did you mean 'toys'"):
        status_of("toy")
    with pytest.raises(UserError, match="found both"):
        status_of("toys", "--watch", "--json")


# -- failed trials ---------------------------------------------------------------------------------------------------


def plan_of(*trials: tuple[str, tuple[str, ...]]) -> SimpleNamespace:
    """As much of a plan as choosing trials needs: ids with their checkers."""
    jobs = [SimpleNamespace(trial=SimpleNamespace(id=id_, checkers=checkers)) for id_, checkers in trials]
    return SimpleNamespace(jobs=jobs, trials={job.trial.id: job for job in jobs}, experiment=SimpleNamespace(name="x"))


PLAN = plan_of(
    ("q", ()), ("nan", ()), ("oom", ()), ("needs q", ("q",)), ("needs oom", ("oom",)), ("done", ("oom",)), ("new", ())
)


@pytest.fixture
def failed_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"nan": "the loss is nan", "oom": "CUDA out of memory", "needs oom": "its checker oom failed"}
    found = {id_: Entry(id_, "FAILED", 0, {"error": text, "harness.trial": id_}) for id_, text in errors.items()}
    found |= {id_: Entry(id_, "FINISHED", 0) for id_ in ("q", "done")}
    monkeypatch.setattr(views, "open_reader", lambda uri, home: SimpleNamespace(trials=lambda keys: found))


@pytest.mark.usefixtures("failed_ledger")
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (None, {"nan", "oom", "needs oom"}),
        ("OUT OF MEMORY", {"oom", "needs oom"}),
        ("nan", {"nan"}),
    ],
)
def test_a_retry_runs_failed_trials_and_those_that_need_them(text: str | None, ids: set[str]) -> None:
    assert views.trials_to_retry(PLAN, Paths.at(Path("/home")), text) == ids


@pytest.mark.usefixtures("failed_ledger")
def test_a_retry_of_an_error_that_did_not_happen_names_those_that_did() -> None:
    with pytest.raises(UserError, match=r"no failed trial has 'disk'.*CUDA out of memory; its checker oom failed"):
        views.trials_to_retry(PLAN, Paths.at(Path("/home")), "disk")
    assert views.trials_to_retry(plan_of(("new", ())), Paths.at(Path("/home")), "disk") == set()


@pytest.mark.usefixtures("failed_ledger")
def test_a_run_says_how_many_failed_before() -> None:
    out = io.StringIO()
    views.failed_before(PLAN, Paths.at(Path("/home")), Console(file=out, width=120))
    assert out.getvalue().startswith("3 trials failed before and will be tried again; `harness show --failed x`")
    views.failed_before(plan_of(("q", ())), Paths.at(Path("/home")), Console(file=(silent := io.StringIO())))
    assert silent.getvalue() == ""


def test_failed_trials_by_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cli.status.read", lambda name, paths: iter([STATUS]))
    out = io.StringIO()
    show_failed("night", Paths.at(Path("/home")), Console(file=out, width=120))
    assert "night: 2 of 20 trials failed" in out.getvalue()
    assert "\n1 x no [space] left\n  0b  toy · [imp]\n" in out.getvalue()


def test_show_wants_a_trial_or_an_experiment() -> None:
    for words in (["show"], ["show", "0a", "--failed", "night"]):
        with pytest.raises(UserError, match="expected a trial id or --failed EXPERIMENT"):
            CliRunner().invoke(app.app, words, catch_exceptions=False)
