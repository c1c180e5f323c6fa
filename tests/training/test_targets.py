"""Methods that learn something else than the labels of the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.config.experiment import Training
from harness.methods import Method, MethodSettings
from harness.training import run_trial
from harness.training.activations import model_inputs
from harness.training.classifier import forward
from tests.methods.steps import make
from tests.training.small import CLASSES, HERE, fill, find, make_loop, make_plan

TRAINING = Training(epochs=2, batch_size=16, learning_rate=2e-3)
ONE_STEP = Training(epochs=1, batch_size=48, learning_rate=2e-3)
WEIGHED = np.arange(0, 48, 3)


def logits_of(loop, tokens):
    batch = model_inputs(loop.plain, tokens, np.arange(48), HERE.device)
    return forward(loop.plain, batch, "float32")


def same_parameters(first, second):
    return all(torch.equal(p, q) for p, q in zip(first.plain.parameters(), second.plain.parameters(), strict=True))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_certain_soft_labels_are_labels(accumulation, rows, tokens, tiny_encoder):
    training = TRAINING.model_copy(update={"accumulation": accumulation})
    other = (rows.labels + 1) % CLASSES
    soft = make_loop(make("relabel"), rows, tokens, tiny_encoder, training)
    soft.quality = torch.from_numpy(run_trial.one_hot(other, CLASSES))
    hard = make_loop(make("ce"), replace(rows, labels=other), tokens, tiny_encoder, training)
    outcomes = [loop.run(lambda entry: None) for loop in (soft, hard)]
    losses = [[entry["train_loss"] for entry in outcome.history] for outcome in outcomes]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for p, q in zip(soft.plain.parameters(), hard.plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0.0, atol=2e-5)
    assert (outcomes[0].weights[-1] == 1.0).all()


def test_hard_labels_are_the_most_probable_ones(rows, tokens, tiny_encoder):
    loop = make_loop(make("relabel", hard=True), rows, tokens, tiny_encoder, ONE_STEP)
    losses, _, _ = loop._micro_batch(np.arange(48), 0, 48, True)
    log_p = logits_of(loop, tokens).log_softmax(-1)
    torch.testing.assert_close(losses, -log_p.gather(1, loop.quality.argmax(1, keepdim=True))[:, 0])


def test_the_labels_of_the_rows_are_not_used(rows, tokens, tiny_encoder):
    splits = [rows, replace(rows, labels=(rows.labels + 1) % CLASSES)]
    loops = [make_loop(make("relabel"), split, tokens, tiny_encoder, TRAINING) for split in splits]
    losses = [loop.run(lambda entry: None).history[-1]["train_loss"] for loop in loops]
    assert losses[0] == losses[1]
    assert same_parameters(*loops)


def test_loss_and_gradient_by_hand(rows, tokens, tiny_encoder):
    """The gradient of the mean loss with respect to the logits is (softmax - P') / B."""
    loop = make_loop(make("relabel"), rows, tokens, tiny_encoder, ONE_STEP)
    losses, weights, _ = loop._micro_batch(np.arange(48), 0, 48, True)
    logits = logits_of(loop, tokens)
    p = logits.detach().double().softmax(-1).numpy()
    quality = loop.quality.double().exp().numpy()
    np.testing.assert_allclose(losses.detach(), -(quality * np.log(p)).sum(1), rtol=1e-5)
    actual = torch.autograd.grad((weights * losses).mean(), list(loop.plain.parameters()), allow_unused=True)
    slopes = torch.from_numpy((p - quality) / 48).float()
    expected = torch.autograd.grad(logits, list(loop.plain.parameters()), slopes, allow_unused=True)
    for a, b in zip(actual, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    outcome = loop.run(lambda entry: None)
    assert outcome.history[0]["train_loss"] == pytest.approx(-(quality * np.log(p)).sum(1).mean(), rel=1e-5)


def test_beside_real_rows_only_the_others_are_relabeled(rows, tokens, tiny_encoder):
    loop = make_loop(make("relabel"), rows, tokens, tiny_encoder, ONE_STEP, weighed=WEIGHED)
    loop.quality = loop.quality[: len(WEIGHED)]
    with torch.no_grad():
        logits = logits_of(loop, tokens)
    expected = F.cross_entropy(logits, torch.from_numpy(rows.labels), reduction="none").double().numpy()
    log_p = logits.double().log_softmax(-1).numpy()[WEIGHED]
    expected[WEIGHED] = -(loop.quality.double().exp().numpy() * log_p).sum(1)
    outcome = loop.run(lambda entry: None)
    assert outcome.history[0]["train_loss"] == pytest.approx(expected.mean(), rel=1e-5)
    assert (outcome.weights[0] == 1.0).all()


class LabelsAsTargets(Method[MethodSettings]):
    """The given labels once more, as distributions; half weight for every row."""

    name = "labels_as_targets"

    def targets(self, batch):
        assert len(batch.ids), "not called without rows"
        return F.one_hot(batch.labels, CLASSES).float()

    def weights(self, batch):
        return batch.logits.new_full(batch.labels.shape, 0.5)


def test_targets_are_weighed_as_labels_are(rows, tokens, tiny_encoder):
    class Half(LabelsAsTargets):
        name = "half"

        def targets(self, batch):
            return None

    training = TRAINING.model_copy(update={"batch_size": 1, "steps": 12})
    loops = [
        make_loop(method, rows, tokens, tiny_encoder, training, weighed=WEIGHED)
        for method in (LabelsAsTargets(), Half())
    ]
    first, second = (loop.run(lambda entry: None) for loop in loops)
    assert first.history[-1]["train_loss"] == pytest.approx(second.history[-1]["train_loss"], rel=1e-5)
    np.testing.assert_array_equal(first.weights, second.weights)


def test_a_trial_learns_from_its_checker(experiment_file, tmp_path):
    plan = make_plan(experiment_file(grid=[{"source": "generated", "methods": ["ce", "relabel"]}], seeds=[0]))
    store = fill(plan, tmp_path)
    results = {(job.trial.source, job.label): run_trial.run(job, store, lambda entry: None) for job in plan.jobs}
    job = find(plan, "generated", "relabel")
    assert job.trial.quality == find(plan, "real_small", "ce").trial.id
    result = results["generated", "relabel"]
    assert (result.arrays["weights"] == 1.0).all()
    assert not np.array_equal(result.arrays["test"], results["generated", "ce"].arrays["test"])
