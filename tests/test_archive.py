"""Results that travel: what is kept exactly, what is rounded, and a run that goes on from them."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from harness.archive import export, restore
from harness.checkers.scores import load_scores
from harness.errors import UserError
from harness.planning.plan import stored
from harness.recorder import result_frames, score_frames
from harness.store import Store
from harness.training import run_trial
from harness.training.trial_result import TrialResult, load_result, save_result
from tests.training.small import fill, find, make_plan


@pytest.fixture(scope="module")
def finished(tmp_path_factory, experiment_file):
    """A plan, and a store in which its checkers and DIMP have finished."""
    plan = make_plan(experiment_file())
    store = fill(plan, tmp_path_factory.mktemp("archive") / "store")
    jobs = [find(plan, "real_small", "ce"), find(plan, "generated", "dimp")]
    for job in jobs:
        run_trial.run(job, store, lambda entry: None)
    return plan, store, jobs


def test_a_run_goes_on_from_an_archive(finished, tmp_path, monkeypatch):
    plan, store, jobs = finished
    path, other = tmp_path / "results.zip", Store(str(tmp_path / "other"))
    assert export(plan.jobs, store, path) == 2
    assert restore(path, other) == (2, 0)
    assert restore(path, other) == (0, 2)
    assert stored(plan, plan.trials, other) == {job.trial.id for job in jobs}
    monkeypatch.setattr(run_trial, "_train", lambda *_: pytest.fail("trained again"))
    for job in jobs:
        reported = []
        result, original = run_trial.run(job, other, reported.append), load_result(job.trial, store)
        assert original is not None
        assert reported == result.history == original.history
        assert (result.runtime, result.environment) == (original.runtime, original.environment)
        if job.scores:  # what calibrates a checker
            np.testing.assert_array_equal(result.arrays["validation"][-1], original.arrays["validation"][-1])
        splits = plan.splits[job.trial.task.name]
        frames, expected = (result_frames(job, r, splits) for r in (result, original))
        assert frames.keys() == expected.keys()
        for name, frame in frames.items():
            numbers = frame.select_dtypes("number")
            rest = frame.columns.difference(numbers.columns)
            assert frame[rest].equals(expected[name][rest])
            np.testing.assert_allclose(numbers, expected[name][numbers.columns], rtol=2e-3)
        for name, scores in score_frames(job, splits, other).items():
            assert scores.equals(score_frames(job, splits, store)[name]), "scores train other trials: exact"


def test_an_archive_of_equal_results_has_equal_bytes(finished, tmp_path):
    plan, store, _ = finished
    export(plan.jobs, store, tmp_path / "a.zip")
    export(reversed(plan.jobs), store, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_checker_without_scores_goes_without_them(finished, tmp_path):
    plan, store, (checker, dimp) = finished
    partial = Store(str(tmp_path / "store"))
    for job in (checker, dimp):
        save_result(job.trial, load_result(job.trial, store), partial)
    export(plan.jobs, partial, tmp_path / "results.zip")
    names = zipfile.ZipFile(tmp_path / "results.zip").namelist()
    assert names == sorted(f"trials/{job.trial.id}.npz" for job in (checker, dimp))
    other = fill(plan, tmp_path / "other")
    restore(tmp_path / "results.zip", other)
    assert stored(plan, plan.trials, other) == {dimp.trial.id}
    run_trial.run(checker, other, lambda entry: None)
    scores = [load_scores(checker.trial.id, next(iter(checker.scores.values())), s) for s in (store, other)]
    np.testing.assert_array_equal(scores[0].log_probabilities, scores[1].log_probabilities, "trained again for them")


def test_large_weights_are_not_rounded_to_infinity(finished, tmp_path):
    _, store, (_, dimp) = finished
    original, other = load_result(dimp.trial, store), Store(str(tmp_path / "store"))
    arrays = original.arrays | {"weights": np.full_like(original.arrays["weights"], 1e6)}
    save_result(dimp.trial, TrialResult(original.history, {}, {}, arrays), other)
    export([dimp], other, tmp_path / "results.zip")
    third = Store(str(tmp_path / "third"))
    restore(tmp_path / "results.zip", third)
    assert (load_result(dimp.trial, third).arrays["weights"] == 1e6).all()


def test_errors_name_the_file(finished, tmp_path):
    plan, _, _ = finished
    empty = Store(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="has no result of this experiment; run it first"):
        export(plan.jobs, empty, tmp_path / "x.zip")
    with pytest.raises(UserError, match="there is no such file"):
        restore(tmp_path / "missing.zip", empty)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(UserError, match="expected a zip written by `harness export`: File is not a zip file"):
        restore(tmp_path / "text.zip", empty)
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("../outside.npz", b"")
    with pytest.raises(UserError, match=r"found '../outside.npz' in it"):
        restore(tmp_path / "foreign.zip", empty)
    with zipfile.ZipFile(tmp_path / "damaged.zip", "w") as archive:
        archive.writestr("trials/0123.npz", b"damaged")
    with pytest.raises(UserError, match="expected a zip written by `harness export`"):
        restore(tmp_path / "damaged.zip", empty)
