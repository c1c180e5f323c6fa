"""Checkers with another encoder, fewer layers or the large real set: their scores reach the right rows."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from harness.checkers.scores import join, load_scores
from harness.checkers.temperature import calibrated, fit_temperature
from harness.data.selection import select
from harness.methods import SourceInfo
from harness.methods.confident import Confident
from harness.recorder import result_frames, score_frames
from harness.testing import make_benchmark
from harness.training import run_trial
from tests.methods.steps import make_step
from tests.training.small import fill, find, make_plan, tokens_of


@pytest.fixture(scope="module")
def with_large_set(tmp_path_factory):
    """The YAML file of a benchmark with a large real set."""
    sizes = {
        "real_small": (4, 0.0), "real_large": (30, 0.0), "generated": (10, 0.3), "validation": (4, 0.0),
        "test": (6, 0.0),
    }  # fmt: skip
    return make_benchmark(tmp_path_factory.mktemp("large"), sizes)


@pytest.fixture(scope="module")
def other_encoder(tiny_encoder, tmp_path_factory):
    """The tiny encoder with a tokenizer that numbers the words the other way round."""
    folder = tmp_path_factory.mktemp("other") / "reversed"
    shutil.copytree(tiny_encoder, folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {word: id_ if id_ < 4 else len(words) + 3 - id_ for word, id_ in words.items()}
    file.write_text(json.dumps(content))
    return folder


def test_an_oracle_with_another_encoder(with_large_set, other_encoder, tiny_encoder, experiment_file, tmp_path):
    plan = make_plan(
        experiment_file(
            benchmarks=[str(with_large_set)], grid=[{"source": "generated", "methods": ["imp_quality"]}], seeds=[0],
            checkers={"quality": {"source": "real_large", "encoder": str(other_encoder), "layers": 1}},
            training={"epochs": 1, "batch_size": 16, "learning_rate": 5e-3},
        )
    )  # fmt: skip
    store, rows = fill(plan, tmp_path), plan.splits["tiny"]["generated"]
    checker, job = find(plan, "real_large", "ce (reversed, layers=1)"), find(plan, "generated", "imp_quality")
    assert len(plan.jobs) == 2
    assert job.trial.quality == checker.trial.id
    assert "real_small" not in job.trial.task.digests
    own, other = (tokens_of(rows, tiny_encoder, store), run_trial.tokens_of(checker.trial, rows, store))
    assert not np.array_equal(own.input_ids, other.input_ids)
    run_trial.run(checker, store, lambda entry: None)
    weights = run_trial.run(job, store, lambda entry: None).arrays["weights"][-1]
    scores = np.exp(load_scores(checker.trial.id, {"generated": rows.digest}, store).aligned(rows))
    np.testing.assert_allclose(weights, scores[np.arange(len(rows)), rows.labels], rtol=1e-6)


def test_methods_with_a_diversity_checker_of_folds(experiment_file, tmp_path):
    plan = make_plan(
        experiment_file(
            grid=[{"source": "generated", "methods": ["imp", "confident"]}], seeds=[0],
            checkers={"diversity": {"folds": 3}},
            training={"epochs": 1, "batch_size": 16, "learning_rate": 5e-3},
        )
    )  # fmt: skip
    store, rows = fill(plan, tmp_path), plan.splits["tiny"]["generated"]
    results = {job.trial.id: run_trial.run(job, store, lambda entry: None) for job in plan.jobs}
    assert len(results) == 1 + 3 + 2
    imp, digests = find(plan, "generated", "imp").trial, {"generated": rows.digest}
    out_of_fold = {}
    for id_ in imp.diversity_folds:
        scores = load_scores(id_, digests, store)
        trained = select(("generated",), plan.splits["tiny"], None, 0, plan.trials[id_].trial.fold)
        assert not set(trained.ids) & set(scores.ids), "no checker scores a row that it was trained on"
        assert len(trained) + len(scores.ids) == len(rows)
        assert results[id_].arrays["weights"].shape == (1, len(trained))
        frames = result_frames(plan.trials[id_], results[id_], plan.splits["tiny"])
        assert tuple(frames["weights.parquet"]["id"]) == trained.ids
        (table,) = score_frames(plan.trials[id_], plan.splits["tiny"], store).values()
        assert tuple(table["id"]) == scores.ids
        out_of_fold |= dict(zip(scores.ids, scores.log_probabilities, strict=True))
    assert out_of_fold.keys() == set(rows.ids)
    diversity = np.array([out_of_fold[id_][label] for id_, label in zip(rows.ids, rows.labels, strict=True)])
    quality = load_scores(imp.quality, digests, store).aligned(rows)[np.arange(len(rows)), rows.labels]
    np.testing.assert_allclose(results[imp.id].arrays["weights"][-1], np.exp(quality - diversity), rtol=1e-5)
    method = Confident()
    table = np.stack([out_of_fold[id_] for id_ in rows.ids])
    method.prepare(SourceInfo(rows.labels, 3, None, diversity=table))
    step = make_step(np.zeros((len(rows), 3)), rows.labels)
    confident = results[find(plan, "generated", "confident").trial.id].arrays["weights"][-1]
    np.testing.assert_array_equal(confident, method.weights(step))
    assert 0 < confident.sum() < len(rows)


@pytest.mark.parametrize("later", [False, True])
def test_calibrated_scores_need_no_second_training(later, experiment_file, tmp_path, monkeypatch):
    """Both kinds of scores in one experiment, or the calibrated ones in a later experiment with the same checkers."""
    from harness.planning.plan import missing

    grid, checkers = [{"source": "generated", "methods": ["imp"]}], {"diversity": {"folds": 2}}
    settings = {"grid": grid, "seeds": [0], "training": {"epochs": 1, "batch_size": 16, "learning_rate": 5e-3}}
    sweep = {f"checkers.{role}.temperature": [False, True] for role in ("quality", "diversity")}
    before = make_plan(experiment_file(**settings, checkers=checkers))
    plan = make_plan(experiment_file(**settings, checkers=checkers, sweep=sweep))
    store, trained, results = fill(plan, tmp_path), [], {}
    train = run_trial._train
    monkeypatch.setattr(run_trial, "_train", lambda job, *more: trained.append(job.trial.id) or train(job, *more))
    jobs = [*before.jobs, *plan.jobs] if later else plan.jobs
    for job in jobs:
        results[job.trial.id] = run_trial.run(job, store, lambda entry: None)
    assert len(trained) == len(set(trained)) == 1 + 2 + 4
    assert not missing(plan, set(trained), store)
    by_id = plan.trials
    rows, splits = plan.splits["tiny"]["generated"], plan.splits["tiny"]
    labels, digests = (np.arange(len(rows)), rows.labels), {"generated": rows.digest}

    def log_p(checkers, calibrate):
        parts = []
        for id_ in checkers:
            scores = load_scores(id_, digests, store)
            validation = results[id_].arrays["validation"][-1]
            temperature = fit_temperature(validation, splits["validation"].labels) if calibrate else 1.0
            parts.append(replace(scores, log_probabilities=calibrated(scores.log_probabilities, temperature)))
        return join(parts).aligned(rows)[labels]

    temperatures = set()
    for job in (job for job in by_id.values() if job.label == "imp"):
        trial, result = job.trial, results[job.trial.id]
        expected = np.exp(
            log_p([trial.quality], "quality" in trial.calibrated)
            - log_p(trial.diversity_folds, "diversity" in trial.calibrated)
        )
        np.testing.assert_allclose(result.arrays["weights"][-1], expected, rtol=1e-5)
        recorded = {key: value for key, value in result.runtime.items() if key.endswith("_temperature")}
        assert set(recorded) == {f"{role}_temperature" for role in trial.calibrated}
        temperatures |= set(recorded.items())
    assert len(temperatures) == 2, "one for each role"
