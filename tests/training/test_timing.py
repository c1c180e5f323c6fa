"""The phases of a trial and their wall time."""

from __future__ import annotations

from harness.phases import LABELS, Phase
from harness.training.timing import PhaseTimer
from tests.training.small import HERE


def test_a_phase_within_a_phase_pauses_the_outer_one(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 10.0])  # outer begins, inner begins, inner ends, outer ends
    monkeypatch.setattr("harness.training.timing.time.perf_counter", lambda: next(clock))
    timer = PhaseTimer(HERE.device)
    with timer.phase(Phase.TRAIN), timer.phase(Phase.META_GRADIENT):
        pass
    assert timer.seconds == {Phase.TRAIN: 7.0, Phase.META_GRADIENT: 3.0}
    assert timer.runtime() == {"seconds_train": 7.0, "seconds_meta_gradient": 3.0}


def test_every_phase_has_a_label_and_a_key():
    assert set(LABELS) == set(Phase)
    assert Phase.TOKENIZE.key == "seconds_tokenize"
    assert len({phase.label for phase in Phase}) == len(Phase)
