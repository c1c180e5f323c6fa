"""Who holds a lease: one worker, until it gives it up or stops renewing it."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import uuid
from types import SimpleNamespace

import pytest

from harness.errors import StoreError
from harness.store import leases
from harness.store.files import StoreFiles
from harness.store.leases import STALE, Lease


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self, settle):
        self.now, self.sleep = 1000.0, lambda _: time.sleep(settle)

    def monotonic(self):
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock(settle=0.1)
    monkeypatch.setattr(leases, "time", clock)
    monkeypatch.setattr(leases, "RENEWAL", 0.01)
    return clock


@pytest.fixture(params=["folder", "memory"])
def files(request, tmp_path):
    return StoreFiles(str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4().hex}/store")


def fields(files):
    content = files.read("leases/key.json")
    return None if content is None else json.loads(content)


def write(files, **changes):
    files.write(
        "leases/key.json", json.dumps({"owner": "other", "machine": "another", "process": 1} | changes).encode()
    )


def wait_for_renewals(files):
    before = fields(files)["renewals"]
    while fields(files)["renewals"] < before + 2:
        time.sleep(0.005)


def dead_process():
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def at_once(workers, call):
    """Calls ``call`` with each worker at the same moment; returns the workers for which it is true."""
    barrier, chosen = threading.Barrier(len(workers)), []

    def run(worker):
        barrier.wait()
        if call(worker):
            chosen.append(worker)

    threads = [threading.Thread(target=run, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return chosen


def test_one_worker_holds_it_until_it_is_given_up(files, clock):
    first, second = Lease("key", files), Lease("key", files)
    assert first.take()
    assert not second.take()
    other = Lease("other key", files)
    assert other.take()
    second.release()
    assert not second.take(), "who does not hold it gives nothing up"
    wait_for_renewals(files)
    clock.now += 2 * STALE
    assert not second.take(), "it was renewed"
    first.release()
    assert fields(files) is None
    assert second.take()
    for lease in (second, other):
        lease.release()


def test_one_of_several_that_want_it_at_once(files):
    took = at_once([Lease("key", files) for _ in range(6)], Lease.take)
    assert len(took) == 1
    took[0].release()


def test_one_of_several_takes_a_stale_lease_over(files, clock):
    write(files)
    workers = [Lease("key", files) for _ in range(6)]
    assert not any(lease.take() for lease in workers)
    clock.now += STALE - 1
    assert not any(lease.take() for lease in workers)
    clock.now += 2
    took = at_once(workers, Lease.take)
    assert len(took) == 1
    took[0].release()


@pytest.mark.skipif(not leases._machine(), reason="this system does not tell whose process ids are common")
def test_a_process_of_this_machine_that_has_died_is_not_waited_for(files):
    write(files, machine=leases._machine(), process=dead_process())
    lease = Lease("key", files)
    assert lease.take()
    lease.release()


def test_a_process_of_another_machine_may_be_alive(files):
    write(files, process=dead_process())
    assert not Lease("key", files).take()


def test_a_holder_that_was_taken_over_leaves_the_lease_to_the_other(files):
    lease = Lease("key", files)
    assert lease.take()
    wait_for_renewals(files)
    while lease._thread.is_alive():
        write(files)
        time.sleep(0.03)
    lease.release()
    assert fields(files)["owner"] == "other"


def test_a_lease_that_is_half_written_is_waited_for(files, clock):
    files.write("leases/key.json", b'{"owner": "a')
    lease = Lease("key", files)
    assert not lease.take()
    clock.now += STALE + 1
    assert lease.take()
    lease.release()


def test_a_store_that_fails_for_a_while_does_not_end_the_renewals(files, monkeypatch):
    lease, failed = Lease("key", files), threading.Event()

    def fail(*_):
        failed.set()
        raise StoreError("no connection")

    assert lease.take()
    with monkeypatch.context() as outage:
        outage.setattr(files, "write", fail)
        assert failed.wait(60)
    wait_for_renewals(files)
    lease.release()


@pytest.mark.parametrize("replaces", [False, True])
def test_a_server_that_replaces_files_is_found_out(replaces, tmp_path, monkeypatch, clock):
    """There another worker may create the file too, a moment later; whose file it is shows after a wait."""
    content: dict[str, bytes] = {}

    def pipe_file(path, value, mode="overwrite"):
        if mode == "create" and path in content and not replaces:
            raise FileExistsError(path)
        content[path] = value

    def cat_file(path):
        if path not in content:
            raise FileNotFoundError(path)
        return content[path]

    files = StoreFiles(str(tmp_path))
    files.local, files._protocols = False, {"s3"}
    files._system = SimpleNamespace(pipe_file=pipe_file, cat_file=cat_file, rm_file=content.pop)
    clock.sleep = lambda _: write(files)
    lease = Lease("key", files)
    assert lease.take() is not replaces
    lease.release()
    assert bool(content) is replaces
