"""One Ray for the tests of this folder that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.cluster import connection


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[connection.Cluster]:
    """A Ray of this machine, started and ended with a module's tests."""
    joined = connection.connect(None, tmp_path_factory.mktemp("ray"))
    try:
        yield joined
    finally:
        connection.disconnect()
