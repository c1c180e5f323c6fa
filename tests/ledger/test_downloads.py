"""Artifacts of a server are asked for once, where they cannot change."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.ledger.downloads import Downloads
from harness.ledger.entries import KIND, Entry


class Server:
    """Counts what is asked for; a path that begins with "no" is not there."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, entry: Entry, path: str, file: Path) -> bool:
        self.asked.append(f"{entry.run}/{path}")
        if path.startswith("no"):
            return False
        file.write_bytes(f"{path} of {entry.run}".encode())
        return True


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def downloads(server: Server, tmp_path: Path) -> Downloads:
    return Downloads(tmp_path / "downloads", server)


def trial(run: str, status: str = "FINISHED", kind: str = "trial") -> Entry:
    return Entry(run, status, 0, {KIND: kind})


def test_a_file_of_a_finished_trial_is_asked_for_once(server: Server, downloads: Downloads, tmp_path: Path) -> None:
    for _ in range(2):
        assert downloads.read(trial("a"), "scores/x.parquet") == b"scores/x.parquet of a"
    assert Downloads(tmp_path / "downloads", server).read(trial("a"), "scores/x.parquet") == b"scores/x.parquet of a"
    assert server.asked == ["a/scores/x.parquet"]


@pytest.mark.parametrize("entry", [trial("a", "RUNNING"), trial("a", kind="experiment")])
def test_a_file_that_may_change_is_asked_for_again(server: Server, downloads: Downloads, entry: Entry) -> None:
    for _ in range(2):
        assert downloads.read(entry, "plan.json") == b"plan.json of a"
    assert len(server.asked) == 2


def test_a_file_that_is_not_there_may_come_later(server: Server, downloads: Downloads, tmp_path: Path) -> None:
    for reader in (downloads, downloads, Downloads(tmp_path / "downloads", server)):
        assert reader.read(trial("a"), "nothing") is None
    assert len(server.asked) == 2
    assert not [path for path in (tmp_path / "downloads").rglob("*") if path.is_file()]


def test_many_files_are_fetched_before_they_are_read(server: Server, downloads: Downloads) -> None:
    wanted = [(trial(run), path) for run in "abcdef" for path in ("history.json", "no.parquet", "weights.parquet")]
    downloads.fetch([*wanted, (trial("g", "RUNNING"), "history.json")])
    assert sorted(server.asked) == sorted(f"{entry.run}/{path}" for entry, path in wanted)
    server.asked.clear()
    for entry, path in wanted:
        content = downloads.read(entry, path)
        assert content == (None if path == "no.parquet" else f"{path} of {entry.run}".encode())
    assert not server.asked


def test_an_error_is_not_taken_for_a_file_that_is_not_there(tmp_path: Path) -> None:
    def fail(*_: object) -> bool:
        raise RuntimeError("no credentials")

    downloads = Downloads(tmp_path, fail)
    with pytest.raises(RuntimeError, match="no credentials"):
        downloads.read(trial("a"), "history.json")
    with pytest.raises(RuntimeError, match="no credentials"):
        downloads.fetch([(trial("a"), "history.json")])
