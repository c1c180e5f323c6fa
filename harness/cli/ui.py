"""``harness ui``: starts MLflow on the ledger, for this machine only, and prints where its pages are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

from rich.console import Console

from harness.errors import UserError
from harness.ledger.mlflow_pages import chart_address, table_address, without_password
from harness.paths import Paths

#: Seconds until a server that ignores SIGTERM is killed.
PATIENCE = 10.0


def serve(paths: Paths, port: int, out: Console) -> int:
    """Runs the server until it is stopped, then ends all of its processes; the server's exit status.

    Raises:
        UserError: there is no ledger yet, or it cannot be used.
    """
    uri = paths.tracking_uri
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise UserError(f"no ledger at {uri}; run an experiment first, or pass the --home of one")
    from harness.ledger.mlflow_ledger import Ledger

    experiments = Ledger(uri, paths.home).add_views()
    if uri.startswith("http"):
        out.print(f"The ledger is a server already: {without_password(uri)}", soft_wrap=True, markup=False)
        _print_addresses(experiments, uri, out)
        return 0
    address = f"http://127.0.0.1:{port}"
    out.print(f"MLflow on {without_password(uri)}: {address} (stop it with Ctrl-C)", soft_wrap=True, markup=False)
    _print_addresses(experiments, address, out)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        [*command, "--port", str(port), "--workers", "1"], env=environment, start_new_session=True
    )  # fmt: skip

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    handler = signal.signal(signal.SIGTERM, stop)
    try:
        return server.wait()
    finally:
        signal.signal(signal.SIGTERM, handler)
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


def _print_addresses(experiments: Mapping[str, str], server: str, out: Console) -> None:
    for name, experiment in experiments.items():
        for view, address in (("trials", table_address), ("chart", chart_address)):
            out.print(f"  {view} of {name}: {address(server, experiment)}", soft_wrap=True, markup=False)
