"""What a report takes from the ledger's files."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pandas as pd

from harness.reports.load import _weights


def test_a_row_has_its_last_weight_and_its_mean_one() -> None:
    told = pd.DataFrame({"id": ["a", "b"], "label": ["x", "y"], "text": ["one", "two"], "pair": ["eins", "zwei"]})
    told = told.assign(weight_1=[1.0, 1.0], weight_2=[0.0, float("nan")], weight_3=[2.0, 3.0])
    buffer = io.BytesIO()
    told.to_parquet(buffer)
    ledger: Any = SimpleNamespace(artifact=lambda run, name: buffer.getvalue())
    entry: Any = SimpleNamespace(run="r")
    frame = _weights({"seed": 4}, entry, 3, ledger)
    assert frame["weight"].tolist() == [2.0, 3.0]
    assert frame["mean_weight"].tolist() == [1.0, 2.0], "epochs in which a row was not seen do not count"
    assert frame["text"].iloc[0] == "one  //  eins"
    assert frame["seed"].tolist() == [4, 4]
