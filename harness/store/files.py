"""The files of a store, in a local folder or at an fsspec URL: whole or missing, and one kind of error."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import StoreError
from harness.files import write_atomically
from harness.store.retries import http_status, retried

T = TypeVar("T")

#: Object stores whose server can refuse to replace a file. fsspec's default looks first and writes then.
SERVER_DECIDES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}


class StoreFiles:
    """Bytes by name, below a root. Safe with several threads and processes.

    Calls at a URL are repeated after temporary errors; whatever remains, and every error of a local disk, is raised
    as a ``StoreError``.

    Args:
        root: a local folder or an fsspec URL.

    Raises:
        StoreError: no installed package knows the URL's protocol.
    """

    def __init__(self, root: str) -> None:
        import fsspec  # slow to load, and many modules need only ``digest``

        self.root = root if "://" in root else str(Path(root).resolve())
        try:
            self._system, self.path = fsspec.core.url_to_fs(self.root)
        except (ImportError, ValueError) as error:
            raise StoreError(f"the store {self.root} cannot be opened: {error}") from None
        protocol = self._system.protocol
        self._protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self.local = bool(self._protocols & {"file", "local"})
        self._refuses: bool | None = None

    def exists(self, name: str) -> bool:
        """True if the file exists."""
        if self.local:
            return self._call("look for", name, self._local(name).exists)
        try:  # fsspec's own ``exists`` takes a broken connection for a missing file
            self._system.invalidate_cache(self._remote(name))  # others write here too
            self._call("look for", name, self._system.info, self._remote(name))
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None if it does not exist."""
        try:
            if self.local:
                return self._call("read", name, self._local(name).read_bytes)
            return bytes(self._call("read", name, self._system.cat_file, self._remote(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Writes a file; readers see the old content or the new one, never a part."""
        try:
            if self.local:
                self._call("write", name, write_atomically, self._local(name), content)
            else:  # uploads to an object store are atomic
                self._call("write", name, self._system.pipe_file, self._remote(name), content)
        except (FileNotFoundError, FileExistsError) as error:  # no such bucket; a file in the place of a folder
            raise self._failure("write", name, error) from error

    def create(self, name: str, content: bytes) -> bool:
        """Writes a file that does not exist yet; False if it does. See ``refuses_to_replace``.

        False may also follow a broken connection after which the file was there: then its content is ``content``.
        """
        try:
            if self.local:
                self._call("create", name, _create, self._local(name), content)
            else:
                self._call("create", name, self._system.pipe_file, self._remote(name), content, mode="create")
        except FileExistsError:
            return False
        except FileNotFoundError as error:
            raise self._failure("create", name, error) from error
        return True

    def refuses_to_replace(self, name: str, content: bytes) -> bool:
        """True if ``create`` succeeds for one worker only, even if several call it at the same moment.

        It does on local disks and on object stores that decide it themselves. S3 servers other than Amazon's may not:
        they are tested once, by creating again a file that was just created.

        Args:
            name: of the file.
            content: with which it was created.
        """
        if self.local or not self._protocols & SERVER_DECIDES:
            return self.local
        if self._refuses is None:
            self._refuses = not self.create(name, content)
        return self._refuses

    def remove(self, name: str) -> None:
        """Removes a file if it exists."""
        with suppress(FileNotFoundError):
            if self.local:
                self._call("remove", name, self._local(name).unlink)
            else:
                self._call("remove", name, self._system.rm_file, self._remote(name))

    def remove_folder(self, name: str) -> None:
        """Removes a folder with all its files, if it exists."""
        with suppress(FileNotFoundError):
            self._call("remove", name, self._system.rm, self._remote(name), recursive=True)

    def _local(self, name: str) -> Path:
        return Path(self.path) / name

    def _remote(self, name: str) -> str:
        return f"{self.path}/{name}"

    def _call(self, action: str, name: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        call = partial(function, *args, **kwargs)
        try:
            return call() if self.local else retried(call)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            if http_status(error) == 412:  # precondition failed: create met a file
                raise FileExistsError(name) from error
            raise self._failure(action, name, error) from error

    def _failure(self, action: str, name: str, error: Exception) -> StoreError:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = f" ({_free_bytes(Path(self.path)) / 1e6:,.0f} MB free)" if self.local else ""
            what = "is full" if error.errno == errno.ENOSPC else "has reached your quota"
            return StoreError(
                f"the store {self.root} {what}{free}: cannot {action} {name}. Free some space or pass another --store, "
                "then run the same command again; finished trials are kept."
            )
        return StoreError(
            f"the store {self.root} failed: cannot {action} {name} ({type(error).__name__}: {error}). Check that this "
            "machine can reach it and has permission, then run the same command again; finished trials are kept."
        )


def _create(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
        except OSError:  # a full disk: nobody shall wait for this file
            path.unlink(missing_ok=True)
            raise


def _free_bytes(path: Path) -> int:
    """Free space on the disk of a folder, which may not exist yet."""
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free
