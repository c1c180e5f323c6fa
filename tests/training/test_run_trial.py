"""A trial as a whole: same bits whatever ran before, scores looked up by id, seeds shared between methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.checkers.scores import Scores, load_scores, save_scores, scores_exist
from harness.data.batches import training_batches
from harness.data.selection import select
from harness.errors import TrialError
from harness.methods import Method, MethodSettings, methods
from harness.planning.plan import missing
from harness.training import run_trial, trial_result
from tests.training.small import fill, find, log_scores


def assert_same_bits(first: trial_result.TrialResult, second: trial_result.TrialResult) -> None:
    assert first.history == second.history
    assert first.arrays.keys() == second.arrays.keys() == {"test", "validation", "weights"}
    for name, values in first.arrays.items():
        assert values.dtype == second.arrays[name].dtype
        assert values.tobytes() == second.arrays[name].tobytes(), name


def digests(split):
    return {split.name: split.digest}


def run_all(plan, store, labels):
    """The results of the generated source's trials with these labels, their checkers before them."""
    results = {}
    for job in plan.jobs:
        if not job.trial.checkers or job.label in labels:
            results[job.trial.source, job.label] = run_trial.run(job, store, lambda entry: None)
    return results


@pytest.fixture(scope="module")
def alone(small_plan, tmp_path_factory):
    """DIMP on generated rows, only its own checker before it."""
    store = fill(small_plan, tmp_path_factory.mktemp("alone"))
    run_trial.run(find(small_plan, "real_small", "ce"), store, lambda entry: None)
    return store, run_trial.run(find(small_plan, "generated", "dimp"), store, lambda entry: None)


def test_result_of_a_trial(small_plan, alone):
    _, result = alone
    splits = small_plan.splits["tiny"]
    assert [entry["epoch"] for entry in result.history] == [1, 2]
    assert result.arrays["test"].shape == (2, len(splits["test"]), 3)
    assert result.arrays["validation"].shape == (2, len(splits["validation"]), 3)
    assert result.arrays["weights"].shape == (2, len(splits["generated"]))
    assert {"seconds_load", "seconds_train", "seconds_evaluate", "rows_per_second"} <= result.runtime.keys()
    assert result.environment["threads"] == "1"
    right = result.arrays["test"][-1].argmax(1) == splits["test"].labels
    assert result.history[-1]["test_accuracy"] == right.mean()


def test_again_is_the_stored_result(small_plan, alone, monkeypatch):
    store, result = alone
    monkeypatch.setattr(run_trial, "_train", lambda *_: pytest.fail("trained although stored"))
    reported = []
    again = run_trial.run(find(small_plan, "generated", "dimp"), store, reported.append)
    assert_same_bits(again, result)
    assert reported == result.history
    assert (again.runtime, again.environment) == (result.runtime, result.environment)


def test_same_bits_whatever_ran_before(small_plan, alone, tmp_path):
    _, result = alone
    torch.manual_seed(99)
    np.random.seed(99)
    torch.set_num_threads(2)
    torch.rand(1000)
    results = run_all(small_plan, fill(small_plan, tmp_path), {"imp", "dimp"})
    assert_same_bits(results["generated", "dimp"], result)
    assert results["generated", "imp"].history != result.history
    assert torch.get_num_threads() == 1, "the trial's threads, not those of before"


def test_a_reused_process_keeps_no_state_of_the_trial(small_plan, alone, tmp_path, monkeypatch):
    """The same trial twice in a row, the second from an empty store but the same process."""
    _, result = alone
    store = fill(small_plan, tmp_path)
    for _ in range(2):
        run_trial.run(find(small_plan, "real_small", "ce"), store, lambda entry: None)
        monkeypatch.setattr(run_trial, "load_result", lambda *_: None)
    assert_same_bits(run_trial.run(find(small_plan, "generated", "dimp"), store, lambda entry: None), result)


def test_a_missing_score_is_an_error(small_plan, tmp_path):
    job = find(small_plan, "generated", "dimp")
    with pytest.raises(TrialError) as caught:
        run_trial.run(job, fill(small_plan, tmp_path), lambda entry: None)
    assert str(caught.value) == (
        f"checker {job.trial.quality} has not scored generated: its scores are not in the store"
    )
    assert trial_result.load_result(job.trial, fill(small_plan, tmp_path)) is None


def test_scores_in_another_order_are_put_right(small_plan, alone, tmp_path):
    store, result = alone
    job, source = find(small_plan, "generated", "dimp"), small_plan.splits["tiny"]["generated"]
    kept = load_scores(job.trial.quality, digests(source), store)
    order = np.random.Generator(np.random.PCG64(1)).permutation(len(source))
    other = fill(small_plan, tmp_path)
    shuffled = Scores(kept.checker, tuple(kept.ids[i] for i in order), kept.log_probabilities[order])
    save_scores(shuffled, digests(source), other)
    assert_same_bits(run_trial.run(job, other, lambda entry: None), result)


def test_scores_of_other_rows_are_an_error(small_plan, tmp_path):
    job, source = find(small_plan, "generated", "dimp"), small_plan.splits["tiny"]["generated"]
    store = fill(small_plan, tmp_path)
    ids = (*source.ids[:-1], "generated-unknown")
    save_scores(Scores(job.trial.quality, ids, log_scores(len(source), 0)), digests(source), store)
    with pytest.raises(TrialError, match=r"has no score for 1 of 48 rows of generated, first 'generated-\d+'"):
        run_trial.run(job, store, lambda entry: None)


def test_a_checker_scores_what_it_is_asked_to(small_plan, alone):
    store, _ = alone
    job, source = find(small_plan, "real_small", "ce"), small_plan.splits["tiny"]["generated"]
    assert list(job.scores) == ["generated"]
    kept = load_scores(job.trial.id, digests(source), store)
    assert kept.ids == source.ids
    assert scores_exist(job.trial.id, job.scores.values(), store)
    right = kept.aligned(source).argmax(1) == source.labels
    assert right.mean() > 0.4


def test_a_finished_checker_without_scores_runs_again(small_plan, tmp_path):
    store, job = fill(small_plan, tmp_path), find(small_plan, "real_small", "ce")
    first = run_trial.run(job.model_copy(update={"scores": {}}), store, lambda entry: None)
    assert not scores_exist(job.trial.id, job.scores.values(), store)
    again = run_trial.run(job, store, lambda entry: None)
    assert scores_exist(job.trial.id, job.scores.values(), store)
    assert_same_bits(first, again)
    finished = {job.trial.id}
    assert job.trial.id not in {todo.trial.id for todo in missing(small_plan, finished, store)}


class Spy(Method[MethodSettings]):
    """Notes what it is shown."""

    name = "spy"
    factor = 1.0

    def weights(self, step):
        self.seen.append((step.ids, step.epoch, step.logits.detach().clone()))
        return step.logits.new_full(step.labels.shape, self.factor)


def test_methods_share_initialisation_order_and_subset(experiment_file, tmp_path, monkeypatch):
    from tests.training.small import make_plan

    plan = make_plan(
        experiment_file(
            grid=[{"source": "both", "methods": ["ce", "prior"]}], seeds=[0, 1], quality_fractions=[0.5],
            training={"epochs": 2, "batch_size": 16},
        )
    )  # fmt: skip
    store = fill(plan, tmp_path)
    seen = {}
    for label, factor in (("ce", 1.0), ("prior", 0.5)):
        for seed in (0, 1):
            spy = Spy()
            spy.seen, spy.factor = seen.setdefault((label, seed), []), factor
            monkeypatch.setattr(run_trial, "make_method", lambda choice, spy=spy: spy)
            run_trial.run(find(plan, "both", label, seed), store, lambda entry: None)
    for seed in (0, 1):
        first, second = seen["ce", seed], seen["prior", seed]
        assert [(ids, epoch) for ids, epoch, _ in first] == [(ids, epoch) for ids, epoch, _ in second]
        assert torch.equal(first[0][2], second[0][2]), "the first logits come from the same weights"
        assert not torch.equal(first[-1][2], second[-1][2]), "then the methods part"
        real = {id_ for ids, _, _ in first for id_ in ids if id_.startswith("real_small")}
        assert not real, "real rows keep weight 1: no method is asked about them"
    assert [ids for ids, _, _ in seen["ce", 0]] != [ids for ids, _, _ in seen["ce", 1]]
    assert not torch.equal(seen["ce", 0][0][2], seen["ce", 1][0][2])


def test_subsets_are_nested_and_of_their_seed(small_plan):
    splits = small_plan.splits["tiny"]
    base = find(small_plan, "generated", "dimp").trial

    def rows(fraction, seed=0):
        trial = base.model_copy(update={"fraction": fraction, "seed": seed})
        return select(("real_small",), splits, trial.fraction, trial.seed)

    half, most = rows(0.5), rows(0.8)
    assert (len(half), len(most), len(rows(1.0))) == (15, 24, 30)
    assert set(half.ids) < set(most.ids)
    assert set(rows(0.5, seed=1).ids) != set(half.ids)
    assert np.bincount(half.labels).tolist() == [5, 5, 5]


def test_batches_are_those_of_the_seed(rows, tokens):
    first, again, other = (list(training_batches(tokens.lengths, 16, seed, 6)) for seed in (0, 0, 1))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a[1], b[1]) for a, b in zip(first, other, strict=True))


def test_a_mixed_source_weighs_the_generated_rows_alone(experiment_file, tmp_path):
    from tests.training.small import make_plan

    names = [name for name, kind in methods.entries.items() if kind.trains and name not in ("fragile",)]
    plan = make_plan(
        experiment_file(
            grid=[{"source": "both", "methods": names}], seeds=[0], training={"epochs": 2, "batch_size": 16}
        )
    )  # fmt: skip
    store = fill(plan, tmp_path)
    splits = plan.splits["tiny"]
    real = len(splits["real_small"])
    for job in plan.jobs:
        result = run_trial.run(job, store, lambda entry: None)
        if job.trial.source != "both":
            continue
        weights = result.arrays["weights"]
        assert weights.shape == (2, real + len(splits["generated"]))
        weighs_real_rows = methods.get(job.trial.method.name).weighs_real_rows
        assert weighs_real_rows or (weights[:, :real] == 1.0).all(), job.label
        assert (weights[:, real:] >= 0.0).all(), job.label
        if job.label == "imp_quality":
            scores = load_scores(job.trial.quality, digests(splits["generated"]), store).aligned(splits["generated"])
            own = np.exp(scores[np.arange(len(scores)), splits["generated"].labels])
            np.testing.assert_allclose(weights[-1, real:], own, rtol=1e-6)
        if job.label == "hu":
            assert np.ptp(weights[-1, real:]) > 0.01


def test_generated_then_real_goes_on_where_the_generated_rows_end(experiment_file, tmp_path):
    from tests.training.small import make_plan

    grid = [{"source": name, "methods": ["dimp"]} for name in ("generated", "generated_then_real")]
    plan = make_plan(
        experiment_file(grid=grid, seeds=[0], training={"epochs": 2, "batch_size": 16, "learning_rate": 5e-3})
    )
    store = fill(plan, tmp_path)
    results = {job.trial.source: run_trial.run(job, store, lambda entry: None) for job in plan.jobs}
    one, two = results["generated"], results["generated_then_real"]
    assert [entry["epoch"] for entry in two.history] == [1, 2, 3, 4]
    assert [entry["step"] for entry in two.history] == [3, 6, 12, 18]
    assert two.history[:2] == one.history
    assert two.arrays["test"][:2].tobytes() == one.arrays["test"].tobytes()
    generated = len(plan.splits["tiny"]["generated"])
    assert two.arrays["weights"][:2, :generated].tobytes() == one.arrays["weights"].tobytes()
    assert np.isnan(two.arrays["weights"][:2, generated:]).all()
    assert np.isnan(two.arrays["weights"][2:, :generated]).all()
    assert (two.arrays["weights"][2:, generated:] == 1.0).all()
    assert two.history[-1]["weight_ess"] == one.history[-1]["weight_ess"], "those of the weighed rows"
    assert (two.arrays["test"][3] != two.arrays["test"][1]).any(), "the second stage trains"


@pytest.mark.parametrize("label", ["dimp", "hu", "sungen"])
def test_two_stages_give_the_same_again(label, experiment_file, tmp_path):
    from tests.training.small import make_plan

    grid = [{"source": name, "methods": [label]} for name in ("generated", "generated_then_real")]
    training = {"epochs": 3, "batch_size": 16, "learning_rate": 5e-3}
    plan = make_plan(experiment_file(grid=grid, seeds=[0], training=training, stages={"real_small": {"epochs": 2}}))
    reported = []
    first, second = (
        {job.trial.source: run_trial.run(job, store, reported.append) for job in plan.jobs}
        for store in (fill(plan, tmp_path / name) for name in ("one", "two"))
    )
    two = first["generated_then_real"]
    assert_same_bits(two, second["generated_then_real"])
    assert two.history[:3] == first["generated"].history, "the first stage is the trial on generated rows"
    assert two.arrays["test"][:3].tobytes() == first["generated"].arrays["test"].tobytes()
    job = find(plan, "generated_then_real", label)
    assert job.trial.evaluations == len(two.history) == 5
    assert [entry["epoch"] for entry in two.history] == [1, 2, 3, 4, 5]
    assert all(entry in reported for entry in two.history), "what is reported is what is stored"
    last = {key: value for key, value in two.history[2].items() if key.startswith("weight_")}
    assert last
    assert all({key: entry[key] for key in last} == last for entry in two.history[3:])
