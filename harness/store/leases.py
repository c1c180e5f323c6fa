"""Leases: which worker computes what a store lacks, so that two workers do not compute the same.

A lease is the file ``leases/KEY.json`` in the store. Its holder changes it every 20 seconds; one that has not changed
for two minutes is stale, and another worker takes it over. Clocks of machines are not compared: a worker that waits
measures by its own clock how long the file has been the same.

On local disks, S3, Google Cloud Storage and Azure the server decides who creates the file. Elsewhere, and wherever a
stale lease is taken over, a worker writes the file, waits a second and reads it: two workers can both hold the lease
only if one of them stalls for longer than that between looking and writing. That costs time, but no result is wrong:
artifacts are written whole, and both workers compute the same.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from harness.errors import StoreError
from harness.store.files import StoreFiles

#: Seconds between two renewals; without a renewal until a lease is stale; until others' writes are visible.
RENEWAL, STALE, SETTLE = 20.0, 120.0, 1.0


class Lease:
    """The right to compute one thing.

    Args:
        key: what is to be computed.
        files: of the store.
    """

    def __init__(self, key: str, files: StoreFiles) -> None:
        self._name, self._files = f"leases/{key}.json", files
        self._owner = uuid.uuid4().hex
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._other: bytes | None = None  # the lease of another worker, and when it was first seen like this
        self._other_since = 0.0
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> bool:
        """Takes the lease if it is free or stale, without waiting until it is; False if another worker holds it.

        From then on a thread renews it until ``release``.

        Raises:
            StoreError: the store cannot be read or written.
        """
        current = self._files.read(self._name)
        if current is not None and not self._is_stale(current):
            return False
        content = self._content(0)
        if current is None:
            self._files.create(self._name, content)
        else:
            self._files.write(self._name, content)
        if current is not None or not self._files.refuses_to_replace(self._name, content):
            time.sleep(SETTLE)
        if not self._is_own():
            return False
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return True

    def release(self) -> None:
        """Gives the lease up if this worker holds it. A lease that cannot be removed becomes stale."""
        if self._thread is None:
            return
        self._released.set()
        self._thread.join()
        self._thread = None
        with suppress(StoreError):
            if self._is_own():
                self._files.remove(self._name)

    def _renew(self) -> None:
        renewals = 0
        while not self._released.wait(RENEWAL):
            renewals += 1
            with suppress(StoreError):  # the next renewal may succeed
                if not self._is_own():
                    return  # this process was stopped for so long that another worker took the lease over
                self._files.write(self._name, self._content(renewals))

    def _is_own(self) -> bool:
        return _fields(self._files.read(self._name)).get("owner") == self._owner

    def _is_stale(self, content: bytes) -> bool:
        if content != self._other:
            self._other, self._other_since = content, time.monotonic()
        return time.monotonic() - self._other_since > STALE or _holder_is_dead(_fields(content))

    def _content(self, renewals: int) -> bytes:
        fields = {
            "owner": self._owner, "host": socket.gethostname(), "machine": _machine(), "process": os.getpid(),
            "since": self._started, "renewals": renewals,
        }  # fmt: skip
        return json.dumps(fields).encode()


def _fields(content: bytes | None) -> dict[str, object]:
    """The fields of a lease; none for a file that is missing or still being written."""
    try:
        fields = json.loads(content or b"{}")
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _holder_is_dead(fields: dict[str, object]) -> bool:
    """True if the holder was a process of this machine that no longer exists: then nobody needs to wait."""
    process = fields.get("process")
    if not isinstance(process, int) or not fields.get("machine") or fields["machine"] != _machine():
        return False
    try:
        os.kill(process, 0)  # sends no signal
    except ProcessLookupError:
        return True
    except PermissionError:  # of another user
        return False
    return False


@cache
def _machine() -> str:
    """What processes with common process ids share: a boot of Linux, and a container; elsewhere nothing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
