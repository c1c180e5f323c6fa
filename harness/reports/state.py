"""Keys that tell whether the report in a folder is up to date with the ledger."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from harness import __version__
from harness.errors import UserError, unknown
from harness.ledger.entries import Entry, Reader
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


def state_key(parent: Entry, entries: Mapping[str, Entry]) -> str:
    """Hash of all inputs of a report: the parent run and, for every trial, the run that is used and its status."""
    runs = sorted((id_, entry.run, entry.status, len(entry.metrics)) for id_, entry in entries.items())
    return digest(__version__, dict(parent.tags), dict(parent.metrics), runs)[:32]


def report_key(folder: Path) -> str | None:
    """The key of the report in ``folder``, or None without a report or a key."""
    page = folder / "report.html"
    if not page.is_file():
        return None
    with page.open(encoding="utf-8") as file:
        match = re.search(r'<meta name="harness-report" content="([0-9a-f]*)">', file.read(4000))
    return match[1] or None if match else None
