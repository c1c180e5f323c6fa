"""The page over all experiments of a results folder, made from the folders of their reports alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from filelock import FileLock

from harness.errors import UserError
from harness.files import write_atomically
from harness.metrics import PRIMARY
from harness.reports import formatting
from harness.reports.folder import is_report, read_folder, read_trials
from harness.reports.grid import (
    BASELINE,
    Cells,
    Key,
    at_largest_fraction,
    baseline_of,
    by_seed,
    compare,
    is_complete,
    requested,
)
from harness.reports.rendering import environment
from harness.reports.statistics import Summary, summarize

TEST = PRIMARY.column("test")
FILE = "index.html"


@dataclass(frozen=True)
class Best:
    """The best method on a source; its gain over CE on the same source is empty for CE itself."""

    benchmark: str
    source: str
    method: str
    score: str
    gain: str
    interval: str


@dataclass(frozen=True)
class IndexEntry:
    """An experiment on the page. ``problem`` is the error of results that cannot be read."""

    name: str
    link: str
    description: str
    started: str
    planned: int = 0
    finished: int = 0
    failed: int = 0
    best: tuple[Best, ...] = ()
    problem: str = ""


def write_index(results: Path) -> Path:
    """Write ``index.html`` over all reports in the subfolders of ``results``, and return its path.

    Reading and writing are under a lock: of several runs that end at the same time, the last one to write sees the
    reports of all.
    """
    results.mkdir(parents=True, exist_ok=True)
    with FileLock(results / ".index.lock"):
        page = environment().get_template(f"{FILE}.j2").render(entries=entries(results), metric=PRIMARY.title)
        write_atomically(results / FILE, page.encode())
    return results / FILE


def entries(results: Path) -> list[IndexEntry]:
    """The experiments with a report in a subfolder of ``results``: the newest first, undated ones last by name."""
    found = [_entry(folder) for folder in sorted(results.iterdir()) if is_report(folder)]
    return sorted(found, key=lambda entry: entry.started, reverse=True)


def best_by_source(trials: pd.DataFrame) -> list[Best]:
    """The method with the highest mean on every benchmark, variant and source, at the largest share of real rows.

    Methods with unfinished trials count only where no method has finished all of its trials.
    """
    cells = requested(trials)
    means = {key: summarize(by_seed(cells[key], TEST).to_numpy()) for key in at_largest_fraction(cells)}
    groups: dict[Key, list[Key]] = {}
    for key, summary in means.items():
        if summary.n:
            groups.setdefault(key._replace(method="", fraction=None), []).append(key)
    return [_best(group, cells, means) for group in groups.values()]


def _best(group: list[Key], cells: Cells, means: Mapping[Key, Summary]) -> Best:
    complete = [key for key in group if is_complete(cells[key])]
    best = max(complete or group, key=lambda key: means[key].mean)
    base = baseline_of(best, cells)
    gain = interval = ""
    if base is not None and best.method != BASELINE:
        pair = compare(cells, best, base, TEST)
        gain, interval = formatting.points(pair.mean), formatting.point_interval(pair.interval)
    benchmark = ", ".join(part for part in (best.benchmark, best.variant) if part)
    score = f"{formatting.spread(means[best])} ({means[best].n})"
    return Best(benchmark, best.source, best.method, score, gain, interval)


def _entry(path: Path) -> IndexEntry:
    folder = read_folder(path)
    entry = IndexEntry(path.name, f"{quote(path.name)}/{quote(folder.page)}", folder.description, folder.started)
    try:
        trials = read_trials(path)
    except UserError as error:
        return replace(entry, problem=str(error).replace(f"{path.parent}/", ""))
    once = trials.drop_duplicates("trial")
    counts = once.loc[once["requested"], "status"].value_counts()
    return replace(
        entry,
        planned=int(counts.sum()),
        finished=int(counts.get("finished", 0)),
        failed=int(counts.get("failed", 0)),
        best=tuple(best_by_source(trials)),
    )
