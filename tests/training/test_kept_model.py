"""A kept model needs its whole vocabulary; the rest is tested with ``harness weigh``."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config.experiment import load
from harness.errors import TrialError
from harness.planning.plan import make
from harness.store import Store
from harness.training.kept_model import check, is_kept, write


def test_a_trimmed_vocabulary_is_refused(experiment_file, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    trial = make(load(experiment_file()), None).jobs[0].trial
    with pytest.raises(TrialError, match=r"set training\.vocabulary to full"):
        check(trial)
    check(make(load(experiment_file(training={"vocabulary": "full"})), None).jobs[0].trial)
    store = Store(str(tmp_path))
    assert not is_kept(trial, store)
    with pytest.raises(TrialError, match=f"the store has no model of the trial {trial.id}"):
        write(trial, ("a", "b", "c"), store, tmp_path / "model")
