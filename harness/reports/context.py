"""What the templates of a report are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from harness.reports import formatting
from harness.reports.results import Results
from harness.reports.tables import Table

if TYPE_CHECKING:  # the first page draws nothing, and finds nothing
    from harness.reports.figures.style import Drawing
    from harness.reports.findings import Findings

EPOCH_RULES = {
    "last": "All numbers are from the last epoch.",
    "best_validation": (
        "All numbers are from the epoch with the best validation accuracy; nothing is selected on the test split."
    ),
}


@dataclass(frozen=True)
class Section:
    """A section of the page: drawings first, then tables."""

    title: str
    drawings: tuple[Drawing, ...]
    tables: tuple[Table, ...]


def page_context(results: Results, sections: Sequence[Section], findings: Sequence[Findings]) -> dict[str, Any]:
    """The variables of the templates ``report.html.j2`` and ``report.md.j2``."""
    meta = results.meta
    once = results.trials.drop_duplicates("trial")
    requested = once[once["requested"].astype(bool)]
    counts = once["status"].value_counts().sort_index()
    return {
        "key": meta.get("key", ""),
        "name": meta.get("name", "experiment"),
        "description": meta.get("description", ""),
        "findings": findings,
        "sections": sections,
        "counts": ", ".join(f"{count} {status}" for status, count in counts.items()) or "none planned",
        "planned": len(requested),
        "checkers": len(once) - len(requested),
        "seeds": formatting.numbers(results.trials["seed"].unique().tolist()),
        "epoch_rule": EPOCH_RULES[meta.get("epoch_rule", "last")],
        "command": meta.get("command", ""),
        "facts": _facts(meta),
        "settings": yaml.safe_dump(meta.get("settings", {}), sort_keys=False, allow_unicode=True, width=100),
    }


def _facts(meta: dict[str, Any]) -> dict[str, str]:
    """Provenance, label -> value; unknown values are left out."""
    dirty = " with uncommitted changes" if meta.get("dirty") else ""
    memory = meta.get("driver_peak_memory_mb")
    wall = meta.get("wall_seconds")
    facts = {
        "Commit": f"{meta['commit']}{dirty}" if meta.get("commit") else "",
        "Started": str(meta.get("started") or ""),
        "Wall time (without killed runs)": formatting.duration(float(wall)) if wall is not None else "",
        "Hardware": str(meta.get("hardware") or ""),
        "Peak memory of the driver": f"{memory:,.0f} MB" if memory is not None else "",
        "Versions": ", ".join(f"{package} {version}" for package, version in meta.get("versions", {}).items()),
    }
    return {label: value for label, value in facts.items() if value}
