"""When a report is out of date: its own trials count, those of other experiments do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.ledger.artifacts import PlannedTrial, PlanRecord
from harness.ledger.entries import Entry
from harness.reports.state import state_key

TRIAL = PlannedTrial(
    trial="imp", benchmark="toy", source="generated", method="imp", label="imp", seed=0, fraction=1.0, variants=[],
    requested=True, quality_checker="quality", diversity_checker=None, threads=1,
)  # fmt: skip
PLAN = PlanRecord("toys", {}, {}, {}, [TRIAL])
PARENT = Entry("parent", "FINISHED", 0, {"command": "harness run toys.yaml"})
ENTRIES = {"imp": Entry("run of imp", "FINISHED", 1), "quality": Entry("run of its checker", "FINISHED", 2)}
KEY = state_key(PARENT, PLAN, ENTRIES)


def test_a_trial_of_another_experiment_does_not_change_the_key() -> None:
    assert state_key(PARENT, PLAN, ENTRIES | {"other": Entry("another run", "FINISHED", 3)}) == KEY


@pytest.mark.parametrize("id_", ["imp", "quality"])
def test_another_run_of_a_planned_trial_or_of_its_checker_changes_the_key(id_: str) -> None:
    assert state_key(PARENT, PLAN, ENTRIES | {id_: replace(ENTRIES[id_], run="a new run")}) != KEY
    assert state_key(PARENT, PLAN, ENTRIES | {id_: replace(ENTRIES[id_], status="FAILED")}) != KEY
    assert state_key(PARENT, PLAN, {other: entry for other, entry in ENTRIES.items() if other != id_}) != KEY


def test_another_plan_or_another_run_of_the_experiment_changes_the_key() -> None:
    assert state_key(PARENT, replace(PLAN, trials=[]), ENTRIES) != KEY
    assert state_key(PARENT, replace(PLAN, settings={"description": "new"}), ENTRIES) != KEY
    assert state_key(replace(PARENT, metrics={"wall_seconds": 1.0}), PLAN, ENTRIES) != KEY
