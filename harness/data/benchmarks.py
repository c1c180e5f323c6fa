"""The catalogue of benchmarks, and a benchmark's finished splits: read, cleaned, divided, checked, cached."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from harness.config.benchmark import Benchmark, CorruptedSplit, DataSource, PoolSplit, anchor_files
from harness.config.schema import parse, read_yaml
from harness.data import split_files
from harness.data.cleaning import clean
from harness.data.corruptions import KINDS, corrupt
from harness.data.near_duplicates import groups, matches
from harness.data.partition import limit, partition
from harness.data.readers import fingerprint, package_folder, read
from harness.data.split import IntArray, Split
from harness.errors import UserError, unknown

log = logging.getLogger(__name__)

#: Split name -> its rows, and notes on how they came to be.
SplitsWithNotes = dict[str, tuple[Split, list[str]]]

_HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class SplitSummary:
    """One line about a split.

    Attributes:
        split: its name.
        rows: how many.
        counts: label -> rows.
        digest: 64 hex digits.
        notes: how the split came to be.
    """

    split: str
    rows: int
    counts: dict[str, int]
    digest: str
    notes: tuple[str, ...]


def catalogue() -> dict[str, Path]:
    """Name -> YAML file of every known benchmark: those of this package and those of installed packages.

    The value of an entry point of the group ``harness.benchmarks`` is a package; its YAML files are benchmarks.
    """
    folders = [Path(__file__).parent / "benchmarks"]
    folders += [package_folder(point.value) for point in metadata.entry_points(group="harness.benchmarks")]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def resolve(entry: str | Benchmark) -> Benchmark:
    """A benchmark from its catalogue name or the path of its YAML file; a ``Benchmark`` is returned unchanged.

    Raises:
        UserError: the name is unknown, or the file is missing or is not a valid benchmark.
    """
    if isinstance(entry, Benchmark):
        return entry
    known = catalogue()
    if not entry.endswith((".yaml", ".yml")) and entry not in known:
        raise unknown("benchmark", entry, known)
    path = known.get(entry) or Path(entry)
    raw = read_yaml(path, anchor_files)
    raw.setdefault("name", path.stem)
    return parse(Benchmark, raw, str(path))


def outline(benchmark: Benchmark) -> dict[str, str]:
    """Split name -> where its rows come from, in words. Reads no data."""
    out = {}
    for name, entry in benchmark.splits.items():
        if isinstance(entry, PoolSplit):
            rows = f"{entry.rows} rows" if entry.rows else "the rest"
            out[name] = f"{rows} of {_describe(benchmark.pools[entry.pool])}"
        elif isinstance(entry, CorruptedSplit):
            shares = {kind: getattr(entry, kind) for kind in KINDS}
            kinds = ", ".join(f"{share:.0%} {kind}" for kind, share in shares.items() if share) or "confusion matrix"
            out[name] = f"{entry.of} with {kinds}"
        else:
            out[name] = _describe(entry)
    return out


def _describe(source: DataSource) -> str:
    if source.hub:
        return f"hub {source.hub}" + (f", {source.config}" if source.config else "") + f", {source.split}"
    return f"package {source.package}" if source.package else f"file {Path(source.file or '').name}"


def load(benchmark: Benchmark, names: Iterable[str], cache: Path | None = None) -> dict[str, Split]:
    """The named splits, cleaned and divided.

    Args:
        benchmark: the benchmark; its ``limits`` are applied last.
        names: names of its splits.
        cache: a folder for finished splits, shared by any number of processes; None to build them anew.

    Raises:
        UserError: a split is unknown, its rows cannot be read (see ``readers.read``), its digest is not the expected
            one, or ``real_small`` has no row of a class.
    """
    split_names = tuple(names)
    for name in split_names:
        if name not in benchmark.splits:
            raise unknown("split", name, benchmark.splits, f"benchmark {benchmark.name}")
    out = {}
    for name, (split, _) in _load_or_build(benchmark, split_names, cache).items():
        _check_digest(benchmark, split)
        out[name] = limit(split, benchmark.limits[name]) if name in benchmark.limits else split
        if name == "real_small":
            _check_classes(benchmark, out[name])
    return out


def summary(benchmark: Benchmark, cache: Path | None = None) -> list[SplitSummary]:
    """One line for each split, before ``limits``.

    Raises:
        UserError: see ``load``.
    """
    out = []
    for name, (split, notes) in _load_or_build(benchmark, tuple(benchmark.splits), cache).items():
        _check_digest(benchmark, split)
        rows = np.bincount(split.labels, minlength=len(benchmark.labels)).tolist()
        counts = dict(zip(benchmark.labels, rows, strict=True))
        out.append(SplitSummary(name, len(split), counts, split.digest, tuple(notes)))
    return out


def _load_or_build(benchmark: Benchmark, names: tuple[str, ...], cache: Path | None) -> SplitsWithNotes:
    if cache is None:
        splits = _build(benchmark)
        return {name: splits[name] for name in names}
    folder = cache / fingerprint(benchmark)[:32]
    out: SplitsWithNotes = {}
    for name in names:
        entry = split_files.read(folder / f"{name}.json")
        if entry is None:
            splits = _build(benchmark)
            for other, (split, notes) in splits.items():
                split_files.write(folder / f"{other}.json", split, notes)
            return {name: splits[name] for name in names}
        out[name] = entry
    return out


def _build(benchmark: Benchmark) -> SplitsWithNotes:
    """All splits, from their sources.

    Training rows that are near-duplicates of validation or test rows from another source are removed, so that training
    does not leak the evaluation. Validation and test splits with a source of their own keep all their rows.
    """
    out: SplitsWithNotes = {}
    for name, entry in benchmark.splits.items():
        if isinstance(entry, DataSource):
            out[name] = _read_clean(entry, name, benchmark)
    parts: dict[str, dict[str, int | None]] = {}
    for name, entry in benchmark.splits.items():
        if isinstance(entry, PoolSplit):
            parts.setdefault(entry.pool, {})[name] = entry.rows
    # pools with validation or test rows come first: the rows of the others are compared with those
    evaluation_pools = [pool for pool in parts if any(name in parts[pool] for name in _HELD_OUT)]
    for pool in (*evaluation_pools, *(pool for pool in parts if pool not in evaluation_pools)):
        rows, notes = _without_leaks(*_read_clean(benchmark.pools[pool], pool, benchmark), out, benchmark)
        groups_of = _near_duplicate_groups(rows, benchmark)
        splits = partition(rows, parts[pool], groups_of, benchmark.labels, benchmark.stream)
        unused = len(rows) - sum(map(len, splits.values()))
        notes.append(f"{pool}: {unused} of {len(rows)} rows are in no split")
        out |= {name: (split, notes) for name, split in splits.items()}
    for name, entry in benchmark.splits.items():
        unchecked = isinstance(entry, DataSource) or (isinstance(entry, PoolSplit) and len(evaluation_pools) > 1)
        if unchecked and name not in _HELD_OUT:
            out[name] = _without_leaks(*out[name], out, benchmark)
    for name, entry in benchmark.splits.items():
        if isinstance(entry, CorruptedSplit):
            corrupted = corrupt(out[entry.of][0], entry, benchmark.labels, name)
            counts = Counter(kind or "clean" for kind in corrupted.corruptions or ())
            tally = ", ".join(f"{counts[kind]} {kind}" for kind in ("clean", *KINDS) if counts[kind])
            out[name] = corrupted, [f"{name}: {tally}"]
    _check_ids(benchmark, out)
    for note in dict.fromkeys(note for _, notes in out.values() for note in notes):
        log.info("%s: %s", benchmark.name, note)
    return {name: out[name] for name in benchmark.splits}


def _read_clean(source: DataSource, name: str, benchmark: Benchmark) -> tuple[Split, list[str]]:
    """The cleaned rows of a source, and a note for each cleaning step."""
    rows, notes = clean(read(source, name, benchmark), source.clean)
    for id_, text, second in zip(rows.ids, rows.texts, rows.pairs or rows.texts, strict=True):
        for part in (text, second):
            if any("\ud800" <= character <= "\udfff" for character in part):
                raise UserError(
                    f"{name}: row {id_!r} is not UTF-8: {part.encode('utf-8', 'surrogateescape')[:60]!r}. "
                    "Save the file as UTF-8, or add `drop_broken` to `clean` to leave such rows out."
                )
            if not part.strip():
                raise UserError(
                    f"{name}: row {id_!r} is empty after cleaning. Add `drop_empty` to `clean` to leave it out."
                )
    if not len(rows):
        raise UserError(f"{name}: expected rows after cleaning, found none: {'; '.join(notes)}. Shorten `clean`.")
    return rows, notes


def row_texts(split: Split) -> tuple[str, ...]:
    """One text for each row: the two texts of a pair are joined by a space."""
    return tuple(map(" ".join, zip(split.texts, split.pairs, strict=True))) if split.pairs else split.texts


def _near_duplicate_groups(rows: Split, benchmark: Benchmark) -> IntArray:
    if benchmark.near_duplicate is None:
        return np.arange(len(rows), dtype=np.int64)
    return groups(row_texts(rows), benchmark.near_duplicate)


def _without_leaks(
    rows: Split, notes: list[str], splits: SplitsWithNotes, benchmark: Benchmark
) -> tuple[Split, list[str]]:
    """``rows`` without near-duplicates of the validation and test rows in ``splits``, and one more note."""
    held_out = [text for name in _HELD_OUT if name in splits for text in row_texts(splits[name][0])]
    if benchmark.near_duplicate is None or not held_out:
        return rows, notes
    leaks = matches(row_texts(rows), held_out, benchmark.near_duplicate)
    if leaks.all():
        raise UserError(
            f"{rows.name}: all {len(rows)} rows are near-duplicates of validation or test rows. Use other rows, or "
            "change `near_duplicate`."
        )
    note = f"{rows.name}: {int(leaks.sum())} near-duplicates of validation or test rows left out"
    return rows.take(np.flatnonzero(~leaks)), [*notes, note]


def _check_ids(benchmark: Benchmark, splits: SplitsWithNotes) -> None:
    owners: dict[str, str] = {}
    for name, (split, _) in splits.items():
        for id_ in split.ids:
            if owners.setdefault(id_, name) != name:
                raise UserError(
                    f"benchmark {benchmark.name}: expected unique ids, found {id_!r} in both {owners[id_]} and {name}."
                )


def _check_digest(benchmark: Benchmark, split: Split) -> None:
    expected = benchmark.digests.get(split.name)
    if expected and not split.digest.startswith(expected):
        raise UserError(
            f"benchmark {benchmark.name}: {split.name} has the digest {split.digest[: len(expected)]}, expected "
            f"{expected}. Its source, or how it is cleaned or split, has changed; if that is intended, update "
            "`digests`."
        )


def _check_classes(benchmark: Benchmark, split: Split) -> None:
    missing = [label for index, label in enumerate(benchmark.labels) if index not in split.labels]
    if missing:
        raise UserError(
            f"benchmark {benchmark.name}: {split.name} ({len(split)} rows) has no row of {', '.join(missing)}. "
            "A quality checker cannot learn a class without examples. Use more rows."
        )
