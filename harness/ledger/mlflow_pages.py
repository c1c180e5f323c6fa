"""How an experiment looks on MLflow's pages: a table and a chart of its trials, and their addresses.

MLflow keeps a shared view as JSON in a tag of the experiment and opens it by its key. The fields are those of MLflow's
page state (``ExperimentPageUIState``); MLflow ignores the ones that it does not know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from harness.ledger.entries import KIND

#: MLflow's prefix of the tags that hold shared views.
PREFIX = "mlflow.sharedViewState."
TABLE, CHART = "harness-table", "harness-chart"
#: Columns of the table, with their widths in pixels; ``label`` is the method with the settings that are not defaults.
COLUMNS = {
    "tags.`label`": 130, "tags.`source`": 110, "tags.`benchmark`": 130, "tags.`seed`": 70, "tags.`fraction`": 80,
    "metrics.`test_accuracy`": 120, "metrics.`test_f1`": 100, "metrics.`seconds_train`": 120,
}  # fmt: skip


def shared_views() -> dict[str, str]:
    """The tags of an MLflow experiment that hold its table and its chart."""
    table: dict[str, Any] = {
        "searchFilter": f"tags.`{KIND}` = 'trial'",
        "orderByKey": "metrics.`test_accuracy`",
        "orderByAsc": False,
        "selectedColumns": list(COLUMNS),
        "columnOrder": list(COLUMNS),
        "columnWidths": COLUMNS,
        "runsHiddenMode": "SHOW_ALL",
    }
    sections = [_section("harness-results", "Results", True), _section("harness-rest", "Model metrics", False)]
    charts = [_parallel(metric, sections[0]["uuid"]) for metric in ("test_accuracy", "test_f1")]
    chart = table | {"compareRunCharts": charts, "compareRunSections": sections, "runListHidden": True}
    return {PREFIX + TABLE: json.dumps(table), PREFIX + CHART: json.dumps(chart)}


def _section(key: str, name: str, opened: bool) -> dict[str, Any]:
    return {
        "uuid": key, "name": name, "display": opened, "columns": 1, "cardHeight": 420, "isReordered": False,
        "deleted": False, "isGenerated": False,
    }  # fmt: skip


def _parallel(metric: str, section: str, params: Sequence[str] = ("task.name", "source", "method.name")) -> Any:
    """A chart with an axis for each parameter and one for the metric; unlike MLflow's bars, its axes have labels."""
    return {
        "uuid": f"harness-{metric}", "type": "PARALLEL", "metricSectionId": section, "deleted": False,
        "isGenerated": False, "showAllRuns": True, "selectedParams": list(params), "selectedMetrics": [metric],
    }  # fmt: skip


def table_address(server: str, experiment: str) -> str:
    """The address of an experiment's table, by the server's address and the id of the MLflow experiment."""
    return f"{_runs(server, experiment)}?viewStateShareKey={TABLE}&workflowType=machine_learning"


def chart_address(server: str, experiment: str) -> str:
    """The address of an experiment's chart, by the server's address and the id of the MLflow experiment."""
    return f"{_runs(server, experiment)}?viewStateShareKey={CHART}&compareRunsMode=CHART&workflowType=machine_learning"


def without_password(text: str) -> str:
    """A text in which ``***`` replaces the passwords of URIs."""
    return re.sub(r"(://[^\s:/@]*):[^\s/@]+@", r"\1:***@", text)


def _runs(server: str, experiment: str) -> str:
    parts = urlsplit(server)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")  # without a password
    return f"{address}/#/experiments/{experiment}/runs"
