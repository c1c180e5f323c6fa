"""Artifacts (named arrays) by the hash of everything that they were computed from.

An artifact is a file ``<root>/<kind>/<key>.npz``. Writes are atomic: a file that exists is complete, even after a
crash, and any number of processes may share the store. The root is a local folder or any
fsspec URL (``s3://bucket/harness``, ``gs://...``).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]


def digest(*parts: Any) -> str:
    """SHA-256, in hex digits, of parts that JSON can hold; keys of dicts are sorted."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """Arrays by kind and key.

    Args:
        root: a local folder or an fsspec URL.
    """

    def __init__(self, root: str) -> None:
        import fsspec  # slow to load, and many modules need only ``digest``

        self.root = root if "://" in root else str(Path(root).resolve())
        self._files, self._path = fsspec.core.url_to_fs(self.root)
        self.local = self._files.protocol in ("file", ("file", "local"))

    def has(self, kind: str, key: str) -> bool:
        """True if the artifact exists."""
        return bool(self._files.exists(self._name(kind, key)))

    def get(self, kind: str, key: str) -> Arrays | None:
        """The arrays of an artifact, or None if it does not exist."""
        try:
            raw = self._files.cat_file(self._name(kind, key))
        except FileNotFoundError:
            return None
        with np.load(io.BytesIO(raw), allow_pickle=False) as blob:
            return {name: blob[name] for name in blob.files}

    def put(self, kind: str, key: str, **arrays: Any) -> None:
        """Writes an artifact atomically."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        name = self._name(kind, key)
        if not self.local:  # uploads to an object store are atomic
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

    def remove(self, kind: str, key: str) -> None:
        """Removes an artifact, if it exists, and what interrupted writes of it have left."""
        name = self._name(kind, key)
        with suppress(FileNotFoundError):
            self._files.rm_file(name)
        for partial in Path(name).parent.glob(f"{key}.npz.*.partial") if self.local else ():
            partial.unlink(missing_ok=True)

    def folder(self, kind: str) -> Path:
        """A local folder for files that are appended to: in the store if it is local, else in the user's cache."""
        if self.local:
            return Path(self._path) / kind
        return Path.home() / ".cache" / "harness" / digest(self.root)[:16] / kind

    def _name(self, kind: str, key: str) -> str:
        return f"{self._path}/{kind}/{key}.npz"
