"""Thirty faults during one run: is anything lost, is anything counted twice, is the table the same bit for bit?

Sixty or more small fine-tunes run on a Ray cluster of two nodes on this machine, with an MLflow server as ledger. At
random moments something is broken: a trial's process is killed, stops, or is out of room; a node, the head or the
driver is lost; the driver is interrupted; the MLflow server is away or answers with errors. The driver is started again
with the same command whenever it has ended. Afterwards trials.csv must equal that of a run that nothing disturbed.

The seed is printed: the same seed breaks the same things in the same order.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from mlflow_server import Proxy, free_port, start_server
from rich.console import Console
from rich.table import Table

from harness.testing import make_benchmark, make_encoder

GRID = [
    {"source": "real_small", "methods": ["ce"]},
    {"source": "generated", "methods": ["ce", "focal", "imp", "imp_quality", "dimp"]},
]
TRIALS_OF_A_SEED = 6
NAME = "chaos"


class Scene:
    """The cluster, the server, the store and the driver, and what can be broken of them."""

    def __init__(self, folder: Path, file: Path, log: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.file, self.log = folder, file, log
        self.make_cluster: Callable[[], Cluster] = lambda: Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        self.cluster = self.make_cluster()
        self.node = self.cluster.add_node(num_cpus=1)
        port = free_port()
        self.server = start_server(folder, port)
        self.proxy = Proxy(port)
        self.room = folder / "store"
        self.room.mkdir()
        self.limited = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(self.room)], check=False, capture_output=True
        ).returncode == 0  # fmt: skip
        self.driver: psutil.Popen | None = None
        self.starts = 0

    # -- the driver ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the driver, with the same command as always."""
        self.starts += 1
        command = [
            "run", str(self.file), "--results", str(self.folder / "results"), "--address", self.cluster.address,
            "--store", str(self.room), "--tracking-uri", self.proxy.address,
        ]  # fmt: skip
        environment = os.environ | {"HARNESS_HOME": str(self.folder / "home"), "HF_HUB_OFFLINE": "1", "COLUMNS": "160"}
        with self.log.open("a") as log:
            self.driver = psutil.Popen(
                [sys.executable, "-m", "harness.cli", *command], stdout=log, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip

    def running(self) -> bool:
        """Whether the driver is there."""
        return self.driver is not None and self.driver.poll() is None

    # -- faults ----------------------------------------------------------------------------------------------------

    def workers(self) -> list[psutil.Process]:
        """The processes of trials."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if process.cmdline()[:1] == ["ray::ImplicitFunc.train"] and process.status() != psutil.STATUS_STOPPED:
                    found.append(process)
        return found

    def kill_worker(self, rng: random.Random) -> bool:
        """A trial's process is killed, as by the kernel when memory runs out."""
        workers = self.workers()
        if workers:
            rng.choice(workers).kill()
        return bool(workers)

    def hang_worker(self, rng: random.Random) -> bool:
        """A trial's process stops and gives no sign of life."""
        workers = self.workers()
        if workers:
            rng.choice(workers).suspend()
        return bool(workers)

    def lose_node(self, rng: random.Random) -> bool:
        """The second node is gone at once; another joins a few seconds later."""
        self.cluster.remove_node(self.node, allow_graceful=False)
        time.sleep(rng.uniform(1, 5))
        self.node = self.cluster.add_node(num_cpus=1)
        return True

    def lose_head(self, rng: random.Random) -> bool:
        """The whole cluster is gone, with its head; a new one is started."""
        self.cluster.shutdown()
        time.sleep(rng.uniform(1, 3))
        if self.running():
            assert self.driver is not None
            with suppress(psutil.TimeoutExpired):
                self.driver.wait(120)
            if self.running():  # it waits for a head that will not come back
                self.driver.send_signal(signal.SIGINT)
                self.driver.wait(120)
        self.cluster = self.make_cluster()
        self.node = self.cluster.add_node(num_cpus=1)
        return True

    def kill_driver(self, rng: random.Random) -> bool:
        """kill -9 of the driver."""
        assert self.driver is not None
        self.driver.kill()
        self.driver.wait(60)
        return True

    def interrupt_driver(self, rng: random.Random) -> bool:
        """Ctrl-C."""
        assert self.driver is not None
        self.driver.send_signal(signal.SIGINT)
        self.driver.wait(240)
        return True

    def server_away(self, rng: random.Random) -> bool:
        """Nobody answers at the MLflow server's address for some seconds."""
        self.proxy.state = "away"
        time.sleep(rng.uniform(3, 20))
        self.proxy.state = "up"
        return True

    def server_errors(self, rng: random.Random) -> bool:
        """The MLflow server answers every request with 500 for some seconds."""
        self.proxy.state = "500"
        time.sleep(rng.uniform(3, 20))
        self.proxy.state = "up"
        return True

    def full_store(self, rng: random.Random) -> bool:
        """The disk of the store is full for some seconds."""
        if not self.limited:
            return False
        ballast = self.room / "ballast"
        with suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"\0" * 65536)
        time.sleep(rng.uniform(2, 8))
        ballast.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Ends everything."""
        if self.driver is not None and self.running():
            self.driver.kill()
        with suppress(Exception):
            self.cluster.shutdown()
        for process in [*self.server.children(recursive=True), self.server]:
            with suppress(psutil.Error):
                process.kill()
        if self.limited:
            subprocess.run(["umount", str(self.room)], check=False, capture_output=True)


FAULTS: dict[str, Callable[[Scene, random.Random], bool]] = {
    "trial's process killed": Scene.kill_worker,
    "trial hangs": Scene.hang_worker,
    "node lost": Scene.lose_node,
    "head lost": Scene.lose_head,
    "driver killed": Scene.kill_driver,
    "driver interrupted": Scene.interrupt_driver,
    "MLflow server away": Scene.server_away,
    "MLflow server answers 500": Scene.server_errors,
    "store full": Scene.full_store,
}


def disturbed(scene: Scene, faults: int, rng: random.Random, out: Console, patience: float) -> Counter[str]:
    """Runs to the end through ``faults`` faults; how often each happened."""
    planned = [kind for _ in range(1 + faults // len(FAULTS)) for kind in rng.sample(sorted(FAULTS), len(FAULTS))]
    happened: Counter[str] = Counter()
    deadline = time.monotonic() + patience
    scene.start()
    while True:
        if time.monotonic() > deadline:
            raise RuntimeError(f"not at its end after {patience:.0f} s; see {scene.log}")
        if not scene.running():
            assert scene.driver is not None
            if scene.driver.returncode == 0:
                return happened
            scene.start()
        if planned and happened.total() < faults:
            pause(scene, rng.uniform(1.0, 12.0))
            if not scene.running():
                continue
            kind = planned[0]
            start = time.perf_counter()
            if FAULTS[kind](scene, rng):
                planned.pop(0)
                happened[kind] += 1
                out.print(f"{happened.total():>3} {kind} ({time.perf_counter() - start:.0f} s)", style="dim")
            elif kind == "store full":
                planned = [other for other in planned if other != kind]
        else:
            pause(scene, 1.0)


def pause(scene: Scene, seconds: float) -> None:
    """Waits, no longer than the driver runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and scene.running():
        time.sleep(0.1)


def finished(uri: str) -> Counter[str]:
    """How often each trial is finished in a ledger."""
    from mlflow import MlflowClient

    client, token = MlflowClient(uri), None
    counts: Counter[str] = Counter()
    experiment = client.get_experiment_by_name(NAME)
    assert experiment is not None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], "tags.`harness.kind` = 'trial' and attributes.status = 'FINISHED'",
            max_results=1000, page_token=token,
        )  # fmt: skip
        counts.update(run.data.tags["harness.trial"] for run in page)
        token = page.token
        if not token:
            return counts


def main() -> int:
    """Runs undisturbed, runs disturbed, compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--patience", type=float, default=3600.0, help="seconds for the disturbed run (default 3600)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the driver's log there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(10**6)
    out = Console(highlight=False)
    out.print(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        for name in ("encoder", "benchmark", "scene", "quiet"):
            (folder / name).mkdir()
        settings = {
            "name": NAME, "benchmarks": [str(make_benchmark(folder / "benchmark"))], "grid": GRID,
            "encoder": str(make_encoder(folder / "encoder")),
            "seeds": list(range(-(-args.trials // TRIALS_OF_A_SEED))),
            "training": {"epochs": 25, "batch_size": 16, "learning_rate": 5e-3},
            "stages": {"real_small": {"steps": 60}}, "resources": {"retries": 100, "silence_minutes": 0.5},
        }  # fmt: skip
        file = folder / "chaos.yaml"
        file.write_text(json.dumps(settings), encoding="utf-8")
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "harness.cli", "run", str(file), "--results", str(folder / "quiet" / "results")],
            env=os.environ | {"HARNESS_HOME": str(folder / "quiet" / "home"), "HF_HUB_OFFLINE": "1"}, check=True,
            capture_output=True,
        )  # fmt: skip
        quiet = time.perf_counter() - start
        expected = (folder / "quiet" / "results" / NAME / "trials.csv").read_bytes()
        out.print(f"undisturbed: {expected.count(b'finished')} trials in {quiet:.0f} s", style="dim")
        log = folder / "driver.log"
        scene = Scene(folder / "scene", file, log)
        try:
            start = time.perf_counter()
            happened = disturbed(scene, args.faults, random.Random(seed), out, args.patience)
            took = time.perf_counter() - start
            counts = finished(scene.proxy.address)
            table = (scene.folder / "results" / NAME / "trials.csv").read_bytes()
        finally:
            scene.close()
            if args.keep:
                args.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(log, args.keep / "driver.log")
    planned = expected.count(b"finished")
    report = {
        "seed": seed, "trials": planned, "faults": happened.total(), "kinds": len(happened),
        "starts_of_the_driver": scene.starts, "undisturbed_seconds": quiet, "disturbed_seconds": took,
        "missing": planned - len(counts), "counted_twice": sum(count - 1 for count in counts.values()),
        "same_table": table == expected, "by_kind": dict(happened),
    }  # fmt: skip
    summary = Table("", "", show_header=False)
    for key, value in report.items():
        text = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        summary.add_row(key.replace("_", " "), text)
    out.print(summary)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if report["same_table"] and not report["missing"] and not report["counted_twice"] else 1


if __name__ == "__main__":
    sys.exit(main())
