"""Keys that tell whether the report in a folder is up to date with the ledger."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from harness import __version__
from harness.errors import UserError, unknown
from harness.ledger.artifacts import PlanRecord
from harness.ledger.entries import Entry, Reader
from harness.ledger.legacy import recover_plan
from harness.store import digest


def find_parent(name: str, reader: Reader) -> Entry:
    """The parent run of an experiment.

    Raises:
        UserError: the ledger has none; with the nearest name that it has.
    """
    parents = reader.parents()
    if name not in parents:
        hint = f" {unknown('experiment', name, parents)}" if parents else ""
        raise UserError(
            f"the ledger {reader.uri} has no run of the experiment {name!r}; start it with `harness run`.{hint}"
        )
    return parents[name]


def read_plan(name: str, parent: Entry, entries: Mapping[str, Entry], reader: Reader) -> PlanRecord:
    """The plan of an experiment, by its parent run and all trials of the ledger."""
    content = reader.artifact(parent, PlanRecord.FILE)
    return PlanRecord.from_bytes(content) if content else recover_plan(name, parent, entries, reader)


def state_key(parent: Entry, plan: PlanRecord, entries: Mapping[str, Entry]) -> str:
    """Hash of all inputs of a report: the parent run, the plan, and the run of every planned trial with its status.

    Trials of other experiments in the same ledger do not count. The checkers of planned trials do.
    """
    checkers = {
        id_ for trial in plan.trials
        for id_ in (trial.quality_checker, trial.diversity_checker, *trial.diversity_folds) if id_
    }  # fmt: skip
    ids = sorted(({trial.trial for trial in plan.trials} | checkers) & entries.keys())
    runs = [(id_, entries[id_].run, entries[id_].status, len(entries[id_].metrics)) for id_ in ids]
    return digest(__version__, dict(parent.tags), dict(parent.metrics), plan.to_bytes().decode(), runs)[:32]


def report_key(folder: Path) -> str | None:
    """The key of the report in ``folder``, or None without a report or a key."""
    page = folder / "report.html"
    if not page.is_file():
        return None
    with page.open(encoding="utf-8") as file:
        match = re.search(r'<meta name="harness-report" content="([0-9a-f]*)">', file.read(4000))
    return match[1] or None if match else None
