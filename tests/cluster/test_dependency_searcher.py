"""When the queue releases which job. No Ray is started."""

from __future__ import annotations

import json

import pytest
from ray.tune.search import Searcher

from harness.cluster.tune import DependencySearcher, kinds_of_resources
from harness.config.experiment import MethodChoice, Training
from harness.config.resources import Resources
from harness.planning.trials import Job, Task, Trial, TrialStage

from .small import Listener

STAGE = TrialStage(splits=("generated",), weighted=True, training=Training())


def job(method: str, seed: int = 0, quality: Job | None = None, diversity: Job | None = None) -> Job:
    trial = Trial(
        task=Task(name="toy", labels=("a", "b"), digests={}), source="generated", method=MethodChoice(name=method),
        seed=seed, fraction=None, encoder="e", encoder_identity="e", threads=1, workers=1, stages=(STAGE,),
        device="cpu", quality=quality and quality.trial.id, diversity=diversity and diversity.trial.id,
    )  # fmt: skip
    return Job(trial=trial, label=method)


QUALITY, DIVERSITY = job("ce", 1), job("ce", 2)
IMP = job("imp", quality=QUALITY, diversity=DIVERSITY)
DIMP = job("dimp", quality=QUALITY)
ALONE = job("focal")
JOBS = {one.trial.id: one for one in (QUALITY, DIVERSITY, IMP, DIMP, ALONE)}


def suggested(queue: DependencySearcher, name: str) -> Job | object | None:
    config = queue.suggest(name)
    return JOBS[config["trial"]] if isinstance(config, dict) else config


def test_a_job_is_released_as_soon_as_its_own_checkers_are_done() -> None:
    queue = DependencySearcher([QUALITY, DIVERSITY, IMP, DIMP], Listener())
    assert suggested(queue, "t1") == QUALITY
    assert suggested(queue, "t2") == DIVERSITY
    assert suggested(queue, "t3") is None
    queue.on_trial_complete("t1", {"status": 1})
    assert suggested(queue, "t3") == DIMP, "DIMP needs the quality checker only; IMP still waits"
    assert suggested(queue, "t4") is None
    queue.on_trial_complete("t2", {"status": 1})
    assert suggested(queue, "t4") == IMP
    assert suggested(queue, "t5") == Searcher.FINISHED


def test_jobs_without_open_checkers_come_in_the_order_given() -> None:
    queue = DependencySearcher([ALONE, QUALITY, DIVERSITY], Listener())
    assert [suggested(queue, f"t{i}") for i in range(3)] == [ALONE, QUALITY, DIVERSITY]


def test_no_more_jobs_than_the_cluster_has_room_for() -> None:
    room = [1]
    queue = DependencySearcher([QUALITY, DIVERSITY, ALONE], Listener(), limit=lambda: room[0])
    assert suggested(queue, "t1") == QUALITY
    assert suggested(queue, "t2") is None
    room[0] = 2  # a node has joined
    assert suggested(queue, "t2") == DIVERSITY
    assert suggested(queue, "t3") is None
    queue.on_trial_complete("t1", {"status": 1})
    assert suggested(queue, "t3") == ALONE
    assert suggested(queue, "t4") == Searcher.FINISHED, "nothing waits, whatever the room"


def test_a_checker_that_is_not_among_the_jobs_counts_as_done() -> None:
    queue = DependencySearcher([IMP], Listener())
    assert suggested(queue, "t1") == IMP


def test_a_queue_without_jobs_is_finished() -> None:
    assert DependencySearcher([], Listener()).suggest("t1") == Searcher.FINISHED


@pytest.mark.parametrize(
    ("result", "error"),
    [({"status": 0, "error": "NaN"}, False), (None, True), ({"entry": {"epoch": 1.0}}, False), (None, False)],
    ids=["its own error", "process died", "no last word", "nothing"],
)
def test_a_failed_checker_closes_what_needs_it_and_nothing_else(result: dict[str, object] | None, error: bool) -> None:
    listener = Listener()
    needs_imp = job("dimp", 7, quality=IMP)
    queue = DependencySearcher([QUALITY, DIVERSITY, IMP, needs_imp, ALONE], listener)
    suggested(queue, "t1"), suggested(queue, "t2")
    queue.on_trial_complete("t1", result, error)
    assert suggested(queue, "t3") == ALONE
    assert listener.errors == {
        IMP.trial.id: f"its checker {QUALITY.trial.id} failed",
        needs_imp.trial.id: f"its checker {IMP.trial.id} failed",
    }
    assert suggested(queue, "t4") == Searcher.FINISHED


def test_no_job_is_given_once_a_stop_is_requested() -> None:
    requested: list[str] = []
    queue = DependencySearcher([QUALITY, IMP, ALONE], Listener(), stop=lambda: requested)
    assert suggested(queue, "t1") == QUALITY
    requested.append("now")
    assert suggested(queue, "t2") == Searcher.FINISHED
    queue.on_trial_complete("t1", {"status": 1})
    assert suggested(queue, "t3") == Searcher.FINISHED


def test_what_tune_pickles_of_the_queue_holds_nothing_of_ours() -> None:
    assert json.dumps(DependencySearcher([QUALITY], Listener()).__getstate__()) == "{}"


def test_a_suggestion_names_its_resources_by_their_number_among_the_different_ones() -> None:
    """Tune unpickles the function that looks them up for every trial: it must not hold one entry a trial."""
    jobs = [job("ce", seed).model_copy(update={"resources": Resources(cpus=1 + seed % 2)}) for seed in range(6)]
    kinds = kinds_of_resources(jobs)
    assert kinds == [Resources(cpus=1), Resources(cpus=2)]
    queue = DependencySearcher(jobs, Listener())
    configs = [queue.suggest(f"t{number}") for number in range(6)]
    assert [kinds[config["resources"]].cpus for config in configs] == [1, 2, 1, 2, 1, 2]
