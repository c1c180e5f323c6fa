"""Methods that ask for gradients, in the loop: what they learn, and that they learn it again bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from harness.config.experiment import Training
from harness.data.split import Split
from harness.errors import UserError
from harness.methods import Method, MethodSettings, SourceInfo
from harness.store import Store
from harness.testing import WORDS, make_rows
from harness.training import run_trial
from tests.methods.steps import make
from tests.training.small import CLASSES, fill, find, make_loop, make_plan, tokens_of

WARM_UP = 4
TRAINING = Training(epochs=12, batch_size=16, learning_rate=3e-3, warmup=0.0)


@pytest.fixture(scope="module")
def sentences(tiny_encoder, tmp_path_factory):
    """Sentences whose labels are right, and their tokens."""
    sentences = make_rows(np.random.Generator(np.random.PCG64(3)), 20, 0.0)
    labels = np.array([list(WORDS).index(label) for _, label in sentences])
    ids = tuple(f"row-{i}" for i in range(len(sentences)))
    rows = Split("source", ids, tuple(text for text, _ in sentences), None, labels)
    return rows, tokens_of(rows, tiny_encoder, Store(str(tmp_path_factory.mktemp("sentences"))))


def with_wrong_labels(rows):
    """The rows with every third label moved on, and which those are."""
    labels, wrong = rows.labels.copy(), np.arange(len(rows)) % 3 == 0
    labels[wrong] = (labels[wrong] + 1) % CLASSES
    return replace(rows, labels=labels), wrong


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ren", {}),
        ("ren", {"lookahead": "adam"}),
        ("hu", {}),
        pytest.param("hu", {"form": "exact"}, marks=pytest.mark.slow),
        ("hu", {"lookahead": "sgd", "decay": 1.2, "normalization": "softmax"}),
    ],
)
def test_rows_with_wrong_labels_get_smaller_weights(name, options, sentences, tiny_encoder):
    rows, tokens = sentences
    corrupted, wrong = with_wrong_labels(rows)
    # looks ahead at the same rows with the right labels
    loops = [
        make_loop(
            make(name, real_rows=None, warm_up=WARM_UP, **options),
            corrupted,
            tokens,
            tiny_encoder,
            TRAINING,
            real=(rows, tokens),
        )
        for _ in range(2)
    ]
    for loop in loops:
        loop.method.prepare(SourceInfo(corrupted.labels, CLASSES, rows.labels))
    first, second = (loop.run(lambda entry: None) for loop in loops)
    np.testing.assert_array_equal(first.weights[WARM_UP - 1], 1.0, "epochs of plain CE come first")
    np.testing.assert_array_equal(first.weights[-1], second.weights[-1])
    assert first.weights[-1].min() >= 0
    assert first.weights[-1].mean() == pytest.approx(1.0, abs=1e-4)
    auc = np.mean([roc_auc_score(~wrong, weights) for weights in first.weights[WARM_UP:]])
    assert auc > 0.6, auc
    seconds = loops[0].timer.seconds
    assert seconds["meta_gradient"] > 0
    assert seconds["train"] > 0


class Asked(Method[MethodSettings]):
    """Compares the loop's inner products with backward passes through the batch it was given."""

    name = "recorder"
    needs = frozenset({"real", "gradients"})
    differences: tuple[float, ...] = ()

    def weights(self, step):
        bound = step.gradients
        named = {n: p for n, p in bound.ahead.model.named_parameters() if p.requires_grad}
        noise = torch.Generator().manual_seed(0)
        direction = {n: torch.randn(p.shape, generator=noise) for n, p in named.items()}
        actual, expected = bound.products.inner_products(bound.losses, direction), []
        for loss in bound.losses:
            own = torch.autograd.grad(loss, list(named.values()), retain_graph=True)
            expected.append(sum((g * direction[n]).sum() for n, g in zip(named, own, strict=True)))
        expected = torch.stack(expected)
        self.differences = (*self.differences, float((actual - expected).abs().max() / expected.abs().max()))
        return torch.ones_like(actual)


@pytest.mark.parametrize("ghost", [True, False])
def test_in_the_loop_the_inner_products_are_of_the_forward_pass_with_its_dropout(ghost, sentences, tiny_encoder):
    rows, tokens = sentences
    training = Training(epochs=1, batch_size=16, learning_rate=1e-3)
    loop = make_loop(Asked(), rows, tokens, tiny_encoder, training, real=(rows, tokens))
    for module in loop.plain.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    loop.ahead.uses_ghost_products = ghost
    loop.run(lambda entry: None)
    assert len(loop.method.differences) == 4
    assert max(loop.method.differences) < 1e-4


def test_the_gradient_of_a_step_is_that_of_a_backward_pass(sentences, tiny_encoder):
    """From the slopes of every layer, or through the graph; without clipping, since the optimizer hides a factor."""
    rows, tokens = sentences
    training = Training(steps=1, batch_size=16, learning_rate=1e-3, gradient_norm=1e9)
    gradients = []
    for ghost in (True, False):
        method = make("hu", warm_up=0, lookahead="sgd")  # well conditioned, unlike the first step of Adam
        method.prepare(SourceInfo(rows.labels, CLASSES, rows.labels))
        loop = make_loop(method, rows, tokens, tiny_encoder, training, real=(rows, tokens))
        assert loop.ahead.uses_ghost_products
        loop.ahead.uses_ghost_products = ghost
        loop.run(lambda entry: None)
        gradients.append({name: p.grad for name, p in loop.plain.named_parameters()})
    for name, value in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], value, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("choice", "training", "message"),
    [
        ({"name": "dimp", "lag": "first"}, {"epochs": 1}, "expected training.epochs of at least 2, found 1"),
        ({"name": "dimp", "lag": "epoch"}, {"steps": 3, "batch_size": 16}, "has 3 steps; expected more steps, found 3"),
        ("rho", {"accumulation": 2}, "looks at a batch as a whole: expected training.accumulation 1, found 2"),
        ("ren", {"accumulation": 2}, "looks at a batch as a whole: expected training.accumulation 1, found 2"),
        ({"name": "hu", "warm_up": 3}, {"epochs": 3}, "warm_up of 3 epochs leaves none of training.epochs 3"),
        ("ren", {"steps": 3, "batch_size": 16}, "warm_up of 1 epochs of 48 rows is 3 steps, which leaves none of 3"),
        ("hu", {"batch_size": 1}, "weights are of mean one in a batch, so that in training.batch_size 1 all are one"),
    ],
)
def test_trainings_without_a_place_for_it_are_refused_at_the_door(choice, training, message, experiment_file):
    file = experiment_file(grid=[{"source": "generated", "methods": ["ce", choice]}], training=training)
    with pytest.raises(UserError, match=message):
        make_plan(file)


def test_by_steps_the_warm_up_may_end_within_an_epoch_of_evaluation(experiment_file):
    grid = [{"source": "generated", "methods": ["ren"]}]
    assert make_plan(experiment_file(grid=grid, training={"epochs": 1, "steps": 4, "batch_size": 16})).jobs


def test_sungen_uses_real_rows_only_where_its_outer_loss_does(experiment_file):
    choices = [{"name": "sungen", "outer": outer} for outer in ("synthetic", "real")]
    grid = [{"source": "generated", "methods": choices}]
    plan = make_plan(experiment_file(grid=grid, seeds=[0], quality_fractions=[0.5, 1.0]))
    actual = [(job.trial.method.settings["outer"], job.trial.fraction) for job in plan.jobs]
    assert sorted(actual, key=str) == [("real", 0.5), ("real", 1.0), ("synthetic", None)]
    assert {"real_small" in job.trial.task.digests for job in plan.jobs if job.trial.fraction is None} == {False}


@pytest.mark.parametrize("name", ["hu", "ren", "sungen"])
def test_they_train_under_bfloat16(name, experiment_file, tmp_path):
    training = {"epochs": 2, "batch_size": 16, "learning_rate": 5e-3, "precision": "bfloat16"}
    plan = make_plan(experiment_file(grid=[{"source": "generated", "methods": [name]}], seeds=[0], training=training))
    result = run_trial.run(find(plan, "generated", name), fill(plan, tmp_path), lambda entry: None)
    weights = result.arrays["weights"][-1]
    assert np.isfinite(weights).all()
    assert len(np.unique(weights)) > 2


@pytest.mark.parametrize("outer", ["real", "synthetic"])
def test_a_trial_with_inner_trainings_comes_out_the_same_again(outer, experiment_file, tmp_path):
    choice = {"name": "sungen", "rounds": 2, "inner_epochs": 1, "outer": outer}
    plan = make_plan(experiment_file(grid=[{"source": "generated", "methods": ["ce", choice]}], seeds=[0]))
    (label,) = (job.label for job in plan.jobs if job.label.startswith("sungen"))
    job, ce = find(plan, "generated", label), find(plan, "generated", "ce")
    results = [run_trial.run(job, fill(plan, tmp_path / name), lambda entry: None) for name in ("one", "two")]
    for name, values in results[0].arrays.items():
        np.testing.assert_array_equal(values, results[1].arrays[name])
    weights = results[0].arrays["weights"]
    np.testing.assert_array_equal(weights[0], weights[-1])
    assert len(np.unique(weights)) > 1
    assert weights[0].mean() == pytest.approx(1.0, abs=1e-4)
    assert results[0].runtime["seconds_outer_rounds"] > 0
    plain = run_trial.run(ce, fill(plan, tmp_path / "ce"), lambda entry: None)
    assert not np.array_equal(plain.arrays["test"], results[0].arrays["test"])
    assert "seconds_outer_rounds" not in plain.runtime
