"""Embeddings of texts, and the method that compares them: computed once, by the encoder before any training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.config.experiment import Training
from harness.store import Store
from harness.training import embeddings, run_trial
from harness.training.classifier import load_encoder, load_tokenizer
from tests.training.small import fill, make_plan

DEVICE = torch.device("cpu")


def test_the_mean_of_the_last_hidden_states(rows, tokens, tiny_encoder):
    torch.manual_seed(5)
    values = embeddings.compute(str(tiny_encoder), Training(), tokens, DEVICE)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3)), "random generators are left as they are"
    assert (values.shape, values.dtype) == ((48, 32), np.float32)
    model, tokenizer = load_encoder(str(tiny_encoder), "eager").eval(), load_tokenizer(str(tiny_encoder))
    for row in (0, 7, 47):
        with torch.no_grad():  # one row at a time, without padding
            hidden = model(**tokenizer(rows.texts[row], return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(values[row], hidden.mean(dim=0).numpy(), atol=2e-6)


def test_fewer_layers_give_other_embeddings(tokens, tiny_encoder):
    full, cut = (embeddings.compute(str(tiny_encoder), Training(layers=n), tokens, DEVICE) for n in (2, 1))
    assert np.array_equal(full, embeddings.compute(str(tiny_encoder), Training(), tokens, DEVICE))
    assert not np.allclose(full, cut)


@pytest.fixture(scope="module")
def plan(experiment_file):
    methods = ["ce", "ratio", {"name": "ratio", "tau": 0}, {"name": "ratio", "times_imp": True}, "imp"]
    return make_plan(
        experiment_file(
            grid=[{"source": "generated", "methods": methods}, {"source": "both", "methods": ["ratio"]}], seeds=[0],
            training={"epochs": 1, "batch_size": 16, "learning_rate": 5e-3},
        )
    )  # fmt: skip


def test_ratio(plan, tmp_path, monkeypatch):
    computed, compute = [], embeddings.compute
    monkeypatch.setattr(embeddings, "compute", lambda *args: computed.append(len(args[2].lengths)) or compute(*args))
    store = fill(plan, tmp_path)
    results = {}
    for job in plan.jobs:
        results[job.trial.source, job.label] = run_trial.run(job, store, lambda entry: None)
    assert sorted(computed) == [30, 48], "once for each split, whatever the method and the source"

    def weights(label):
        return results["generated", label].arrays["weights"][-1]

    ratio = weights("ratio")
    assert np.isfinite(ratio).all()
    assert np.ptp(ratio) > 0.1
    np.testing.assert_allclose(weights("ratio(times_imp=True)"), ratio * weights("imp"), rtol=1e-5)
    np.testing.assert_array_equal(results["both", "ratio"].arrays["weights"][-1][30:], ratio)
    flat, plain = results["generated", "ratio(tau=0.0)"], results["generated", "ce"]
    assert flat.history == plain.history, "what is computed before does not change the training"
    runtime = results["generated", "ratio"].runtime
    assert 0.0 < runtime["diagnostic_auc"] < 1.0
    assert "seconds_embed" in runtime
    assert not any(key.startswith("diagnostic") for key in plain.runtime)


def test_the_key_of_embeddings(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "compute", lambda *args: np.array([[len(calls)]], np.float32))
    calls, store = [], Store(str(tmp_path))
    trial, rows = find_ratio(plan).trial, plan.splits["tiny"]["generated"]

    def value(trial, split=rows):
        calls.append(trial)
        return embeddings.embed(trial, split, None, store, DEVICE)[0, 0]

    first = value(trial)
    assert value(trial) == value(trial.model_copy(update={"seed": 9, "fraction": 0.5})) == first
    stage = trial.stages[0]
    cut = stage.model_copy(update={"training": stage.training.model_copy(update={"layers": 1})})
    others = [
        value(trial.model_copy(update=update))
        for update in ({"encoder_identity": "x"}, {"threads": 2}, {"stages": (cut,)})
    ]
    assert len({first, *others, value(trial, plan.splits["tiny"]["test"])}) == 5


def find_ratio(plan):
    return next(job for job in plan.jobs if job.label == "ratio")
