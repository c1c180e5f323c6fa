"""Finished artifacts by the hash of everything that made them.

One artifact is one blob of named arrays under ``<root>/<kind>/<key>.npz``. Writing is atomic, so a blob that exists is
whole: it can be trusted after any crash, and shared by any number of processes. The root is a local folder or any
fsspec URL (``s3://bucket/harness``, ``gs://...``).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]


def digest(*parts: Any) -> str:
    """SHA-256 of JSON-serialisable parts, keys sorted: the key of what they make."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """Arrays by kind and key."""

    def __init__(self, root: str) -> None:
        import fsspec  # slow to load, and many modules need only ``digest``

        self.root = root if "://" in root else str(Path(root).resolve())
        self._files, self._path = fsspec.core.url_to_fs(self.root)
        self.local = self._files.protocol in ("file", ("file", "local"))

    def has(self, kind: str, key: str) -> bool:
        """Whether the artifact exists."""
        return bool(self._files.exists(self._name(kind, key)))

    def get(self, kind: str, key: str) -> Arrays | None:
        """The arrays of an artifact, or None where there is none."""
        try:
            raw = self._files.cat_file(self._name(kind, key))
        except FileNotFoundError:
            return None
        with np.load(io.BytesIO(raw), allow_pickle=False) as blob:
            return {name: blob[name] for name in blob.files}

    def put(self, kind: str, key: str, **arrays: Any) -> None:
        """Writes an artifact, whole or not at all."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        name = self._name(kind, key)
        if not self.local:  # an object store shows an object only once it is complete
            self._files.pipe_file(name, buffer.getvalue())
            return
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        partial = Path(f"{name}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(name)
        finally:
            partial.unlink(missing_ok=True)

    def folder(self, kind: str) -> Path:
        """A local folder for files that only grow: in the store if it is local, else in the user's cache."""
        if self.local:
            return Path(self._path) / kind
        return Path.home() / ".cache" / "harness" / digest(self.root)[:16] / kind

    def _name(self, kind: str, key: str) -> str:
        return f"{self._path}/{kind}/{key}.npz"
