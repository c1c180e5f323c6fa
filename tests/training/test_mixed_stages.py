"""Stages that mix real rows with others: real rows keep weight 1, in the loss, in lookaheads and in inner trainings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.checkers.scores import load_scores
from harness.config.experiment import Training
from harness.errors import UserError
from harness.methods import Method, MethodSettings, SourceInfo
from harness.training import run_trial
from harness.training.activations import model_inputs
from harness.training.classifier import forward, load_classifier
from harness.training.inner_training import FixedWeights, InnerTrainingRun
from harness.training.loop import Inputs, Loop
from harness.training.meta_gradients.lookahead import SubsetLookahead
from harness.training.timing import PhaseTimer
from tests.methods.steps import make
from tests.training.small import CLASSES, HERE, fill, find, make_loop, make_plan

#: The weighed rows; the other 18 of 48 stand for real rows.
WEIGHED = np.array([row for row in range(48) if row % 8 not in (0, 3, 5)])
REAL = np.setdiff1d(np.arange(48), WEIGHED)
ONE_STEP = Training(epochs=1, batch_size=48, learning_rate=2e-3)


class Triple(Method[MethodSettings]):
    """Weight 3 for every row that it sees; records the batches."""

    name = "triple"

    def __init__(self):
        super().__init__()
        self.batches = []

    def weights(self, batch):
        self.batches.append(batch)
        return batch.logits.new_full(batch.labels.shape, 3.0)


def test_the_loss_of_one_step_by_hand(rows, tokens, tiny_encoder):
    loop = make_loop(Triple(), rows, tokens, tiny_encoder, ONE_STEP, weighed=WEIGHED)
    with torch.no_grad():
        batch = model_inputs(loop.plain, tokens, np.arange(48), HERE.device)
        logits = forward(loop.plain, batch, "float32")
        losses = F.cross_entropy(logits, torch.from_numpy(rows.labels), reduction="none").double().numpy()
    outcome = loop.run(lambda entry: None)
    expected = (losses[REAL].sum() + 3.0 * losses[WEIGHED].sum()) / 48
    assert outcome.history[0]["train_loss"] == pytest.approx(expected, rel=1e-5)
    (weights,) = outcome.weights
    assert (weights[REAL] == 1.0).all()
    assert (weights[WEIGHED] == 3.0).all()
    assert outcome.history[0]["weight_mean"] == 3.0, "statistics are those of the weighed rows"


def test_a_method_sees_the_weighed_rows_alone(rows, tokens, tiny_encoder):
    training = Training(epochs=2, batch_size=10, learning_rate=2e-3)
    loop = make_loop(Triple(), rows, tokens, tiny_encoder, training, weighed=WEIGHED)
    loop.run(lambda entry: None)
    count = np.zeros(len(WEIGHED))
    for batch in loop.method.batches:
        positions = batch.rows.numpy()
        assert batch.ids == tuple(rows.ids[row] for row in WEIGHED[positions])
        np.testing.assert_array_equal(batch.labels.numpy(), rows.labels[WEIGHED[positions]])
        assert torch.equal(batch.quality, loop.quality[positions])
        assert batch.real is None
        assert len(batch.logits) == len(positions)
        count[positions] += 1
    assert (count == 2).all()


@pytest.mark.parametrize(("name", "calls"), [("ce", 1), ("ren", 8)])
def test_a_batch_without_weighed_rows_needs_no_method_unless_it_needs_gradients(
    name, calls, rows, tokens, tiny_encoder, monkeypatch
):
    """Batches of one row, one of 8 weighed. With gradients every process must take part in every batch."""
    rows, tokens = rows.take(np.arange(8)), tokens.take(np.arange(8))
    method = make(name, **({"warm_up": 0} if name == "ren" else {}))
    method.prepare(SourceInfo(rows.labels[:1], CLASSES, rows.labels))
    sizes = []
    original = type(method).weights
    monkeypatch.setattr(
        type(method), "weights", lambda self, batch: sizes.append(len(batch.ids)) or original(self, batch)
    )
    training = Training(epochs=1, batch_size=1, learning_rate=1e-4)
    loop = make_loop(method, rows, tokens, tiny_encoder, training, weighed=np.array([5]), real=(rows, tokens))
    outcome = loop.run(lambda entry: None)
    assert len(sizes) == calls
    assert sum(sizes) == 1
    assert (np.delete(outcome.weights[0], 5) == 1.0).all()


class Sensitivities(Method[MethodSettings]):
    """Compares the derivatives of a subset with those of the whole batch, real rows at weight 1."""

    name = "sensitivities"
    needs = frozenset({"real", "gradients"})
    seen = 0

    def weights(self, batch):
        subset = batch.gradients
        assert isinstance(subset, SubsetLookahead)
        whole = subset.whole
        weights_of_subset = torch.linspace(0.5, 2.0, len(batch.rows))
        in_batch = torch.isin(whole.rows, torch.from_numpy(WEIGHED))
        everywhere = torch.ones(len(whole.rows))
        everywhere[in_batch] = weights_of_subset
        for rule, form in (("sgd", "linear"), ("adam", "linear"), ("adam", "exact")):
            expected = whole.sensitivity(everywhere, rule, None, form)[in_batch]
            assert torch.equal(subset.sensitivity(weights_of_subset, rule, None, form), expected)
        assert subset.size == len(weights_of_subset) == int(in_batch.sum()) < len(whole.rows)
        assert float(subset.sum(weights_of_subset)) == pytest.approx(float(weights_of_subset.sum()))
        scattered = subset.scatter(weights_of_subset)
        assert scattered.shape == (len(WEIGHED),)
        assert torch.equal(scattered[batch.rows], weights_of_subset)
        assert int((scattered != 0).sum()) == len(weights_of_subset)
        self.seen += 1
        return weights_of_subset


def test_a_lookahead_steps_with_real_rows_at_weight_one(rows, tokens, tiny_encoder):
    training = Training(epochs=1, batch_size=16, learning_rate=2e-3)
    loop = make_loop(
        Sensitivities(),
        rows,
        tokens,
        tiny_encoder,
        training,
        weighed=WEIGHED,
        real=(rows.take(REAL), tokens.take(REAL)),
    )
    loop.run(lambda entry: None)
    assert loop.method.seen == 3


def test_an_inner_training_uses_all_real_rows_at_weight_one(rows, tokens, tiny_encoder):
    torch.set_num_threads(1)
    model, other = (load_classifier(str(tiny_encoder), CLASSES, 0, "sdpa") for _ in range(2))
    inputs = Inputs(rows, tokens, None, None, {}, weighed=WEIGHED)
    training = Training(epochs=2, batch_size=16, learning_rate=2e-3)
    weights = torch.rand(len(WEIGHED), generator=torch.Generator().manual_seed(0))
    selection = np.array([2, 3, 11, 25])
    with InnerTrainingRun(model, inputs, training, 0, HERE) as inner:
        assert inner.size == len(WEIGHED)
        inner.train(weights, selection, 2)
        trained = {name: value.clone() for name, value in model.state_dict().items()}
        products = inner.inner_products(np.array([4, 9]), np.array([0, 1, 2]), "cross_entropy")
    positions = np.concatenate([WEIGHED[selection], REAL])
    part = Inputs(rows.take(positions), tokens.take(positions), None, None, {})
    fixed = FixedWeights(torch.cat([weights[selection], torch.ones(len(REAL))]))
    Loop(other, fixed, part, training, 0, HERE, PhaseTimer(HERE.device)).run(lambda entry: None)
    assert all(torch.equal(value, trained[name]) for name, value in other.state_dict().items())
    all_rows = Inputs(rows, tokens, None, None, {})
    with InnerTrainingRun(other, all_rows, training, 0, HERE) as inner:
        expected = inner.inner_products(WEIGHED[[4, 9]], WEIGHED[[0, 1, 2]], "cross_entropy")
    assert torch.equal(products, expected), "positions are those among the weighed rows"


class Masked(Method[MethodSettings]):
    """Weighs real rows too: 2 for them, the quality score for the others."""

    name = "masked"
    needs = frozenset({"quality"})
    weighs_real_rows = True

    def __init__(self):
        super().__init__()
        self.batches = []

    def prepare(self, info):
        self.rows = len(info.labels)

    def weights(self, batch):
        self.batches.append(batch)
        return batch.log_quality.exp().where(~batch.real, 2.0)


def test_a_method_may_weigh_real_rows_too(experiment_file, tmp_path, monkeypatch):
    grid = [{"source": "both", "methods": ["imp_quality"]}]
    plan = make_plan(experiment_file(grid=grid, seeds=[0], quality_fractions=[0.5]))
    store, job = fill(plan, tmp_path), find(plan, "both", "imp_quality")
    for other in plan.jobs:
        if other is not job:
            run_trial.run(other, store, lambda entry: None)
    method = Masked()
    monkeypatch.setattr(run_trial, "make_method", lambda choice: method)
    weights = run_trial.run(job, store, lambda entry: None).arrays["weights"]
    generated = plan.splits["tiny"]["generated"]
    assert method.rows == weights.shape[1] == 15 + len(generated)
    assert (weights[:, :15] == 2.0).all()
    scores = load_scores(job.trial.quality, {"generated": generated.digest}, store).aligned(generated)
    own = np.exp(scores[np.arange(len(scores)), generated.labels])
    np.testing.assert_allclose(weights[-1, 15:], own, rtol=1e-6)
    for batch in method.batches:
        assert batch.real.tolist() == [id_.startswith("real_small") for id_ in batch.ids]
        assert torch.equal(batch.quality.isnan().all(1), batch.real)


def test_mix_in_proportion_to_the_rows_is_cross_entropy_on_both(experiment_file, tmp_path):
    """15 real rows and 48 generated ones: with α = 15 / 63 the same bits, and with another α other ones."""
    choices = ["ce", {"name": "mix", "alpha": 15 / 63}, {"name": "mix", "alpha": 0.6}]
    file = experiment_file(grid=[{"source": "both", "methods": choices}], seeds=[0], quality_fractions=[0.5])
    plan = make_plan(file)
    store = fill(plan, tmp_path)
    same, proportional, other = (run_trial.run(job, store, lambda entry: None) for job in plan.jobs)
    for name, values in same.arrays.items():
        np.testing.assert_array_equal(proportional.arrays[name], values)
    assert proportional.history == same.history
    assert not np.array_equal(other.arrays["test"], same.arrays["test"])
    weights = other.arrays["weights"].astype(np.float64)
    np.testing.assert_allclose(weights[:, :15], 0.6 * 63 / 15, rtol=1e-6)
    np.testing.assert_allclose(weights[:, 15:], 0.4 * 63 / 48, rtol=1e-6)


@pytest.mark.parametrize("source", ["real_small", "generated", "generated_then_real"])
def test_mix_is_refused_where_a_stage_has_one_kind_of_rows(source, experiment_file):
    found = "real_small" if source == "real_small" else "generated"
    with pytest.raises(UserError) as caught:
        make_plan(experiment_file(grid=[{"source": source, "methods": ["mix"]}]))
    assert str(caught.value) == (
        "method 'mix' weighs real rows against others: expected a source that trains on both at once, such as 'both', "
        f"found {found}"
    )


def test_an_evaluation_after_real_rows_alone_has_no_weight_statistics(rows, tokens, tiny_encoder):
    training = Training(epochs=48, batch_size=1, steps=48, learning_rate=1e-4)
    loop = make_loop(Triple(), rows, tokens, tiny_encoder, training, weighed=np.array([5]))
    outcome = loop.run(lambda entry: None)
    means = np.array([entry["weight_mean"] for entry in outcome.history])
    assert np.isnan(means).sum() == 47
    assert np.nanmax(means) == 3.0
