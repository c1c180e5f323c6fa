"""A process that has run other trials gives the same bits as a fresh one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from harness.cluster import tune
from harness.cluster.nodes import Cluster
from harness.config.resources import Resources
from harness.planning.trials import Job
from harness.store import Store

from .small import Listener, assert_same_bits, jobs_of, result_of

FRESH = """
import sys
from harness.store import Store
from harness.training.run_trial import run
from harness.planning.trials import Job
run(Job.model_validate_json(sys.stdin.read()), Store(sys.argv[1]), lambda entry: None)
"""


class Watcher(Listener):
    """Also looks which processes run trials."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: set[int] = set()

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        super().evaluated(job, entry)
        for process in psutil.Process().children(recursive=True):
            try:
                if process.cmdline()[0].startswith("ray::ImplicitFunc"):
                    self.processes.add(process.pid)
            except (psutil.Error, IndexError):
                continue


@pytest.fixture(scope="module")
def fresh(experiment_file: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Job], Store]:
    """Every trial in a process of its own."""
    store = Store(str(tmp_path_factory.mktemp("fresh")))
    file = experiment_file(seeds=[0], grid=[{"source": "generated", "methods": ["ce", "imp"]}])
    jobs = jobs_of(file, store)
    assert len(jobs) == 3
    for job in jobs:
        subprocess.run([sys.executable, "-c", FRESH, store.root], input=job.model_dump_json(), text=True, check=True)
    return jobs, store


@pytest.mark.parametrize("concurrent", [1, 2])
def test_reused_processes_give_the_bits_of_fresh_ones(
    concurrent: int, fresh: tuple[list[Job], Store], cluster: Cluster, tmp_path: Path,
    experiment_file: Callable[..., Path],
) -> None:  # fmt: skip
    if cluster.cpus < concurrent:
        pytest.skip(f"needs {concurrent} cores")
    jobs, expected = fresh
    store, watcher = Store(str(tmp_path / "store")), Watcher()
    # trials of another seed first and in between, so that a process has something to carry over
    others = jobs_of(experiment_file(seeds=[0, 5], grid=[{"source": "generated", "methods": ["ce", "imp"]}]), store)
    assert {job.trial.id for job in jobs} < {job.trial.id for job in others}
    others.sort(key=lambda job: (bool(job.trial.checkers), -job.trial.seed))
    tune.run(others, Resources(concurrent=concurrent), store, cluster, watcher, tmp_path)
    assert watcher.errors == {}
    assert [what for what, _ in watcher.events].count("finished") == len(others)
    assert len(watcher.processes) == concurrent, "the actors were not reused"
    assert_same_bits(jobs, expected, store)


def test_every_evaluation_reaches_the_driver(
    cluster: Cluster, tmp_path: Path, experiment_file: Callable[..., Path]
) -> None:
    store, listener = Store(str(tmp_path / "store")), Listener()
    jobs = jobs_of(experiment_file(seeds=[3], grid=[{"source": "generated", "methods": ["ce"]}]), store)
    tune.run(jobs, Resources(), store, cluster, listener, tmp_path / "scratch")
    (job,) = jobs
    assert listener.events == [("started", job.trial.id), ("finished", job.trial.id)]
    assert listener.entries[job.trial.id] == result_of(job, store).history
    assert list((tmp_path / "scratch").iterdir()) == [], "Ray's own files are gone"
