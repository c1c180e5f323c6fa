"""``harness ui``: MLflow's pages on a local ledger, for this machine only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from rich.console import Console

from harness.errors import UserError
from harness.ledger.entries import EXPERIMENT, KIND, SqliteReader

#: Seconds that the server gets to end by itself.
PATIENCE = 10.0


def serve(uri: str, port: int, out: Console) -> int:
    """Runs the server until it is stopped, and ends all of its processes; its exit status.

    Raises:
        UserError: there is no ledger yet.
    """
    if uri.startswith("http"):
        out.print(f"The ledger is a server already: {uri}")
        return 0
    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not file.exists():
        raise UserError(f"no ledger at {uri}; run an experiment first, or name its --home")
    address = f"http://127.0.0.1:{port}"
    out.print(f"MLflow on {uri}: {address} (stop it with Ctrl-C)", soft_wrap=True)
    for name, link in links(uri, address).items():
        out.print(f"  trials of {name}: {link}", soft_wrap=True, markup=False)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        [*command, "--port", str(port), "--workers", "1"], env=environment, start_new_session=True
    )  # fmt: skip

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        return server.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
        end_group(server)


def end_group(server: subprocess.Popen[bytes]) -> None:
    """Ends a process that leads its own group, and everything in the group."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            server.poll()
            os.killpg(server.pid, 0)  # raises once the group is gone
            time.sleep(0.1)
        os.killpg(server.pid, signal.SIGKILL)


def links(uri: str, address: str) -> dict[str, str]:
    """Experiment name -> address of its trials in MLflow, the best test accuracy first, as a chart and a table."""
    if not uri.startswith("sqlite:///"):
        return {}
    out = {}
    for name, entry in SqliteReader(uri).parents().items():
        condition = f"tags.`{KIND}` = 'trial' and tags.`{EXPERIMENT}` = '{name}'"
        query = f"searchFilter={quote(condition)}&orderByKey={quote('metrics.`test_accuracy`')}&orderByAsc=false"
        out[name] = f"{address}/#/experiments/{entry.experiment}/runs?{query}&compareRunsMode=CHART"
    return out
