"""The heartbeat of a driver, and how a request to stop reaches it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping

import pytest

from harness.ledger import signals
from harness.ledger.signals import ALIVE, BEGAN, STOP, Signals, Stop


class Tags:
    """The tags of one run, in memory; it can be out of reach."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {STOP: "now"}  # left by an earlier run
        self.reachable = True
        self.looked = threading.Semaphore(0)

    def tags(self, run: str) -> Mapping[str, str]:
        self.looked.release()
        if not self.reachable:
            raise OSError("out of reach")
        return dict(self.values)

    def set_tags(self, run: str, tags: Mapping[str, str]) -> None:
        if not self.reachable:
            raise OSError("out of reach")
        self.values |= tags


@pytest.fixture
def tags(monkeypatch: pytest.MonkeyPatch) -> Tags:
    monkeypatch.setattr(signals, "LOOK_SECONDS", 0.01)
    return Tags()


def test_entering_writes_the_times_and_forgets_an_earlier_request(tags: Tags) -> None:
    with Signals(tags, "run", clock=lambda: 7.5) as driver:
        assert tags.values == {ALIVE: "7500", BEGAN: "7500", STOP: ""}
        tags.looked.acquire()
        assert not driver.stop_requested()


def test_the_heartbeat_goes_on(tags: Tags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "BEAT_SECONDS", 0.02)
    with Signals(tags, "run"):
        first = tags.values[ALIVE]
        deadline = time.monotonic() + 10
        while tags.values[ALIVE] == first:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    assert tags.values[BEGAN] <= first


def test_a_request_to_stop_after_the_running_trials_disturbs_nothing_else(tags: Tags) -> None:
    driver = Signals(tags, "run")
    tags.values[STOP] = Stop.AFTER_RUNNING
    assert not driver.stop_requested(), "it has not looked yet"
    driver.look()
    assert driver.stop_requested() is Stop.AFTER_RUNNING


def test_a_request_to_stop_now_interrupts_the_main_thread_once(tags: Tags) -> None:
    before = signal.getsignal(signals.WAKE)
    with Signals(tags, "run") as driver:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            tags.values[STOP] = Stop.NOW
            time.sleep(10)
        assert driver.stop_requested() is Stop.NOW
        driver.look()
    assert signal.getsignal(signals.WAKE) == before


def test_a_driver_that_ignores_ctrl_c_is_interrupted_too(tags: Tags) -> None:
    """As one that a script starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals(tags, "run"), pytest.raises(KeyboardInterrupt):  # noqa: PT012
            tags.values[STOP] = Stop.NOW
            time.sleep(10)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_ledger_out_of_reach_is_asked_again(tags: Tags) -> None:
    with Signals(tags, "run") as driver:
        tags.reachable = False
        for _ in range(3):
            assert tags.looked.acquire(timeout=10)
        tags.values[STOP] = Stop.AFTER_RUNNING
        tags.reachable = True
        for _ in range(4):
            assert tags.looked.acquire(timeout=10)
        assert driver.stop_requested() is Stop.AFTER_RUNNING
