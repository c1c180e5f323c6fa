"""A folder on each node with artifacts of a store that is not local, so that a node fetches each of them once.

It is ``harness-UID`` in the folder that the variable HARNESS_NODE_CACHE names, or else in the temporary folder. It
holds at most 4 GB: files that were not used for the longest time are removed first. It may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from harness.files import write_atomically

#: Bytes after which old files are removed, and the share of it that is kept then.
LIMIT, KEPT = 4 * 10**9, 0.8
#: Seconds after which a worker no longer waits for another one's transfer.
PATIENCE = 600.0


class NodeCache:
    """Contents of immutable files by name. An error of the cache itself is never an error of the caller.

    Args:
        root: of the store.
        is_intact: False for a content that is damaged: it is neither kept nor returned from the cache.
    """

    def __init__(self, root: str, is_intact: Callable[[bytes], bool]) -> None:
        self._base = _own_folder()
        self._files = self._base and self._base / hashlib.sha256(root.encode()).hexdigest()[:16]
        self._is_intact = is_intact

    def get(self, name: str, fetch: Callable[[], bytes | None]) -> bytes | None:
        """The content of a file: from the cache, or from ``fetch``, which one worker of the node calls at a time."""
        content = self._read(name)
        if content is not None:
            return content
        with self._lock(name):
            content = self._read(name)  # another worker may have fetched it meanwhile
            if content is None:
                content = fetch()
                if content is not None:
                    self.put(name, content)
        return content

    def put(self, name: str, content: bytes) -> None:
        """Keeps a content that is in the store."""
        if self._files is not None and self._is_intact(content):
            with suppress(OSError):  # a full disk: the store has it
                write_atomically(self._files / name, content)
                self._trim()

    def _read(self, name: str) -> bytes | None:
        if self._files is None:
            return None
        path = self._files / name
        try:
            content = path.read_bytes()
            os.utime(path)  # used just now
        except OSError:
            return None
        return content if self._is_intact(content) else None

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        lock = None
        if self._files is not None:
            number = hashlib.sha256(name.encode()).hexdigest()[:2]  # few lock files, which are never removed
            with suppress(OSError, NotImplementedError):
                self._files.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self._files / f"{number}.lock")
                lock.acquire(timeout=PATIENCE)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def _trim(self) -> None:
        assert self._base is not None
        files = []
        for path in self._base.rglob("*.npz"):
            with suppress(FileNotFoundError):  # removed by another worker
                files.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in files)
        if total <= LIMIT:
            return
        for _, size, path in sorted(files):
            if total <= KEPT * LIMIT:
                return
            path.unlink(missing_ok=True)
            total -= size


def _own_folder() -> Path | None:
    """The cache's folder; None if it cannot be made, or if it belongs to somebody else, who could change its files."""
    folder = Path(os.environ.get("HARNESS_NODE_CACHE") or tempfile.gettempdir()) / f"harness-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder if folder.lstat().st_uid == os.getuid() else None
    except OSError:
        return None
