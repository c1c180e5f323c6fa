"""Trials in a store that others use at the same time, and that fails now and then."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import threading
import time
import uuid
from pathlib import Path

import pytest
import torch

from harness.errors import StoreError, TrialError
from harness.store import Store, leases, retries
from harness.store import files as store_files
from harness.training import run_trial, trial_result, turn
from harness.training.process_group import ProcessGroup
from harness.training.trial_result import TrialResult
from tests.flaky import FlakyFileSystem
from tests.training.small import fill, find
from tests.training.test_run_trial import assert_same_bits

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(leases, "RENEWAL", 0.1)
    monkeypatch.setattr(leases, "SETTLE", 0.1)
    monkeypatch.setattr(leases, "_machine", lambda: "")  # as on several machines
    monkeypatch.setattr(turn, "POLL", 0.02)


@pytest.fixture(scope="module")
def job(small_plan):
    return find(small_plan, "real_small", "ce")


@pytest.fixture(scope="module")
def finished(small_plan, job, tmp_path_factory):
    """A store in which the trial was trained, and nobody else was."""
    store = fill(small_plan, tmp_path_factory.mktemp("finished"))
    run_trial.run(job, store, lambda entry: None)
    return store


@pytest.fixture(scope="module")
def alone(job, finished):
    """Its result."""
    return trial_result.load_result(job.trial, finished)


@pytest.fixture
def store(small_plan, tmp_path):
    return fill(small_plan, tmp_path / "store")


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The processes that have begun to train, each time that they do. Forked processes count too."""
    path, train = tmp_path / "trained", run_trial._train
    path.touch()

    def counted(*args):
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return train(*args)

    monkeypatch.setattr(run_trial, "_train", counted)
    return lambda: [int(line) for line in path.read_text().split()]


def test_two_processes_that_start_at_once_train_once(job, store, alone, trained):
    barrier, copy = FORK.Barrier(2), Store(f"{store.root}/copy")

    def run():
        barrier.wait()
        return run_trial.run(job, store, lambda entry: None)

    other = FORK.Process(target=lambda: trial_result.save_result(job.trial, run(), copy))
    other.start()
    own = run()
    other.join()
    assert other.exitcode == 0
    assert len(trained()) == 1
    for result in (own, trial_result.load_result(job.trial, copy)):
        assert_same_bits(result, alone)
    assert store.files.read(f"leases/{job.trial.id}.json") is None


@pytest.mark.parametrize("end", ["killed", "failed"])
def test_a_worker_that_ends_without_a_result_is_replaced(end, job, store, alone, trained, monkeypatch):
    go, lease = FORK.Event(), f"leases/{job.trial.id}.json"

    def other():
        def train(*_):
            go.wait()
            raise TrialError("the loss is not finite")

        run_trial._train = train
        run_trial.run(job, store, lambda entry: None)

    process = FORK.Process(target=other)
    process.start()
    while not store.files.exists(lease):
        time.sleep(0.01)
    results = []
    own = threading.Thread(target=lambda: results.append(run_trial.run(job, store, lambda entry: None)))
    own.start()
    time.sleep(0.3)
    assert trained() == [], "the other worker holds the lease"
    if end == "killed":
        os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.3)
        assert trained() == [], "the lease is not stale"
        monkeypatch.setattr(leases, "STALE", 0.5)
    else:
        go.set()
    own.join()
    process.join()
    assert trained() == [os.getpid()]
    assert_same_bits(results[0], alone)
    assert store.files.read(lease) is None


class Peers:
    """Threads in the place of the processes of a group: the maximum of their numbers, once all have given one."""

    def __init__(self, size):
        self.barrier, self.values = threading.Barrier(size), [0] * size

    def of(self, rank):
        def maximum(tensor):
            self.values[rank] = int(tensor)
            self.barrier.wait()
            largest = max(self.values)
            self.barrier.wait()
            return torch.tensor(largest)

        group = ProcessGroup(torch.device("cpu"), rank, 2)
        object.__setattr__(group, "maximum", maximum)
        return group


@pytest.mark.parametrize("finishes", [True, False])
def test_a_process_group_waits_and_decides_as_one(finishes, store):
    """Its first process alone looks at the lease."""
    results, seen, peers = [], {}, Peers(2)
    result = TrialResult([], {}, {}, {})
    holder = leases.Lease("trial", store.files)
    assert holder.take()

    def member(rank):
        with turn.turn("trial", lambda: results[0] if results else None, store, peers.of(rank)) as stored:
            seen[rank] = stored

    members = [threading.Thread(target=member, args=(rank,)) for rank in range(2)]
    for thread in members:
        thread.start()
    time.sleep(0.1)
    assert seen == {}
    results += [result] if finishes else []
    holder.release()
    for thread in members:
        thread.join()
    assert seen == ({0: result, 1: result} if finishes else {0: None, 1: None})
    assert store.files.read("leases/trial.json") is None


def test_a_store_that_fails_in_every_third_call(small_plan, job, alone, monkeypatch):
    monkeypatch.setattr(retries, "WAITS", (0.0, 0.0))
    root = f"flaky://{uuid.uuid4().hex}"
    result = run_trial.run(job, fill(small_plan, root), lambda entry: None)
    assert_same_bits(result, alone)
    assert_same_bits(trial_result.load_result(job.trial, Store(root)), alone)
    assert {"read", "write", "look"} <= FlakyFileSystem.failures.keys()


def test_a_full_disk_fails_the_place_and_gives_the_lease_up(job, store, monkeypatch):
    write = store_files.write_atomically

    def full(path, content):
        if path.parent.name == "trials":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(store_files, "write_atomically", full)
    with pytest.raises(StoreError, match=r"is full \([0-9,]+ MB free\): cannot write trials/"):
        run_trial.run(job, store, lambda entry: None)
    assert store.files.read(f"leases/{job.trial.id}.json") is None


def test_damaged_files_are_computed_again_or_named(small_plan, job, finished, alone, trained, tmp_path):
    store = Store(str(shutil.copytree(finished.root, tmp_path / "copy")))
    for file in Path(store.root).glob("*/*.npz"):
        if file.parent.name != "splits":
            file.write_bytes(file.read_bytes()[:-30])
    (scores,) = Path(store.root).glob("scores/*")
    with pytest.raises(StoreError, match=f"scores/{scores.name} is damaged; delete it and run the same command again"):
        run_trial.run(find(small_plan, "generated", "dimp"), store, lambda entry: None)
    assert_same_bits(run_trial.run(job, store, lambda entry: None), alone)
    assert len(trained()) == 2
    for file in Path(store.root).glob("*/*.npz"):
        assert store.get(file.parent.name, file.stem) is not None, "all are whole again"
