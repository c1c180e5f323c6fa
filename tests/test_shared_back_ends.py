"""`harness` on shared back ends: MLflow on PostgreSQL, artifacts and the store in S3, with a local run's results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.back_ends import BUCKET, MlflowServer, back_ends, postgres_binaries, s3_keys
from tests.commands import Home, kill, kill_all, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

TRIALS = 8
OUTAGE = 30.0  # seconds


@dataclass(frozen=True)
class SharedHome(Home):
    """A home folder whose ledger and store are elsewhere."""

    server: MlflowServer

    @property
    def tracking_uri(self) -> str:
        return self.server.uri

    def environment(self, **changes: str) -> dict[str, str]:
        s3 = {key: value for key, value in self.server.environment.items() if key.startswith("AWS_")}
        shared = {"MLFLOW_TRACKING_URI": self.server.uri, "HARNESS_STORE": f"s3://{BUCKET}/store"}
        return super().environment(**s3, **shared, **changes)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    with back_ends(binaries, tmp_path_factory.mktemp("back_ends")) as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    kill_all()


def test_a_killed_driver_and_a_server_that_is_gone_for_a_while_lose_nothing(
    server: MlflowServer, experiment_file: Callable[..., Path], tmp_path: Path
) -> None:
    grid = [
        {"source": "real_small", "methods": ["ce"]},
        {"source": "generated", "methods": ["ce", "imp", "dimp"]},
    ]
    file = experiment_file(grid=grid, seeds=[0, 1], training={"epochs": 25, "batch_size": 16, "learning_rate": 5e-3})
    (tmp_path / "local").mkdir()
    local = Home(tmp_path / "local")
    assert local.run(file).returncode == 0

    (tmp_path / "shared").mkdir()
    shared = SharedHome(tmp_path / "shared", server)
    driver = shared.start(file)
    wait_for(lambda: len(shared.finished()) >= 1, driver, "a finished trial")
    kill(driver)
    before = shared.finished()
    assert 1 <= len(before) < TRIALS, "the driver was killed in the middle"

    driver = shared.start(file)
    wait_for(lambda: len(shared.finished()) > len(before), driver, "another finished trial")
    assert len(shared.finished()) < TRIALS, "the server is stopped in the middle"
    server.stop()
    _goes_on(driver, OUTAGE)
    server.start()
    assert driver.wait(600) == 0, shared.log.read_text()

    assert shared.finished() == local.finished(), "every trial is finished once"
    assert before.items() <= shared.finished().items()
    assert shared.table() == local.table()
    assert [run.info.status for run in shared.runs("experiment")] == ["FINISHED"]
    assert len(s3_keys(server.environment, "mlflow/")) > 4 * TRIALS, "artifacts went through the server into S3"
    assert len([key for key in s3_keys(server.environment, "store/") if key.endswith(".npz")]) > TRIALS
    assert not (shared.folder / "home" / "store").exists()
    assert not (shared.folder / "home" / "artifacts").exists()

    again = shared.run(file)
    assert f"0 trials run, {TRIALS} done before, 0 failed." in again.stdout, again.stderr

    (tmp_path / "elsewhere").mkdir()
    elsewhere = SharedHome(tmp_path / "elsewhere", server)  # another machine: nothing but the addresses
    report = elsewhere("report", "small", "--results", elsewhere.results)
    assert report.returncode == 0, report.stderr
    assert elsewhere.table() == local.table()
    assert (elsewhere.results / "small" / "report.html").exists()


def _goes_on(driver: psutil.Popen, seconds: float) -> None:
    """Waits, and checks that the driver does not end meanwhile."""
    time.sleep(seconds)
    assert driver.poll() is None, f"it ended with {driver.returncode} while the server was gone"
