"""Artifacts (named arrays) by the hash of everything that they were computed from.

An artifact is a file ``<root>/<kind>/<key>.npz``. Writes are atomic: a file that exists is complete, even after a
crash, and any number of threads, processes and machines may share the store. The root is a local folder or any fsspec
URL (``s3://bucket/harness``, ``gs://...``); of a URL each node fetches an artifact once (``node_cache.py``).
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import StoreError
from harness.store.files import StoreFiles
from harness.store.node_cache import NodeCache

#: Kinds that never change under their key, and that each trial of a node reads again.
CACHED = {"splits", "tokens", "scores", "embeddings"}
Arrays = dict[str, np.ndarray[Any, Any]]


def digest(*parts: Any) -> str:
    """SHA-256, in hex digits, of parts that JSON can hold; keys of dicts are sorted."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """Arrays by kind and key.

    Args:
        root: a local folder or an fsspec URL.

    Every method raises a StoreError if the store cannot be read or written.
    """

    def __init__(self, root: str) -> None:
        self.files = StoreFiles(root)
        self.root, self.local = self.files.root, self.files.local
        self._cache = None if self.local else NodeCache(self.root, _is_intact)

    def has(self, kind: str, key: str) -> bool:
        """True if the artifact exists."""
        return self.files.exists(_name(kind, key))

    def get(self, kind: str, key: str, replaceable: bool = False) -> Arrays | None:
        """The arrays of an artifact, or None if it does not exist.

        Args:
            kind: of artifact.
            key: of the artifact.
            replaceable: treat a damaged file like a missing one, because the caller computes and writes it again.

        Raises:
            StoreError: the file is damaged.
        """
        name = _name(kind, key)
        cached = self._cache is not None and kind in CACHED
        content = self._cache.get(name, lambda: self._read(name)) if self._cache and cached else self._read(name)
        if content is None or (replaceable and not _is_intact(content)):
            return None
        if not _is_intact(content):
            raise StoreError(f"{self.root}/{name} is damaged; delete it and run the same command again")
        with np.load(io.BytesIO(content), allow_pickle=False) as blob:
            return {name: blob[name] for name in blob.files}

    def put(self, kind: str, key: str, **arrays: Any) -> None:
        """Writes an artifact atomically."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        self.files.write(_name(kind, key), buffer.getvalue())
        if self._cache and kind in CACHED:
            self._cache.put(_name(kind, key), buffer.getvalue())

    def remove(self, kind: str, key: str) -> None:
        """Removes an artifact, if it exists, and what interrupted writes of it have left."""
        self.files.remove(_name(kind, key))
        for partial in (Path(self.files.path) / kind).glob(f".{key}.npz.*.part") if self.local else ():
            partial.unlink(missing_ok=True)

    def remove_all(self, kind: str) -> None:
        """Removes all artifacts of a kind."""
        self.files.remove_folder(kind)

    def folder(self, kind: str) -> Path:
        """A local folder for files that are appended to: in the store if it is local, else in the user's cache."""
        if self.local:
            return Path(self.files.path) / kind
        return Path.home() / ".cache" / "harness" / digest(self.root)[:16] / kind

    def _read(self, name: str) -> bytes | None:
        content = self.files.read(name)
        if content is not None and not self.local and not _is_intact(content):
            time.sleep(1.0)  # a transfer that broke off, or a server that shows files while they are written
            content = self.files.read(name)
        return content


def _name(kind: str, key: str) -> str:
    return f"{kind}/{key}.npz"


def _is_intact(content: bytes) -> bool:
    """True if every checksum of the zip is right: it is neither truncated nor changed."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.testzip() is None
    except Exception:  # zipfile has many ways to say that it did not write this
        return False
