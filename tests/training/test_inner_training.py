"""Trainings before the real one: against the loop, and their inner products against backward passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.config.experiment import Training
from harness.errors import TrialError
from harness.training.activations import model_inputs, skip_unused
from harness.training.classifier import load_classifier
from harness.training.inner_training import FixedWeights, InnerTrainingRun
from harness.training.loop import Inputs, Loop
from harness.training.timing import PhaseTimer
from tests.training.small import CLASSES, HERE

TRAINING = Training(epochs=3, batch_size=16, learning_rate=2e-3, evaluation_batch_size=7)
REAL = np.arange(33, 48)


@pytest.fixture
def scene(rows, tokens, tiny_encoder):
    torch.set_num_threads(1)
    model = load_classifier(str(tiny_encoder), CLASSES, 0, "sdpa")
    skip_unused(model)
    inputs = Inputs(rows, tokens, None, None, {"test": (rows, tokens)}, (rows.take(REAL), tokens.take(REAL)))
    return model, inputs


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_an_inner_training_is_the_loop_on_those_rows_and_is_undone(scene, tiny_encoder):
    model, inputs = scene
    start, chosen = state(model), np.array([1, 4, 7, 20, 33, 40, 41])
    weights = torch.rand(len(inputs.source), generator=torch.Generator().manual_seed(0))
    with InnerTrainingRun(model, inputs, TRAINING, 0, HERE) as inner:
        assert inner.size == 48
        inner.train(weights, chosen, 2)
        once = state(model)
        inner.train(weights, chosen, 2)
        assert same(once, state(model)), "every one starts where the real one will"
        assert not same(once, start)
    assert same(start, state(model))
    other = load_classifier(str(tiny_encoder), CLASSES, 0, "sdpa")
    skip_unused(other)
    part = Inputs(inputs.source.take(chosen), inputs.tokens.take(chosen), None, None, {})
    training = TRAINING.model_copy(update={"epochs": 2})
    Loop(other, FixedWeights(weights[chosen]), part, training, 0, HERE, PhaseTimer(HERE.device)).run(lambda entry: None)
    assert same(once, state(other))


def test_the_model_is_put_back_after_an_error(scene):
    model, inputs = scene
    start = state(model)
    with pytest.raises(TrialError, match="is nan"), InnerTrainingRun(model, inputs, TRAINING, 0, HERE) as inner:
        inner.train(torch.full((48,), torch.nan), np.arange(48), 1)
    assert same(start, state(model))


def gradient(model, split, tokens, rows, loss):
    batch, labels = model_inputs(model, tokens, rows, HERE.device), torch.from_numpy(split.labels[rows])
    values = F.cross_entropy(model(**batch).logits, labels, reduction="none")
    value = (1 - (-values).exp() if loss == "bounded" else values).mean()
    return [g.double() for g in torch.autograd.grad(value, list(model.parameters()))]


@pytest.mark.parametrize("loss", ["bounded", "cross_entropy"])
@pytest.mark.parametrize("outer", [None, np.arange(2, 40, 3)])
def test_inner_products_against_a_backward_pass_for_each_row(loss, outer, scene):
    model, inputs = scene
    chosen = np.array([5, 0, 47, 12, 13, 30, 31, 2, 9])
    with InnerTrainingRun(model, inputs, TRAINING, 0, HERE) as inner:
        inner.train(torch.ones(48), np.arange(48), 2)
        actual = inner.inner_products(chosen, outer, loss)
        model.eval()
        rows = REAL if outer is None else outer
        v = gradient(model, inputs.source, inputs.tokens, rows, loss)
        expected = []
        for row in chosen:
            own = gradient(model, inputs.source, inputs.tokens, np.array([row]), "cross_entropy")
            expected.append(sum((a * b).sum() for a, b in zip(v, own, strict=True)).item())
    expected = np.array(expected)
    assert np.abs(actual.numpy() - expected).max() / np.abs(expected).max() < 1e-5
    assert expected.min() < 0 < expected.max()


def test_the_order_is_the_seeds(scene):
    model, inputs = scene
    inner, other = (InnerTrainingRun(model, inputs, TRAINING, seed, HERE) for seed in (0, 1))
    assert sorted(inner.shuffled(0)) == list(range(48))
    assert inner.shuffled(0).tolist() == inner.shuffled(0).tolist() != inner.shuffled(1).tolist()
    assert inner.shuffled(0).tolist() != other.shuffled(0).tolist()
