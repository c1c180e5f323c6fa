"""Reading the ledger: the runs of trials and experiments, and their artifacts.

A ledger in a local SQLite file is read directly, without loading MLflow, so that planning and reports start quickly.
Any other ledger is read through MLflow.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from harness.errors import UserError

KIND, TRIAL, EXPERIMENT = "harness.kind", "harness.trial", "harness.experiment"
#: Tags of a trial: its name, the number of its evaluations, and the last line of its error.
NAME, EVALUATIONS, ERROR = "mlflow.runName", "evaluations", "error"
#: Artifact of a failed trial: what its process printed last.
LOG = "log.txt"
SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Entry:
    """A run in the ledger.

    Attributes:
        run: the MLflow run id.
        status: ``FINISHED``, ``FAILED``, ``KILLED`` or ``RUNNING``.
        started: milliseconds since the epoch.
        tags: all tags.
        metrics: the last value of each metric.
        artifacts: URI of its artifacts.
        experiment: id of its MLflow experiment.
        ended: milliseconds since the epoch; None while it runs.
        epoch: the last step of its metrics: the number of evaluations so far.
    """

    run: str
    status: str
    started: int
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: str = ""
    experiment: str = ""
    ended: int | None = None
    epoch: int = 0

    @property
    def error(self) -> str:
        """The last line of its error, or an empty text."""
        return self.tags.get(ERROR, "")


class Reader(Protocol):
    """Read access to a ledger, for plans and reports."""

    @property
    def uri(self) -> str:
        """The tracking URI."""

    def trials(self, keys: Collection[str] | None = None) -> dict[str, Entry]:
        """The entry to use for every trial id: the finished one if there is one, else the newest.

        Args:
            keys: the tags and metrics that are needed; None for all. Fewer are read faster from a local file.
        """

    def parents(self) -> dict[str, Entry]:
        """The parent run of every experiment, by its name."""

    def artifact(self, entry: Entry, path: str) -> bytes | None:
        """The content of an artifact, or None where there is none."""

    def fetch(self, wanted: Iterable[tuple[Entry, str]]) -> None:
        """Gets many artifacts of finished trials from a server at once, before they are read one by one."""


def best_entries(entries: Iterable[Entry]) -> dict[str, Entry]:
    """The entry to use for every trial id: the finished one if there is one, else the newest."""
    best: dict[str, Entry] = {}
    for entry in entries:
        id_ = entry.tags[TRIAL]
        if id_ not in best or _rank(entry) > _rank(best[id_]):
            best[id_] = entry
    return best


def finished(entries: Mapping[str, Entry]) -> set[str]:
    """The ids of all finished trials."""
    return {id_ for id_, entry in entries.items() if entry.status == "FINISHED"}


def local_artifact(artifacts: str, path: str, folder: Path) -> Path | None:
    """The path of a local artifact, or None.

    Args:
        artifacts: a run's artifact URI.
        path: of the artifact inside it.
        folder: of the ledger. The artifacts of a ledger that was moved or copied are looked for in ``artifacts`` in
            this folder if they are not at the recorded location.
    """
    if not is_local(artifacts):
        return None
    recorded = Path(unquote(urlsplit(artifacts).path))
    if (recorded / path).is_file():
        return recorded / path
    moved = folder.joinpath("artifacts", *recorded.parts[-3:], path)
    return moved if moved.is_file() else None


def local_folder(artifacts: str, folder: Path) -> Path | None:
    """The folder of a run's local artifacts, to write into, or None.

    Args:
        artifacts: a run's artifact URI.
        folder: of the ledger. Of a ledger that was moved or copied, its own ``artifacts`` come before the recorded
            location, which may belong to the original.
    """
    recorded = Path(unquote(urlsplit(artifacts).path))
    own = folder.joinpath("artifacts", *recorded.parts[-3:])
    return next((path for path in (own, recorded) if path.is_dir()), None)


def is_local(artifacts: str) -> bool:
    """Whether a run's artifact URI names a folder."""
    return urlsplit(artifacts).scheme in ("file", "")


class SqliteReader:
    """A ledger in a local SQLite file, read only.

    Args:
        uri: ``sqlite:///`` and the absolute path of the file.

    Raises:
        UserError: the file is not an MLflow database.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._file = Path(uri.removeprefix(SQLITE))

    def trials(self, keys: Collection[str] | None = None) -> dict[str, Entry]:
        """See ``Reader``."""
        wanted = None if keys is None else sorted({TRIAL, *keys})
        return best_entries(entry for entry in self._entries("trial", wanted) if TRIAL in entry.tags)

    def parents(self) -> dict[str, Entry]:
        """See ``Reader``."""
        return {entry.tags[EXPERIMENT]: entry for entry in reversed(self._entries("experiment"))}

    def artifact(self, entry: Entry, path: str) -> bytes | None:
        """See ``Reader``."""
        file = local_artifact(entry.artifacts, path, self._file.parent)
        return file.read_bytes() if file else None

    def fetch(self, wanted: Iterable[tuple[Entry, str]]) -> None:
        """See ``Reader``; here all artifacts are local."""

    def _entries(self, kind: str, keys: list[str] | None = None) -> list[Entry]:
        """All runs of a kind, oldest first, with the given tags and metrics, or with all."""
        if not self._file.exists():
            return []
        run_ids = "SELECT run_uuid FROM tags WHERE key = ? AND value = ?"
        runs = (
            "SELECT run_uuid, status, start_time, end_time, artifact_uri, experiment_id FROM runs "
            f"WHERE run_uuid IN ({run_ids}) AND lifecycle_stage = 'active' ORDER BY start_time"
        )
        of_runs = f"WHERE run_uuid IN ({run_ids})"
        if keys is not None:
            of_runs += f" AND key IN ({', '.join('?' * len(keys))})"
        arguments = (KIND, kind, *(keys or ()))
        tags: dict[str, dict[str, str]] = {}
        metrics: dict[str, dict[str, float]] = {}
        epochs: dict[str, int] = {}
        try:
            with closing(self._connect()) as connection:
                rows = connection.execute(runs, (KIND, kind)).fetchall()
                for run, key, text in connection.execute(f"SELECT run_uuid, key, value FROM tags {of_runs}", arguments):
                    tags.setdefault(run, {})[key] = text
                # MLflow stores a NaN as 0 and sets is_nan
                number = "CASE WHEN is_nan THEN NULL ELSE value END"
                query = f"SELECT run_uuid, key, {number}, step FROM latest_metrics {of_runs}"
                for run, key, value, step in connection.execute(query, arguments):
                    metrics.setdefault(run, {})[key] = float("nan") if value is None else value
                    epochs[run] = max(epochs.get(run, 0), step)
        except sqlite3.Error as error:
            raise UserError(
                f"the ledger {self.uri} cannot be read: {error}; expected the database of an MLflow ledger"
            ) from None
        return [
            Entry(
                run, status, started or 0, tags.get(run, {}), metrics.get(run, {}), artifacts or "", str(experiment),
                ended, epochs.get(run, 0),
            )
            for run, status, started, ended, artifacts, experiment in rows
        ]  # fmt: skip

    def _connect(self) -> sqlite3.Connection:
        """A connection that only reads, unless a process was killed while it wrote: SQLite then undoes that first."""
        connection = self._open("ro")
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            connection.close()
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            return self._open("rw")
        return connection

    def _open(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self._file}?mode={mode}", uri=True, timeout=20.0)


def open_reader(uri: str, home: Path) -> Reader:
    """The reader of a ledger: directly for a local SQLite file, else through MLflow."""
    if uri.startswith(SQLITE):
        return SqliteReader(uri)
    from harness.ledger.mlflow_reader import MlflowReader

    return MlflowReader(uri, home)


def _rank(entry: Entry) -> tuple[bool, int]:
    return entry.status == "FINISHED", entry.started
