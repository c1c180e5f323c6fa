"""Which calls to a store are repeated, and what is left when that does not help."""

from __future__ import annotations

import errno
import uuid

import pytest

from harness.errors import StoreError
from harness.store import retries
from harness.store.files import StoreFiles
from tests.flaky import FlakyFileSystem, HttpError


class BrokenError(Exception):
    """Of the package aiohttp, as far as its name goes."""


BrokenError.__module__ = "aiohttp.client_exceptions"
with_status = type("ClientError", (Exception,), {"response": {"ResponseMetadata": {"HTTPStatusCode": 500}}})


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    waits = []
    monkeypatch.setattr(retries.time, "sleep", waits.append)
    return waits


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (ConnectionResetError(), True), (TimeoutError(), True), (OSError(errno.EIO, ""), True), (HttpError(503), True),
        (HttpError(429), True), (BrokenError(), True), (with_status(), True), (HttpError(403), False),
        (FileNotFoundError(), False), (PermissionError(), False), (OSError(errno.ENOSPC, ""), False),
        (OSError("Forbidden: b/x"), False), (ValueError(), False),
    ],
)  # fmt: skip
def test_calls_are_repeated_after_temporary_errors_only(error, temporary, waits):
    answers = [error, error]

    def call():
        if answers:
            raise answers.pop()
        return "answer"

    if temporary:
        assert retries.retried(call) == "answer"
        assert waits == [0.5, 2.0], "growing waits"
    else:
        with pytest.raises(type(error)):
            retries.retried(call)
        assert waits == []


def test_a_store_that_stays_away(monkeypatch, waits):
    files = StoreFiles(f"flaky://{uuid.uuid4().hex}")

    def refused(*_, **__):
        raise ConnectionRefusedError("refused")

    for name in ("cat_file", "pipe_file", "info"):
        monkeypatch.setattr(FlakyFileSystem, name, refused)
    for call in (files.exists, files.read, lambda name: files.write(name, b""), lambda name: files.create(name, b"")):
        waits.clear()
        with pytest.raises(StoreError, match=r"cannot [a-z ]+ trials/x.npz \(ConnectionRefusedError: refused\)"):
            call("trials/x.npz")
        assert waits == list(retries.WAITS)


def test_a_store_that_nothing_installed_can_open():
    with pytest.raises(StoreError, match="the store nonsense://x cannot be opened: Protocol not known"):
        StoreFiles("nonsense://x")
