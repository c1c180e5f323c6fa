"""The time that trials will take, by the finished ones."""

from __future__ import annotations

import pytest

from harness.config.experiment import MethodChoice, Training
from harness.planning.estimate import PAST_KEYS, past_rate
from harness.planning.trials import Task, Trial, TrialStage


def trial(**training: object) -> Trial:
    digests = {name: letter * 64 for name, letter in zip(("generated", "validation", "test"), "abc", strict=True)}
    return Trial(
        task=Task(name="toy", labels=("no", "yes"), digests=digests), source="generated",
        stages=(TrialStage(splits=("generated",), weighted=True, training=Training(**training)),),
        method=MethodChoice(name="ce"), seed=0, fraction=None, encoder="some/encoder", encoder_identity="e", threads=2,
        workers=1, device="cpu",
    )  # fmt: skip


def past(rate: float, **tags: str) -> tuple[dict[str, str], dict[str, float]]:
    same = {"encoder": "some/encoder", "threads": "2", "device": "cpu", "benchmark": "toy"}
    return same | tags, {"rows_per_second": rate}


@pytest.mark.parametrize(
    ("training", "rate"),
    [({}, 30.0), ({"precision": "bfloat16"}, 100.0), ({"layers": 2}, 200.0), ({"layers": 3}, None)],
)
def test_only_trials_of_the_same_kind_count(training: dict[str, object], rate: float | None) -> None:
    every = [
        past(20.0), past(30.0, precision="float32", layers=""), past(40.0), past(1.0, encoder="another"),
        past(2.0, threads="1"), past(3.0, device="cuda"), past(100.0, precision="bfloat16"), past(200.0, layers="2"),
        ({"encoder": "some/encoder", "threads": "2", "device": "cpu", "benchmark": "toy"}, {}),
    ]  # fmt: skip
    assert past_rate(trial(**training), dict(zip(map(str, range(len(every))), every, strict=True))) == rate


def test_trials_of_the_same_benchmark_are_preferred() -> None:
    others = {"a": past(10.0, benchmark="another"), "b": past(50.0)}
    assert past_rate(trial(), others) == 50.0
    assert past_rate(trial(), {"a": others["a"]}) == 10.0


def test_all_that_is_read_is_asked_of_the_ledger() -> None:
    class Recording(dict[str, str]):
        asked: set[str] = set()

        def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
            self.asked.add(key)
            return super().get(key, default)

    tags, metrics = past(50.0)
    assert past_rate(trial(), {"a": (Recording(tags), metrics)}) == 50.0
    assert Recording.asked | {"rows_per_second"} == set(PAST_KEYS)
