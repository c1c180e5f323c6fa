"""A trial on two devices (here: two CPU processes, gloo) gives what it gives on one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from harness.cluster import tune
from harness.cluster.nodes import Cluster
from harness.config.resources import Resources
from harness.data.split_files import load_split, save_split
from harness.planning.trials import Job
from harness.store import Store
from harness.training import run_trial

from .small import Listener, assert_same_bits, jobs_of, result_of

#: 48 generated rows: batches of 47 leave a last one of a single row, in which one of two workers has nothing to do.
SETTINGS = {
    "plain": ["training.batch_size=16"],
    "one row left": ["training.batch_size=47"],
    "accumulated": ["training.batch_size=47", "training.accumulation=3"],
    "by steps": ["training.batch_size=10", "training.steps=7"],
}
#: without warm-up, so that every step asks; sungen's inner trainings make and undo worker groups of their own
META = [
    {"name": "ren", "warm_up": 0, "real_rows": 5},
    {"name": "hu", "warm_up": 0, "relative": False, "decay": 1.0},
    {"name": "hu", "warm_up": 1, "lookahead": "sgd", "step_size": 0.1},
    {"name": "sungen", "rounds": 2, "inner_epochs": 1, "outer": "real", "step_size": 0.01},
    {"name": "dimp", "lag": "epoch"},
]
NORMALIZED = {"name": "focal", "normalize": True}


def in_group(rank: int, size: int, rendezvous: str, jobs: list[str], store: str) -> None:
    """What each process of a group does."""
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size)
    for text in jobs:
        run_trial.run(Job.model_validate_json(text), Store(store), lambda entry: None)
    if size > 1:
        interrupt_and_resume(rank, [Job.model_validate_json(text) for text in jobs], store)
        dist.destroy_process_group()


def interrupt_and_resume(rank: int, jobs: list[Job], store: str) -> None:
    """Runs some jobs again, in a store of their own, with an interruption at their second evaluation."""

    def stop(entry: dict[str, float]) -> None:
        if entry["epoch"] == 2:
            raise InterruptedError

    if rank == 0:
        shutil.copytree(store, f"{store}-resumed", ignore=shutil.ignore_patterns("trials"))
    dist.barrier()
    for job in (job for job in jobs if resumes(job)):
        for report in (stop, lambda entry: None):
            with suppress(InterruptedError):
                run_trial.run(
                    job.model_copy(update={"resources": job.resources.model_copy(update={"checkpoint": True})}),
                    Store(f"{store}-resumed"),
                    report,
                )


def resumes(job: Job) -> bool:
    """Jobs that are interrupted too: their processes draw real rows, or have a state that differs between them."""
    return job.trial.method.name in ("ren", "dimp")


def run_group(jobs: list[Job], size: int, store: Store, folder: Path) -> None:
    texts = [job.model_dump_json() for job in jobs]
    torch.multiprocessing.spawn(in_group, (size, str(folder / f"rendezvous{size}"), texts, store.root), nprocs=size)


def assert_close(one: Job, two: Job, store: Store, tolerance: float = 2e-4) -> None:
    a, b = result_of(one, store), result_of(two, store)
    assert len(a.history) == len(b.history)
    for x, y in zip(a.history, b.history, strict=True):
        assert x.keys() == y.keys()
        for key in ("train_loss", "validation_loss", "test_loss", "weight_mean", "weight_max", "weight_ess"):
            assert y[key] == pytest.approx(x[key], abs=tolerance), (key, x, y)
        assert (x["epoch"], x["step"]) == (y["epoch"], y["step"])
    for name, values in a.arrays.items():
        np.testing.assert_allclose(b.arrays[name], values, atol=10 * tolerance, err_msg=name)


def grid(methods: list[object]) -> dict[str, object]:
    return {"seeds": [0], "grid": [{"source": "generated", "methods": methods}]}


@pytest.fixture(scope="module")
def trained(
    experiment_file: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, tuple[list[Job], list[Job]]], Store]:
    """Every setting on one process and on two."""
    folder = tmp_path_factory.mktemp("groups")
    store, file = Store(str(folder / "store")), experiment_file(**grid(["ce", NORMALIZED]))
    meta = experiment_file(**grid(META))
    jobs = {
        name: (jobs_of(file, store, *settings), jobs_of(file, store, *settings, "resources.workers=2"))
        for file, name, settings in [
            *((file, *item) for item in SETTINGS.items()), (meta, "meta", ["training.batch_size=47"]),
        ]
    }  # fmt: skip
    for size in (1, 2):
        run_group([job for pair in jobs.values() for job in pair[size - 1]], size, store, folder)
    return jobs, store


@pytest.mark.parametrize("name", [*SETTINGS, "meta"])
def test_two_workers_give_the_numbers_of_one(
    name: str, trained: tuple[dict[str, tuple[list[Job], list[Job]]], Store]
) -> None:
    jobs, store = trained
    for one, two in zip(*jobs[name], strict=True):
        assert one.trial.id != two.trial.id
        assert result_of(two, store).environment["workers"] == "2"
        assert_close(one, two, store)


def test_an_interrupted_group_goes_on_to_the_same_bits(
    trained: tuple[dict[str, tuple[list[Job], list[Job]]], Store],
) -> None:
    jobs, store = trained
    resumed, again = [job for job in jobs["meta"][1] if resumes(job)], Store(f"{store.root}-resumed")
    assert [result_of(job, again).runtime["resumed"] for job in resumed] == [1.0, 1.0]
    assert_same_bits(resumed, store, again)


def test_normalized_weights_matter_here(trained: tuple[dict[str, tuple[list[Job], list[Job]]], Store]) -> None:
    jobs, store = trained
    plain, normalized = (result_of(job, store).history[-1]["train_loss"] for job in jobs["plain"][0])
    assert abs(plain - normalized) > 0.01


def test_worker_groups_through_ray(
    trained: tuple[dict[str, tuple[list[Job], list[Job]]], Store], cluster: Cluster, tmp_path: Path,
    experiment_file: Callable[..., Path],
) -> None:  # fmt: skip
    """One group gives the numbers of processes that know nothing of Ray, another fails and says why."""
    if cluster.cpus < 2:
        pytest.skip("needs two cores")
    jobs, direct = trained
    job = jobs["one row left"][1][1]
    store, listener = Store(str(tmp_path / "store")), Listener()
    for digest in job.trial.task.digests.values():
        save_split(load_split(digest, direct), store)
    diverges = ("training.learning_rate=1e30", "training.gradient_norm=1e30", "resources.workers=2")
    (failing,) = jobs_of(experiment_file(**grid(["ce"])), store, *diverges)
    tune.run([job, failing], Resources(workers=2), store, cluster, listener, tmp_path / "scratch")
    assert listener.errors.keys() == {failing.trial.id}
    assert "is nan at step" in listener.errors[failing.trial.id]
    result, expected = result_of(job, store), result_of(job, direct)
    assert result.environment["workers"] == "2"
    assert listener.entries[job.trial.id] == result.history
    assert [entry["test_loss"] for entry in result.history] == pytest.approx(
        [entry["test_loss"] for entry in expected.history], abs=1e-4
    )
