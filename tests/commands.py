"""`harness` as a user starts it: its own process, on a home folder of its own, whose ledger can be looked into."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from mlflow import MlflowClient
from mlflow.entities import Run

from harness.ledger.mlflow_ledger import Ledger

PATIENCE = 600.0  # seconds until a test gives up; nothing waits so long where all is well
STARTED: list[psutil.Popen] = []  # what `Home.start` began in this test session


def hears_ctrl_c() -> None:
    """In a process that begins: Ctrl-C counts. Processes that run tests side by side ignore it, which is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Home:
    """A home folder with its ledger, store and reports."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder / 'home' / 'mlflow.db'}"

    def command(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "harness.cli.app", *map(str, words)]

    def environment(self, **changes: str) -> dict[str, str]:
        inherited = {
            k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "HARNESS_STORE")
        }
        # wide: rich breaks lines at the width of a terminal
        return (
            inherited | {"HARNESS_HOME": str(self.folder / "home"), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"} | changes
        )

    def __call__(self, *words: object, **changes: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=PATIENCE, check=False,
            env=self.environment(**changes), cwd=self.folder,
        )  # fmt: skip

    def run(self, file: Path, *words: object, **changes: str) -> subprocess.CompletedProcess[str]:
        """`harness run`, to its end."""
        return self("run", file, "--results", self.results, *words, **changes)

    def start(self, file: Path, **changes: str) -> psutil.Popen:
        """`harness run`, going on by itself; its output goes to the log.

        The ledger is made first: a test that looks into it must not be the one that makes its tables.
        """
        Ledger(self.tracking_uri, self.folder / "home")
        with self.log.open("a") as log:
            driver = psutil.Popen(
                self.command("run", file, "--results", self.results), stdout=log, stderr=subprocess.STDOUT,
                env=self.environment(**changes), cwd=self.folder, start_new_session=True,
                preexec_fn=hears_ctrl_c,
            )  # fmt: skip
        STARTED.append(driver)
        return driver

    def table(self, name: str = "small") -> bytes:
        return (self.results / name / "trials.csv").read_bytes()

    # -- the ledger ----------------------------------------------------------------------------------------------

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri)

    def runs(self, kind: str) -> list[Run]:
        """The runs of a kind (``experiment`` or ``trial``), none before the ledger has been made."""
        if self.tracking_uri.startswith("sqlite") and not (self.folder / "home" / "mlflow.db").exists():
            return []
        client = self.client
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(experiments, f"tags.`harness.kind` = '{kind}'"))

    def statuses(self) -> list[str]:
        """The status of every child run."""
        return sorted(run.info.status for run in self.runs("trial"))

    def finished(self) -> dict[str, int]:
        """Trial id -> how often it is finished."""
        counts: dict[str, int] = {}
        for run in self.runs("trial"):
            if run.info.status == "FINISHED":
                id_ = run.data.tags["harness.trial"]
                counts[id_] = counts.get(id_, 0) + 1
        return counts


def wait_for(condition: Callable[[], bool], process: psutil.Popen, what: str) -> None:
    """Looks until a condition holds while a process lives."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"it ended with {process.returncode} before {what}"
        assert time.monotonic() < end, f"no sign of {what}"
        time.sleep(0.05)


def wait_for_server(port: int, server: psutil.Popen) -> None:
    """Looks until an MLflow server on this machine answers."""

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    wait_for(answers, server, "an answer of the server")


def end(server: psutil.Popen) -> None:
    """Ends a server and all that it started."""
    left = family(server)
    for process in reversed(left):
        process.terminate()
    server.wait(PATIENCE)
    for process in gone(left):
        process.kill()


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all that it started."""
    return [process, *process.children(recursive=True)]


def gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that are still there after a while (there should be none).

    Ray's two agents end by themselves once they find their raylet gone, but only after they have started, which on a
    busy machine takes minutes: they are ended here and do not count.
    """
    counted = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if "agent" in f"{process.name()} {' '.join(process.cmdline())}".lower():
                process.kill()
            else:
                counted.append(process)
    _, alive = psutil.wait_procs(counted, timeout=60)
    left = []
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
    return left


def kill(process: psutil.Popen) -> list[psutil.Process]:
    """kill -9; what it leaves behind.

    Ray's processes end with their parent once they have said so to the kernel. A gcs_server whose parent dies in the
    instant before stays, idle and alone: it is ended here and does not count, for no trial runs in it.
    """
    left = family(process)
    process.send_signal(signal.SIGKILL)
    assert process.wait(PATIENCE) == -signal.SIGKILL
    counted = []
    for orphan in gone(left):
        with suppress(psutil.NoSuchProcess):
            if orphan.name() == "gcs_server":
                orphan.kill()
            else:
                counted.append(orphan)
    return counted


def kill_all() -> None:
    """Ends what a failed test has left running."""
    while STARTED:
        driver = STARTED.pop()
        if driver.poll() is None:
            for process in kill(driver):
                process.kill()
