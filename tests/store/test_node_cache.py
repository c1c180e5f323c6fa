"""Artifacts of a store that is not local are fetched once a node."""

from __future__ import annotations

import threading
import time
import uuid

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from harness.store import Store, node_cache


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_NODE_CACHE", str(tmp_path))
    root = f"memory://{uuid.uuid4().hex}/store"
    monkeypatch.setenv("HARNESS_NODE_CACHE", str(tmp_path / "another node"))
    for kind in ("splits", "trials"):
        Store(root).put(kind, "key", a=np.arange(4))
    monkeypatch.setenv("HARNESS_NODE_CACHE", str(tmp_path))
    return root


@pytest.fixture
def fetched(monkeypatch):
    """The files that are read from the store, slowly."""
    names, original = [], MemoryFileSystem.cat_file

    def cat_file(self, path, **kwargs):
        names.append(path.rpartition("store/")[2])
        time.sleep(0.05)
        return original(self, path, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    return names


def test_workers_that_ask_at_once_fetch_once(root, fetched):
    read = []
    workers = [threading.Thread(target=lambda: read.append(Store(root).get("splits", "key")["a"])) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [values.tolist() for values in read] == [[0, 1, 2, 3]] * 6
    assert fetched == ["splits/key.npz"]


def test_results_are_fetched_each_time(root, fetched):
    for _ in range(2):
        assert Store(root).get("trials", "key") is not None
    assert fetched == ["trials/key.npz"] * 2


def test_what_a_node_has_written_is_not_fetched(root, fetched):
    Store(root).put("splits", "key", a=np.zeros(1))
    assert Store(root).get("splits", "key")["a"].tolist() == [0.0]
    assert fetched == []


def test_a_missing_artifact_is_missed_only_until_it_is_there(root, fetched, tmp_path, monkeypatch):
    assert Store(root).get("scores", "key") is None
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("HARNESS_NODE_CACHE", str(tmp_path / "another node"))
        Store(root).put("scores", "key", a=np.ones(1))
    assert Store(root).get("scores", "key") is not None


def test_a_damaged_file_of_the_cache_is_fetched_again(root, fetched, tmp_path):
    for damage in (lambda content: content[:-9], lambda content: b""):
        assert Store(root).get("splits", "key")["a"].tolist() == [0, 1, 2, 3]
        for file in tmp_path.glob("harness-*/*/splits/key.npz"):
            file.write_bytes(damage(file.read_bytes()))
        fetched.clear()
        assert Store(root).get("splits", "key")["a"].tolist() == [0, 1, 2, 3]
        assert fetched == ["splits/key.npz"]


def test_a_node_without_a_place_for_the_cache_reads_the_store(root, fetched, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_NODE_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert Store(root).get("splits", "key") is not None
    assert fetched == ["splits/key.npz"] * 2


def test_the_files_not_used_for_longest_are_removed(root, tmp_path, monkeypatch):
    store = Store(root)
    store.put("splits", "1", a=np.zeros(0))
    size = next(tmp_path.glob("harness-*/*/splits/1.npz")).stat().st_size
    monkeypatch.setattr(node_cache, "LIMIT", 4.5 * size)
    for key in ("2", "3", "4"):
        time.sleep(0.01)
        store.put("splits", key, a=np.zeros(0))
    time.sleep(0.01)
    store.get("splits", "1")
    store.put("splits", "5", a=np.zeros(0))
    assert sorted(file.stem for file in tmp_path.glob("harness-*/*/splits/*.npz")) == ["1", "4", "5"]
    assert store.get("splits", "2") is not None


def test_a_local_store_has_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_NODE_CACHE", str(tmp_path / "cache"))
    store = Store(str(tmp_path / "store"))
    store.put("splits", "key", a=np.zeros(1))
    store.get("splits", "key")
    assert not (tmp_path / "cache").exists()
