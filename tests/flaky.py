"""An fsspec file system in memory that fails now and then."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class HttpError(Exception):
    """An error with an HTTP status, as several packages have one."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class FlakyFileSystem(MemoryFileSystem):
    """Fails in every third read, write and look."""

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    calls: ClassVar[Counter[str]] = Counter()
    failures: ClassVar[Counter[str]] = Counter()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def _count(self, what: str) -> None:
        self.calls[what] += 1
        if self.calls[what] % 3 == 0:
            self.failures[what] += 1
            raise ConnectionResetError("reset by peer") if self.failures[what] % 2 else HttpError(503)

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        self._count("read")
        return super().cat_file(path, *args, **kwargs)

    def pipe_file(self, path: str, *args: Any, **kwargs: Any) -> None:
        self._count("write")
        super().pipe_file(path, *args, **kwargs)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        self._count("look")
        return super().info(path, **kwargs)


fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
