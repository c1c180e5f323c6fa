"""How far an experiment is: states, time left, cost and heartbeat, worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.ledger.artifacts import PlannedTrial, PlanRecord
from harness.ledger.entries import Entry
from harness.reports.status import FailedTrial, Status, group_errors, read_status, status
from tests.reports.fake_ledger import FakeLedger

NOW = 1_000_000.0  # seconds
BEGAN = NOW - 1800


def planned(id_: str, method: str, checker: str | None = None) -> PlannedTrial:
    return PlannedTrial(
        trial=id_, benchmark="toy", source="generated", method=method, label=method, seed=0, fraction=None, variants=[],
        requested=True, quality_checker=checker, diversity_checker=None, threads=1,
    )  # fmt: skip


PLAN = PlanRecord(
    "toys", {"resources": {"cpus": 4, "gpus": 1.0, "workers": 2}}, {}, {},
    [
        planned("q", "ce"), planned("q2", "ce"), planned("imp", "imp", "q"), planned("imp2", "imp", "q2"),
        planned("dimp", "dimp", "q"), planned("focal", "focal"), planned("gce", "gce"),
    ],
)  # fmt: skip


def ms(seconds_ago: float) -> int:
    return int((NOW - seconds_ago) * 1000)


def entry(id_: str, status: str, started: float, ended: float | None = None, **more: object) -> Entry:
    """An entry of a trial; times in seconds before now."""
    tags = {"harness.trial": id_, "mlflow.runName": f"toy {id_}", "evaluations": "5"} | dict(more.pop("tags", {}))
    return Entry(
        f"run of {id_}", status, ms(started), tags, dict(more.pop("metrics", {})),
        ended=None if ended is None else ms(ended), **more,
    )  # fmt: skip


def parent(status: str = "RUNNING", silent: float = 10.0, **tags: str) -> Entry:
    beat = {"harness.alive": str(ms(silent)), "harness.began": str(int(BEGAN * 1000))}
    return Entry("parent", status, ms(90000), beat | tags, ended=None if status == "RUNNING" else ms(60))


ENTRIES = {
    # 100 s in phases; the NaN of a ledger counts as nothing
    "q": entry("q", "FINISHED", 700, 500, metrics={"seconds_train": 80.0, "seconds_evaluate": 20.0}),
    "imp": entry("imp", "RUNNING", 40, epoch=2),
    "dimp": entry("dimp", "KILLED", 5000, 4000, tags={"error": "interrupted"}),
    "focal": entry("focal", "FAILED", 5000, 4900, tags={"error": "NaN"}),
    "gce": entry("gce", "FAILED", 300, 200, tags={"error": "out of memory"}),
}


def now(**changes: object) -> Status:
    return status(PLAN, replace(parent(), **changes), ENTRIES, NOW)


def test_every_planned_trial_has_one_state() -> None:
    one = now()
    assert (one.planned, one.done, one.running, one.waiting, one.failed, one.interrupted) == (7, 1, 1, 3, 2, 0)
    assert one.waiting_for_checkers == 1, "imp2 waits for q2; q2 and dimp can begin"
    assert [(t.trial, t.name, t.since, t.epoch, t.evaluations) for t in one.running_trials] == [
        ("imp", "toy imp", ms(40), 2, 5)
    ]
    assert [(t.trial, t.error) for t in one.failed_trials] == [("focal", "NaN"), ("gce", "out of memory")]


def test_a_trial_that_was_interrupted_waits_only_while_a_driver_runs() -> None:
    ended = status(PLAN, parent("KILLED"), ENTRIES, NOW)
    assert (ended.state, ended.waiting, ended.interrupted) == ("stopped", 2, 1)
    assert ended.seconds_left is None


def test_time_and_device_hours_follow_from_similar_trials() -> None:
    """One done trial of 100 s: every other is expected to take as long. Two GPUs a trial."""
    one = now()
    # left: imp 60, imp2, dimp, q2 and the failure of an earlier run (focal) 100 each; one at a time
    assert one.seconds_left == pytest.approx(460.0)
    assert (one.device, one.devices_in_use) == ("GPU", 2.0)
    assert one.device_hours == pytest.approx(2 * 140 / 3600)
    assert one.device_hours_total == pytest.approx(2 * 600 / 3600)


def test_trials_of_the_same_method_tell_more_than_others() -> None:
    entries = {**ENTRIES, "imp": entry("imp", "FINISHED", 4000, 3700, metrics={"seconds_train": 300.0})}
    one = status(PLAN, parent(), entries, NOW)
    # imp2 300, q2 100; dimp and focal the mean of all, 200
    assert one.device_hours_total == pytest.approx(2 * (400 + 300 + 100 + 200 + 200) / 3600)
    assert one.seconds_left is None, "nothing runs, so that it is not known how many run at a time"


def test_before_a_trial_is_done_running_ones_give_the_estimate() -> None:
    one = status(PLAN, parent(), {"imp": ENTRIES["imp"]}, NOW)
    assert one.device_hours_total == pytest.approx(7 * 100 * 2 / 3600), "2 of 5 evaluations took 40 s"
    assert status(PLAN, parent(), {}, NOW).device_hours_total is None


def test_the_rate_is_that_of_the_last_hour_or_since_the_start() -> None:
    assert now().trials_per_hour == pytest.approx(2.0), "one in the half hour since the driver began"
    early = parent(**{"harness.began": str(ms(7200))})
    late = {**ENTRIES, "q": replace(ENTRIES["q"], ended=ms(3700))}
    assert status(PLAN, early, ENTRIES, NOW).trials_per_hour == pytest.approx(1.0)
    assert status(PLAN, early, late, NOW).trials_per_hour == 0.0


@pytest.mark.parametrize(
    ("run", "state"),
    [
        (parent(), "running"), (parent(silent=119), "running"), (parent(silent=121), "silent"),
        (parent(**{"harness.alive": ""}), "silent"), (parent(**{"harness.stop": "now"}), "stopping"),
        (parent(silent=121, **{"harness.stop": "now"}), "silent"), (parent("FINISHED"), "finished"),
        (parent("FAILED", silent=500), "failed"), (parent("KILLED"), "stopped"),
    ],
)  # fmt: skip
def test_the_state_of_the_driver(run: Entry, state: str) -> None:
    assert status(PLAN, run, ENTRIES, NOW).state == state


def test_a_run_that_goes_on_has_no_end_though_mlflow_keeps_its_last_one() -> None:
    assert now(ended=ms(7000)).ended is None
    assert status(PLAN, parent("FAILED"), ENTRIES, NOW).ended == ms(60)


def test_a_silent_driver_uses_no_device_and_has_no_end() -> None:
    one = status(PLAN, parent(silent=600), ENTRIES, NOW)
    assert one.driver_silence == pytest.approx(600)
    assert (one.running, one.devices_in_use, one.seconds_left) == (1, 0.0, None)


def test_errors_that_differ_only_in_numbers_ids_and_names_are_one_group() -> None:
    errors = [
        "the loss of row 'a7' is nan at step 3", "OSError: no space", "its checker 0123456789abcdef failed",
        "the loss of row 'b' is nan at step 1e3", "its checker fedcba9876543210 failed",
        "the loss of row 'c' is nan at step 3",
    ]  # fmt: skip
    groups = group_errors(FailedTrial(str(i), "", error) for i, error in enumerate(errors))
    assert [(text, [trial.trial for trial in trials]) for text, trials in groups] == [
        ("the loss of row … is nan at step …", ["0", "3", "5"]),
        ("OSError: no space", ["1"]),
        ("its checker … failed", ["2", "4"]),
    ]


def test_a_ledger_gives_the_plan() -> None:
    ledger = FakeLedger({"toys": {"ce": {0: 0.5, 1: None}, "imp": {0: 0.6, 1: 0.7}}})
    one = read_status("toys", ledger.parents()["toys"], ledger.trials(), ledger, NOW)
    assert (one.state, one.done, one.waiting) == ("finished", 3, 1)
    assert one.device_hours == pytest.approx((10 + 10 + 11) / 3600)
    assert one.device == "CPU core"
