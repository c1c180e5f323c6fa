"""When a run starts no further trials, and which trials hang."""

from __future__ import annotations

from harness.cluster.watch import PlaceWatch, SilenceWatch


def test_three_failures_of_the_place_in_a_row_stop_the_run() -> None:
    watch = PlaceWatch()
    for _ in range(2):
        watch.failed("StoreError\nno space left", place=True)
    watch.finished()
    for _ in range(2):
        watch.failed("no space left", place=True)
        watch.failed("the loss is nan", place=False)
    assert watch.reason == ""
    watch.failed("Traceback\nno space left", place=True)
    assert watch.reason == "3 trials in a row failed because of the place they ran in. The last: no space left"


def test_trials_that_fail_of_themselves_stop_nothing() -> None:
    watch = PlaceWatch()
    for _ in range(100):
        watch.failed("the loss is nan", place=False)
    assert watch.reason == ""


def test_a_trial_is_silent_after_the_limit_and_named_once() -> None:
    now = [0.0]
    watch: SilenceWatch[str] = SilenceWatch(1.0, lambda: now[0])
    for trial in ("a", "b", "c"):
        watch.heard(trial)
    now[0] = 40.0
    watch.heard("b")
    watch.ended("c")
    now[0] = 59.0
    assert watch.silent() == []
    now[0] = 65.0
    assert watch.silent() == ["a"]
    now[0] = 75.0
    assert watch.silent() == []
    now[0] = 101.0
    assert watch.silent() == ["b"]
    watch.heard("a")
    now[0] = 170.0
    assert watch.silent() == ["a"], "started again, it can hang again"


def test_without_a_limit_nothing_is_silent() -> None:
    now = [0.0]
    watch: SilenceWatch[str] = SilenceWatch(None, lambda: now[0])
    watch.heard("a")
    now[0] = 1e9
    assert watch.silent() == []
