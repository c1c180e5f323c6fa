"""Clusters of several nodes on this machine: joined with and without a token, and losing a node during a run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from harness.cluster import connection, tune
from harness.cluster.authentication import MODE, TOKEN, TOKEN_PATH
from harness.cluster.nodes import alive_nodes
from harness.config.resources import Resources
from harness.errors import UserError
from harness.planning.trials import Job
from harness.store import Store
from tests.cli.test_cli import free_port

from .small import Listener, jobs_of, result_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
PATIENCE = 600.0
OTHER_DISK = "mount -t tmpfs none {folder} && exec {command}"


class RayNodes:
    """`ray start` on this machine, several times: each a process group that can be killed like a machine.

    Args:
        home: the home folder of all nodes.
    """

    def __init__(self, home: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        # short: the path of a socket has at most 107 characters
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self._environment = {k: v for k, v in os.environ.items() if k not in (MODE, TOKEN, TOKEN_PATH)}
        self._environment |= {"HOME": str(home)}
        self._nodes: list[psutil.Popen] = []

    def start(self, *, instead_of: Path | None = None, mode: str = "") -> psutil.Popen:
        """One more node with one core, the first as head; ``instead_of`` is a folder that is an own disk there."""
        port = self.address.rpartition(":")[2]
        words = ["--head", f"--port={port}", "--include-dashboard=false"] if not self._nodes else []
        words = words or [f"--address={self.address}"]
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", *words, "--block", "--num-cpus=1",
            f"--temp-dir={self._folder}", "--object-store-memory=100000000", "--disable-usage-stats",
        ]  # fmt: skip
        if instead_of is not None:
            mounted = OTHER_DISK.format(folder=instead_of, command=" ".join(command))
            command = ["unshare", "--mount", "sh", "-c", mounted]
        log = self._folder / f"node{len(self._nodes)}.txt"
        with log.open("w") as file:
            node = psutil.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env=self._environment | ({MODE: mode} if mode else {}),
            )  # fmt: skip
        self._nodes.append(node)
        end = time.monotonic() + PATIENCE
        while "Ray runtime started." not in log.read_text():
            assert node.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        return node

    def end(self) -> None:
        for node in self._nodes:
            kill(node)
        shutil.rmtree(self._folder, ignore_errors=True)


def kill(node: psutil.Popen) -> None:
    """What a power cut does to a node: all its processes end at once."""
    processes = [node, *node.children(recursive=True)] if node.is_running() else []
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    node.wait(60)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of the driver."""
    for name in (MODE, TOKEN, TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RayNodes]:
    nodes = RayNodes(tmp_path / "home_of_nodes")
    (tmp_path / "home_of_nodes").mkdir()
    try:
        yield nodes
    finally:
        connection.disconnect()
        nodes.end()


def write_token(home: Path, token: str) -> None:
    (home / ".ray").mkdir(exist_ok=True)
    (home / ".ray" / "auth_token").write_text(token)


class Killer(Listener):
    """Kills a node at the first evaluation of any trial at which a trial runs on it."""

    def __init__(self, node: psutil.Popen) -> None:
        super().__init__()
        self.node = node
        self.killed = False

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        super().evaluated(job, entry)
        if not self.killed and any("ImplicitFunc.train" in p.name() for p in self.node.children(recursive=True)):
            self.killed = True
            kill(self.node)


def test_a_run_survives_a_node_and_the_console_stays_quiet(
    cluster: RayNodes, home: Path, tmp_path: Path, experiment_file: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Without tokens, although an earlier Ray has left one on this machine."""
    write_token(home, "left over")
    cluster.start()
    lost = cluster.start()
    joined = connection.connect(cluster.address, tmp_path)
    assert joined.recommendation
    assert [node.cpus for node in joined.nodes] == [1, 1]
    assert not joined.autoscaling
    store = Store(str(tmp_path / "store"))
    connection.check_store(store, joined)
    training = {"epochs": 30, "batch_size": 16, "learning_rate": 5e-3}
    jobs = jobs_of(
        experiment_file(training=training, grid=[{"source": "generated", "methods": ["ce", "focal"]}]), store
    )
    listener = Killer(lost)
    capfd.readouterr()
    tune.run(jobs, Resources(), store, joined, listener, tmp_path / "scratch")
    assert listener.killed
    assert listener.errors == {}
    assert [what for what, _ in listener.events].count("died") >= 1
    for job in jobs:
        assert len(result_of(job, store).history) == 30
    assert len(alive_nodes()) == 1
    assert capfd.readouterr() == ("", "")
    connection.disconnect()
    assert joined.log is not None
    assert "marked dead" in joined.log.read_text()
    assert "RAY_AUTH_MODE" not in os.environ


def test_tokens(cluster: RayNodes, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A cluster that wants one, for drivers with the right one, a wrong one and none."""
    write_token(tmp_path / "home_of_nodes", "the right token of this cluster")
    cluster.start(mode="token")
    cluster.start(mode="token")
    with pytest.raises(UserError, match=r"wants a token, and none was found here"):
        connection.connect(cluster.address, tmp_path)
    write_token(home, "a wrong token")
    with pytest.raises(UserError, match=rf"refuses the token of {home}/\.ray/auth_token"):
        connection.connect(cluster.address, tmp_path)
    write_token(home, "the right token of this cluster")
    joined = connection.connect(cluster.address, tmp_path)
    assert joined.recommendation == ""
    assert len(joined.nodes) == 2
    connection.check_store(Store(str(tmp_path / "store")), joined)
    connection.disconnect()
    # a Ray of its own, beside it and in the same process
    write_token(home, "a wrong token")
    alone = connection.connect(None, tmp_path)
    add: Any = ray.remote(lambda x: x + 1)
    assert ray.get(add.remote(1), timeout=PATIENCE) == 2
    assert alone.address is None
    assert len(alone.nodes) == 1
    connection.disconnect()
    assert (home / ".ray" / "auth_token").read_text() == "a wrong token"
    assert capfd.readouterr() == ("", "")


def test_a_node_with_another_disk_is_named(cluster: RayNodes, home: Path, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    folder = tmp_path / "store"
    folder.mkdir()
    cluster.start()
    cluster.start(instead_of=folder)
    joined = connection.connect(cluster.address, tmp_path)
    with pytest.raises(UserError, match=r"^node \S+ does not see the driver's files in the store .*--store s3://"):
        connection.check_store(Store(str(folder)), joined)
    assert list(folder.iterdir()) == []


def test_a_local_ray_writes_no_token(home: Path, tmp_path: Path) -> None:
    home.chmod(0o555)
    try:
        connection.connect(None, tmp_path)
    finally:
        connection.disconnect()
    assert list(home.iterdir()) == []
