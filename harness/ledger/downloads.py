"""Artifacts of runs on a server, kept on this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.ledger.batches import FOLDER
from harness.ledger.entries import KIND, Entry

#: Files at once; a server spends most of a request waiting.
CONNECTIONS = 16


class Downloads:
    """Artifacts of runs on a server; those that never change, of finished trials and batches, are asked for once.

    Those that are not there are asked for again by another object only.

    Args:
        folder: keeps them.
        download: gets an artifact of a run, by its path, into a file; false if there is none.
    """

    def __init__(self, folder: Path, download: Callable[[Entry, str, Path], bool]) -> None:
        self._folder, self._download = folder, download
        self._absent: set[Path] = set()

    def read(self, entry: Entry, path: str) -> bytes | None:
        """The content of an artifact, or None where there is none."""
        kept = self._place(entry, path)
        if _is_final(entry, path) and kept.is_file():
            return kept.read_bytes()
        if kept in self._absent:
            return None
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            file = Path(folder) / "artifact"
            if not self._download(entry, path, file):
                if _is_final(entry, path):
                    self._absent.add(kept)
                return None
            content = file.read_bytes()
            if _is_final(entry, path):
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, kept)
        return content

    def fetch(self, wanted: Iterable[tuple[Entry, str]]) -> None:
        """Downloads artifacts that never change, many at once, for ``read``."""
        missing = [
            (entry, path) for entry, path in wanted if _is_final(entry, path) and not self._place(entry, path).is_file()
        ]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for _ in pool.map(lambda pair: self.read(*pair), missing):
                pass

    def _place(self, entry: Entry, path: str) -> Path:
        return self._folder / entry.run / path


def _is_final(entry: Entry, path: str) -> bool:
    """Whether a file never changes."""
    return path.startswith(f"{FOLDER}/") or (entry.status == "FINISHED" and entry.tags.get(KIND) == "trial")
