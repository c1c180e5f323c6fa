"""What a run shows while it goes on."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from harness.cli.progress import Progress, duration


def job(id_: str) -> Any:
    trial = SimpleNamespace(
        id=id_,
        evaluations=4,
        task=SimpleNamespace(name="t"),
        source="generated",
        seed=0,
        fraction=None,
        fold=None,
    )
    return cast(Any, SimpleNamespace(trial=trial, label="ce", variants=("",)))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def shown() -> tuple[Progress, Clock, io.StringIO]:
    clock, text = Clock(), io.StringIO()
    return Progress(Console(file=text, width=200), clock), clock, text


def test_the_remaining_time_follows_from_the_work_done(shown):
    progress, clock, text = shown
    big, small = job("big"), job("small")
    progress.begin([big, small], 2, lambda j: 300.0 if j is big else 100.0)
    assert progress.remaining() is None
    progress.started(big)
    clock.now = 15.0
    progress.evaluated(big, {"epoch": 1.0})  # a quarter of 300, of 400 in all
    assert progress.done == pytest.approx(75 / 400)
    assert progress.remaining() == pytest.approx(15 / 75 * 325)
    assert text.getvalue() == "2 trials to run, 2 at a time\n"
    clock.now = 40.0
    progress.evaluated(big, {"epoch": 2.0})
    assert text.getvalue().splitlines()[-1] == "38% done, about 67 s left"
    progress.died(big, "exit code 3")
    assert progress.done == 0.0
    progress.finished(big, {"test_accuracy": 0.5, "test_f1": 0.25})
    line = "[1/2] t · generated · ce · seed 0: accuracy 0.500, macro F1 0.250 (40 s; about 13 s left)"
    assert line in text.getvalue()
    progress.failed(small, "first\nlast line")
    assert "[2/2] t · generated · ce · seed 0: FAILED: last line (0 s; all done in 40 s)" in text.getvalue()


def test_results_that_were_in_the_store_say_nothing_of_the_time_left(shown):
    progress, clock, _ = shown
    jobs = [job(str(number)) for number in range(10)]
    progress.begin(jobs, 1, lambda j: 100.0)
    for stored in jobs[:8]:
        progress.started(stored)
        progress.finished(stored, {"test_accuracy": 0.5, "test_f1": 0.25})
    assert progress.remaining() is None, "nothing has been computed yet"
    progress.started(jobs[8])
    clock.now = 20.0
    progress.finished(jobs[8], {"test_accuracy": 0.5, "test_f1": 0.25})
    assert progress.remaining() == pytest.approx(20.0)


def test_a_cluster_without_room_yet_and_a_note(shown):
    progress, _, text = shown
    progress.begin([job("one")], 0, lambda j: 1.0)
    progress.note("[a note]")
    assert text.getvalue() == "1 trial to run, as soon as the autoscaler has added a node\n[a note]\n"


def test_durations_as_text():
    texts = [duration(seconds) for seconds in (0.2, 42, 99, 100, 3599, 7800)]
    assert texts == ["0 s", "42 s", "99 s", "2 min", "1 h 0 min", "2 h 10 min"]
