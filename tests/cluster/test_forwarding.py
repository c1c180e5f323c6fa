"""Training goes on while its reports are forwarded; none is lost, and errors come after them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from harness.cluster.forwarding import Entry, run

Report = Callable[[Entry], None]


def test_every_entry_is_forwarded_in_order_by_this_thread() -> None:
    forwarded: list[Entry] = []
    threads = set()

    def train(report: Report) -> None:
        threads.add(threading.get_ident())
        for number in range(100):
            report({"epoch": number})

    def forward(entries: list[Entry]) -> None:
        assert threading.get_ident() not in threads
        forwarded.extend(entries)

    last = run(train, forward)
    assert [entry["epoch"] for entry in forwarded + last] == list(range(100))


def test_training_does_not_wait_and_what_comes_meanwhile_is_forwarded_together() -> None:
    reported, go_on = threading.Event(), threading.Event()
    calls: list[list[Any]] = []

    def train(report: Report) -> None:
        report({"epoch": 1})
        assert go_on.wait(10)
        report({"epoch": 2})
        report({"epoch": 3})
        reported.set()  # although the first call of `forward` has not returned

    def forward(entries: list[Entry]) -> None:
        calls.append([entry["epoch"] for entry in entries])
        if len(calls) == 1:
            go_on.set()
            assert reported.wait(10)

    last = [entry["epoch"] for entry in run(train, forward)]
    assert calls[0] == [1]
    assert calls[1:] + ([last] if last else []) == [[2, 3]]


def test_an_error_comes_after_the_entries_before_it() -> None:
    forwarded: list[Entry] = []

    def train(report: Report) -> None:
        report({"epoch": 1})
        raise ValueError("nan")

    with pytest.raises(ValueError, match="nan"):
        run(train, forwarded.extend)
    assert forwarded == [{"epoch": 1}]


def test_all_trials_of_a_process_train_in_the_same_thread() -> None:
    threads = []
    for _ in range(3):
        run(lambda report: threads.append(threading.get_ident()), lambda entries: None)
    assert len(set(threads)) == 1
