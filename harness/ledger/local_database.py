"""What a ledger in a local SQLite file needs beyond MLflow."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from harness.ledger.entries import SQLITE

#: Rows of an index that SQLite looks at for its statistics; more are not worth the time.
ANALYZED_ROWS = 1000


def analyze(uri: str) -> None:
    """Has SQLite take statistics of its tables; does nothing for other ledgers.

    Without them it sorts MLflow's table of 10,000 trials by a metric in ten seconds, with them in one. They are not
    essential: a database that is in use by another writer, or cannot be written, stays as it is.
    """
    if not uri.startswith(SQLITE):
        return
    file = Path(uri.removeprefix(SQLITE))
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{file}?mode=rw", uri=True, timeout=5.0)) as connection:
        connection.execute(f"PRAGMA analysis_limit = {ANALYZED_ROWS}")
        connection.execute("ANALYZE")
