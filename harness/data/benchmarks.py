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
from harness.data import split_files as disk
from harness.data.cleaning import clean
from harness.data.corruptions import KINDS, corrupt
from harness.data.near_duplicates import groups, matches
from harness.data.partition import limit, partition
from harness.data.readers import fingerprint, package_folder, read
from harness.data.split import IntArray, Split
from harness.errors import UserError, unknown

log = logging.getLogger(__name__)

Built = dict[str, tuple[Split, list[str]]]

_HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class SplitSummary:
    """One line about a split: its size, rows of each label, digest, and how it came to be."""

    split: str
    rows: int
    counts: dict[str, int]
    digest: str
    notes: tuple[str, ...]


def catalogue() -> dict[str, Path]:
    """Name -> YAML file of every known benchmark: ours, and those in packages that an entry point names.

    The value of an entry point of the group ``harness.benchmarks`` is a package; its YAML files are benchmarks.
    """
    folders = [Path(__file__).parent / "benchmarks"]
    folders += [package_folder(point.value) for point in metadata.entry_points(group="harness.benchmarks")]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def resolve(entry: str | Benchmark) -> Benchmark:
    """A benchmark by its catalogue name or the path of its YAML file; one that is written out stays as it is.

    Raises:
        UserError: no such name or file, or the file is not a benchmark.
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
    """Where the rows of every split come from, in words; no data is read."""
    out = {}
    for name, entry in benchmark.splits.items():
        if isinstance(entry, PoolSplit):
            rows = f"{entry.rows} rows" if entry.rows else "the rest"
            out[name] = f"{rows} of {_origin(benchmark.pools[entry.pool])}"
        elif isinstance(entry, CorruptedSplit):
            shares = {kind: getattr(entry, kind) for kind in KINDS}
            kinds = ", ".join(f"{share:.0%} {kind}" for kind, share in shares.items() if share) or "confusion matrix"
            out[name] = f"{entry.of} with {kinds}"
        else:
            out[name] = _origin(entry)
    return out


def _origin(source: DataSource) -> str:
    if source.hub:
        return f"hub {source.hub}" + (f", {source.config}" if source.config else "") + f", {source.split}"
    return f"package {source.package}" if source.package else f"file {Path(source.file or '').name}"


def load(benchmark: Benchmark, names: Iterable[str], cache: Path | None = None) -> dict[str, Split]:
    """The named splits, ready for use.

    Args:
        benchmark: what to load; its ``limits`` apply last.
        names: which of its splits.
        cache: a folder for finished splits, shared by any number of processes.

    Raises:
        UserError: a split is unknown, its rows are faulty (see ``sources.read``), its digest is not the one
            expected, or ``real_small`` has no row of a class.
    """
    wanted = tuple(names)
    for name in wanted:
        if name not in benchmark.splits:
            raise unknown("split", name, benchmark.splits, f"benchmark {benchmark.name}")
    out = {}
    for name, (split, _) in _finished(benchmark, wanted, cache).items():
        _check_digest(benchmark, split)
        out[name] = limit(split, benchmark.limits[name]) if name in benchmark.limits else split
        if name == "real_small":
            _check_classes(benchmark, out[name])
    return out


def summary(benchmark: Benchmark, cache: Path | None = None) -> list[SplitSummary]:
    """A line for each split, without ``limits``. Raises what ``load`` raises."""
    out = []
    for name, (split, notes) in _finished(benchmark, tuple(benchmark.splits), cache).items():
        _check_digest(benchmark, split)
        tally = np.bincount(split.labels, minlength=len(benchmark.labels)).tolist()
        counts = dict(zip(benchmark.labels, tally, strict=True))
        out.append(SplitSummary(name, len(split), counts, split.digest, tuple(notes)))
    return out


def _finished(benchmark: Benchmark, names: tuple[str, ...], cache: Path | None) -> Built:
    if cache is None:
        built = _build(benchmark)
        return {name: built[name] for name in names}
    folder = cache / fingerprint(benchmark)[:32]
    out: Built = {}
    for name in names:
        found = disk.read(folder / f"{name}.json")
        if found is None:
            built = _build(benchmark)
            for other, (split, notes) in built.items():
                disk.write(folder / f"{other}.json", split, notes)
            return {name: built[name] for name in names}
        out[name] = found
    return out


def _build(benchmark: Benchmark) -> Built:
    """All splits, from their sources.

    What is trained on must not give the evaluation away: rows that are near-duplicates of held-out rows from
    elsewhere are left out of it. Held-out rows themselves stay as they are.
    """
    out: Built = {}
    for name, entry in benchmark.splits.items():
        if isinstance(entry, DataSource):
            out[name] = _read_clean(entry, name, benchmark)
    parts: dict[str, dict[str, int | None]] = {}
    for name, entry in benchmark.splits.items():
        if isinstance(entry, PoolSplit):
            parts.setdefault(entry.pool, {})[name] = entry.rows
    # pools that hold rows out come first: the others are compared with what they gave
    holding = [pool for pool in parts if any(name in parts[pool] for name in _HELD_OUT)]
    for pool in (*holding, *(pool for pool in parts if pool not in holding)):
        rows, notes = _without_matches(*_read_clean(benchmark.pools[pool], pool, benchmark), out, benchmark)
        divided = partition(rows, parts[pool], _groups(rows, benchmark), benchmark.labels, benchmark.name)
        unused = len(rows) - sum(map(len, divided.values()))
        notes.append(f"{pool}: {unused} of {len(rows)} rows are in no split")
        out |= {name: (split, notes) for name, split in divided.items()}
    for name, entry in benchmark.splits.items():
        late = isinstance(entry, DataSource) or (isinstance(entry, PoolSplit) and len(holding) > 1)
        if late and name not in _HELD_OUT:
            out[name] = _without_matches(*out[name], out, benchmark)
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
    rows, notes = clean(read(source, name, benchmark), source.clean)
    for id_, text, second in zip(rows.ids, rows.texts, rows.pairs or rows.texts, strict=True):
        for part in (text, second):
            if any("\ud800" <= character <= "\udfff" for character in part):
                raise UserError(
                    f"{name}: row {id_!r} is not UTF-8: {part.encode('utf-8', 'surrogateescape')[:60]!r}. "
                    "Save the file as UTF-8, or add `drop_broken` to `clean` to leave such rows out."
                )
            if not part.strip():
                raise UserError(f"{name}: nothing is left of row {id_!r} after cleaning; add `drop_empty` to `clean`.")
    if not len(rows):
        raise UserError(f"{name}: cleaning left no rows: {'; '.join(notes)}.")
    return rows, notes


def joined(split: Split) -> tuple[str, ...]:
    """One text a row: a pair counts as its two texts in one."""
    return tuple(map(" ".join, zip(split.texts, split.pairs, strict=True))) if split.pairs else split.texts


def _groups(rows: Split, benchmark: Benchmark) -> IntArray:
    if benchmark.near_duplicate is None:
        return np.arange(len(rows), dtype=np.int64)
    return groups(joined(rows), benchmark.near_duplicate)


def _without_matches(rows: Split, notes: list[str], built: Built, benchmark: Benchmark) -> tuple[Split, list[str]]:
    held_out = [text for name in _HELD_OUT if name in built for text in joined(built[name][0])]
    if benchmark.near_duplicate is None or not held_out:
        return rows, notes
    leaks = matches(joined(rows), held_out, benchmark.near_duplicate)
    if leaks.all():
        raise UserError(f"{rows.name}: every row is a near-duplicate of a validation or test row; none is left.")
    note = f"{rows.name}: {int(leaks.sum())} near-duplicates of validation or test rows left out"
    return rows.take(np.flatnonzero(~leaks)), [*notes, note]


def _check_ids(benchmark: Benchmark, built: Built) -> None:
    owners: dict[str, str] = {}
    for name, (split, _) in built.items():
        for id_ in split.ids:
            if owners.setdefault(id_, name) != name:
                raise UserError(f"benchmark {benchmark.name}: the id {id_!r} is in both {owners[id_]} and {name}.")


def _check_digest(benchmark: Benchmark, split: Split) -> None:
    expected = benchmark.digests.get(split.name)
    if expected and not split.digest.startswith(expected):
        raise UserError(
            f"benchmark {benchmark.name}: {split.name} has the digest {split.digest[: len(expected)]}, expected "
            f"{expected}. Its source, or how it is cleaned or split, has changed; if you meant that, correct `digests`."
        )


def _check_classes(benchmark: Benchmark, split: Split) -> None:
    missing = [label for index, label in enumerate(benchmark.labels) if index not in split.labels]
    if missing:
        raise UserError(
            f"benchmark {benchmark.name}: {split.name} ({len(split)} rows) has no row of {', '.join(missing)}. "
            "A quality checker cannot learn a class that it never sees; give it more rows."
        )
