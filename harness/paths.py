"""Where things are kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """Absolute locations, the same for a worker with another working directory.

    Attributes:
        home: the local folder for caches, locks and, by default, everything else.
        store: root of the artifact store, a folder or a URL.
        tracking_uri: the MLflow ledger.
    """

    home: Path
    store: str
    tracking_uri: str

    @classmethod
    def at(cls, home: Path, store: str | None = None, tracking_uri: str | None = None) -> Paths:
        """The locations of a home folder; ``tracking_uri``, or else ``MLFLOW_TRACKING_URI``, names another ledger."""
        folder = home.expanduser().resolve()
        root = store or str(folder / "store")
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        return cls(folder, root if "://" in root else str(Path(root).expanduser().resolve()), uri)

    @property
    def cache(self) -> Path:
        """Where prepared benchmarks are kept."""
        return self.home / "benchmarks"
