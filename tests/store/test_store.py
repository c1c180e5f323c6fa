from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import uuid
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.data.split import Split
from harness.data.split_files import load_split, save_split
from harness.errors import StoreError
from harness.store import Store, digest

SPLIT = Split("test", ("a", "b"), ("ein Text", "другой"), None, np.array([1, 0]))
PAIRS = Split("test", ("a", "b"), ("one", "two"), ("eins", ""), np.array([1, 0]))


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    root = str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4().hex}/store"
    return Store(root)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_round_trip(store):
    arrays = {"a": np.arange(6, dtype=np.int8).reshape(2, 3), "b": np.float32([np.nan, np.inf]), "c": np.zeros((0, 2))}
    assert not store.has("kind", "key")
    assert store.get("kind", "key") is None
    store.put("kind", "key", **arrays)
    assert store.has("kind", "key")
    assert not store.has("other", "key")
    loaded = store.get("kind", "key")
    assert loaded.keys() == arrays.keys()
    for name, values in arrays.items():
        assert (loaded[name].dtype, loaded[name].tobytes()) == (values.dtype, values.tobytes())
    store.put("kind", "key", a=np.ones(1))
    assert store.get("kind", "key").keys() == {"a"}


def test_all_artifacts_of_a_kind_are_removed(store):
    store.remove_all("kind")  # nothing is there: nothing happens
    for kind, key in (("kind", "a"), ("kind", "b"), ("other", "a")):
        store.put(kind, key, x=np.ones(1))
    store.remove_all("kind")
    assert not store.has("kind", "a")
    assert not store.has("kind", "b")
    assert store.has("other", "a")


def test_objects_are_neither_written_to_be_run_nor_read(store):
    store.put("kind", "key", a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        store.get("kind", "key")


@pytest.mark.parametrize("split", [SPLIT, PAIRS])
def test_splits(store, split):
    save_split(split, store)
    loaded = load_split(split.digest, store)
    assert (loaded.name, loaded.ids, loaded.texts, loaded.pairs) == (split.name, split.ids, split.texts, split.pairs)
    assert loaded.labels.tolist() == split.labels.tolist()


def test_a_split_that_is_not_there(store):
    with pytest.raises(StoreError) as caught:
        load_split("0123456789abcdef", store)
    assert str(caught.value).startswith(
        f"split 0123456789ab is not in the store {store.root}; run the experiment again."
    )
    assert ("Nodes that joined later must see the same folder" in str(caught.value)) == store.local


def test_a_damaged_split_is_refused(store):
    save_split(SPLIT, store)
    blob = store.get("splits", SPLIT.digest)
    store.put("splits", SPLIT.digest, labels=blob["labels"][::-1], text=blob["text"])
    with pytest.raises(StoreError, match="is damaged; delete it and run again"):
        load_split(SPLIT.digest, store)


def test_a_split_is_written_once(store, monkeypatch):
    save_split(SPLIT, store)
    monkeypatch.setattr(store, "put", lambda *_, **__: pytest.fail("written again"))
    save_split(SPLIT, store)


def test_a_writer_that_fails_midway_leaves_nothing(tmp_path, monkeypatch):
    store = Store(str(tmp_path))

    def full(_):
        assert len(files(tmp_path)) == 1, "the file under way is beside its place"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2e6))
    with pytest.raises(StoreError) as caught:
        store.put("kind", "key", a=np.arange(1000))
    assert str(caught.value).startswith(
        f"the store {tmp_path} is full (2 MB free): cannot write kind/key.npz. Free some"
    )
    assert files(tmp_path) == []
    assert not store.has("kind", "key")


def test_a_writer_that_is_killed_midway_leaves_no_artefact(tmp_path):
    """A child process dies, without any clean-up, just before the file would get its name."""
    store = Store(str(tmp_path))
    store.put("kind", "old", a=np.arange(3))
    child = os.fork()
    if child == 0:
        Path.replace = lambda *_: os._exit(9)
        store.put("kind", "old", a=np.arange(100))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(files(tmp_path)) == 2
    assert store.get("kind", "old")["a"].tolist() == [0, 1, 2]
    store.put("kind", "old", a=np.arange(4))
    assert len(store.get("kind", "old")["a"]) == 4


def test_writers_and_readers_at_once_see_whole_artefacts(store):
    wrong = []
    done = threading.Event()

    def write(value):
        for _ in range(15):
            store.put("kind", "key", a=np.full(5000, value), b=np.full(5000, value))

    def read():
        while not done.is_set():
            blob = store.get("kind", "key")
            if blob is not None and len({*blob["a"].tolist(), *blob["b"].tolist()}) != 1:
                wrong.append(blob)

    writers = [threading.Thread(target=write, args=(value,)) for value in range(3)]
    reader = threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert not wrong
    if store.local:
        assert [path.name for path in files(Path(store.root))] == ["key.npz"]


def test_no_damage_goes_unnoticed(store, monkeypatch):
    """Every truncation and every changed byte of a file is found, or changes no array (times in the zip, say)."""
    store.put("kind", "key", a=np.arange(3))
    whole = store.files.read("kind/key.npz")
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    damaged += [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(len(whole))]
    unnoticed = []
    for content in damaged:
        monkeypatch.setattr(store, "_read", lambda name, content=content: content)
        arrays = store.get("kind", "key", replaceable=True)
        if arrays is not None:
            unnoticed.append(content)
            assert arrays["a"].tolist() == [0, 1, 2]
    assert len(unnoticed) < len(damaged) / 3
    monkeypatch.setattr(store, "_read", lambda name: whole[:-1])
    with pytest.raises(StoreError) as caught:
        store.get("kind", "key")
    assert str(caught.value) == f"{store.root}/kind/key.npz is damaged; delete it and run the same command again"


def test_one_of_several_threads_creates_a_file(store):
    name, won = "leases/key.json", []
    barrier = threading.Barrier(8)

    def create(number):
        barrier.wait()
        if store.files.create(name, str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.files.read(name) == str(won[0]).encode()
    store.files.remove(name)
    store.files.remove(name)
    assert store.files.read(name) is None
    assert store.files.refuses_to_replace(name, b"") == store.local, "fsspec looks first and then writes"


def test_a_relative_root_means_the_same_place_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("here")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    store.put("kind", "key", a=np.ones(1))
    assert files(tmp_path) == [tmp_path / "here" / "kind" / "key.npz"]


def test_local_and_remote():
    assert Store("x").local
    assert Store("file:///tmp/x").local
    assert not Store("memory://x").local


def test_digest():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest("a", "b") != digest("ab")
    assert digest("1") != digest(1)
    assert digest("tokens", 1, "é") == hashlib.sha256('["tokens",1,"é"]'.encode()).hexdigest()
    with pytest.raises(TypeError):
        digest(object())
