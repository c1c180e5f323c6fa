"""What a worker says of a store that has failed: the place, not the trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.cluster import tune
from harness.errors import StoreError, TrialError
from tests.ledger.test_mlflow_ledger import job


@pytest.mark.parametrize(
    ("error", "text", "place"),
    [(StoreError("disk full"), "disk full", True), (TrialError("NaN"), "NaN", False), (ValueError("odd"), None, False)],
)
def test_a_failed_store_is_told_from_a_failed_trial(
    error: Exception, text: str | None, place: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: object) -> None:
        raise error

    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(tune.tune, "report", reports.append)
    monkeypatch.setattr(tune, "WorkerLog", lambda: type("Log", (), {"end": lambda self: "the end"})())
    tune._attempt(job(), str(tmp_path), tmp_path, fit)
    (report,) = reports
    assert (report["status"], report["place"]) == (0, place)
    assert report["error"] == text if text else "ValueError: odd" in report["error"]
    assert report["log"].startswith("the end")
    assert "Traceback" in report["error"] + report["log"]
