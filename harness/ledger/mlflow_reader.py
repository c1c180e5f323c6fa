"""Reading a ledger through MLflow: a server, or a database that is not a local SQLite file."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from harness.errors import UserError
from harness.ledger.batches import BATCH, OPEN, batches, unpack
from harness.ledger.downloads import Downloads
from harness.ledger.entries import EXPERIMENT, KIND, Entry, best_entries, is_local, local_artifact
from harness.ledger.mlflow_pages import without_password

PAGE = 1000

# Keep MLflow's own output (a progress bar for every artifact, a link for every run) off the console.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)
# On Ctrl-C during a query, SQLAlchemy logs the traceback of its clean-up before it passes the interrupt on.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


class MlflowReader:
    """Trials and their results in MLflow.

    Args:
        uri: an absolute tracking URI.
        home: where artifacts are if the URI is a local database.

    Raises:
        UserError: the server does not answer, or the URI is a bare folder (MLflow no longer supports file stores).
    """

    def __init__(self, uri: str, home: Path) -> None:
        if not uri.startswith(("sqlite:", "postgresql", "mysql", "mssql", "http:", "https:", "databricks")):
            raise UserError(
                f"tracking URI {uri!r}: expected sqlite:///ABSOLUTE/PATH, a database or an http(s) server. For an old "
                "folder of runs, see `mlflow migrate-filestore`."
            )
        self.uri = uri
        self._home = home.resolve()
        self._downloads = Downloads(self._home / "downloads", self._download)
        if uri.startswith("sqlite:"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                (home / ".gitignore").write_text("*\n", encoding="utf-8")
        try:
            self._client = MlflowClient(tracking_uri=uri)
            self._experiments()
        except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
            raise UserError(
                f"the MLflow ledger at {without_password(uri)} cannot be used: {without_password(str(error))}"
            ) from None

    def trials(self, keys: Collection[str] | None = None) -> dict[str, Entry]:
        """See ``Reader``; all tags and metrics are read in any case."""
        kind = f"tags.`{KIND}` = 'trial'"
        # Before the batches are looked at: what finishes meanwhile is in a batch that was announced earlier.
        entries = self._entries(f"{kind} and attributes.status != 'FINISHED'")
        batched: set[str] = set()
        known: dict[str, Entry] = {}
        parents = self._parents()
        self.fetch((parent, path) for parent in parents for path in batches(parent.tags).values() if path != OPEN)
        for parent in parents:
            if (finished := self._finished(parent)) is not None:
                batched.add(parent.experiment)
                known |= {entry.run: entry for entry in finished}
        if batched:  # a run that was deleted on MLflow's pages is in its file all the same
            for run in self._search(kind, sorted(batched), ViewType.DELETED_ONLY):
                known.pop(run.info.run_id, None)
        others = [id_ for id_ in self._experiments() if id_ not in batched]
        if others:
            entries += self._entries(f"{kind} and attributes.status = 'FINISHED'", others)
        return best_entries(sorted([*entries, *known.values()], key=lambda entry: entry.started))

    def parents(self) -> dict[str, Entry]:
        """See ``Reader``."""
        return {entry.tags[EXPERIMENT]: entry for entry in reversed(self._parents())}

    def artifact(self, entry: Entry, path: str) -> bytes | None:
        """See ``Reader``."""
        if is_local(entry.artifacts):
            file = local_artifact(entry.artifacts, path, self._home)
            return file.read_bytes() if file else None
        return self._downloads.read(entry, path)

    def fetch(self, wanted: Iterable[tuple[Entry, str]]) -> None:
        """See ``Reader``."""
        self._downloads.fetch((entry, path) for entry, path in wanted if not is_local(entry.artifacts))

    def tags(self, run: str) -> dict[str, str]:
        """The tags of a run, in one request."""
        return dict(self._client.get_run(run).data.tags)

    def _parents(self) -> list[Entry]:
        return self._entries(f"tags.`{KIND}` = 'experiment'")

    def _finished(self, parent: Entry) -> list[Entry] | None:
        """The trials of all batches of an experiment; None if it has no batches, or lacks a file of one."""
        names = batches(parent.tags)
        entries = []
        for name, path in names.items():
            if path == OPEN:
                entries += self._entries(f"tags.`{BATCH}` = '{name}'", [parent.experiment])
            elif (content := self.artifact(parent, path)) is not None:
                entries += unpack(content)
            else:
                return None
        return entries if names else None

    def _download(self, entry: Entry, path: str, file: Path) -> bool:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        # the client's own `download_artifacts` takes three requests for a file
        repository = get_artifact_repository(entry.artifacts, tracking_uri=self.uri)
        with suppress(MlflowException, OSError):
            repository._download_file(path, str(file))  # type: ignore[no-untyped-call]
            return True
        return False

    def _experiments(self) -> list[str]:
        return [e.experiment_id for e in self._client.search_experiments(max_results=PAGE)]

    def _entries(self, condition: str, experiments: Sequence[str] | None = None) -> list[Entry]:
        return [_entry(run) for run in self._search(condition, experiments)]

    def _search(
        self, condition: str, experiments: Sequence[str] | None = None, view: int = ViewType.ACTIVE_ONLY
    ) -> Iterator[Run]:
        """Runs in some experiments or in all, oldest first."""
        token: str | None = None
        ids = list(experiments or self._experiments())
        while True:
            page = self._client.search_runs(
                ids, condition, view, max_results=PAGE, page_token=token,
                order_by=["attributes.start_time ASC"],
            )  # fmt: skip
            yield from page
            token = page.token
            if not token:
                return


def _entry(run: Run) -> Entry:
    return Entry(
        run.info.run_id, run.info.status, run.info.start_time or 0, dict(run.data.tags), dict(run.data.metrics),
        run.info.artifact_uri or "", run.info.experiment_id, run.info.end_time,
        max((metric.step for metric in run.data._metric_objs), default=0),
    )  # fmt: skip
