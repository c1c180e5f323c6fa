"""What a worker says of a store that has failed: the place, not the trial."""

from __future__ import annotations

import pytest

from harness.cluster import train, tune
from harness.config.experiment import Resources
from harness.errors import StoreError, TrialError
from harness.planning.trials import Job


@pytest.mark.parametrize(
    ("error", "text"), [(StoreError("disk full"), "StoreError: disk full"), (TrialError("NaN"), "NaN")]
)
def test_a_failed_store_is_told_from_a_failed_trial(error, text, tmp_path, monkeypatch):
    def fit(*_):
        raise error

    reports = []
    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr(tune.tune, "report", reports.append)
    monkeypatch.setattr(Job, "model_validate_json", lambda _: None)
    tune._trainable(str(tmp_path), Resources(), tmp_path)({"job": ""})
    assert reports == [{"status": 0, "error": text}]
