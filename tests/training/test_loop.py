"""The loop against a plain PyTorch loop written independently, and what accumulation and normalising mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from harness.config.experiment import Training
from harness.data.batches import epoch_batches
from harness.errors import TrialError
from harness.methods import Method, MethodSettings, SourceInfo
from harness.methods.base import LOG_FLOOR
from harness.training.classifier import load_classifier
from harness.training.process_group import ProcessGroup
from tests.methods.steps import make
from tests.training.small import CLASSES, log_scores, make_loop

TRAINING = Training(epochs=2, batch_size=16, learning_rate=2e-3, warmup=0.2, weight_decay=0.1, gradient_norm=0.5)
OPTIONS = [
    ("ce", {}),
    ("focal", {"gamma": 1.5}),
    ("imp", {}),
    ("imp", {"clip": 1.5, "normalize": True}),
    ("dimp", {"normalize": True}),
]


def reference_weights(name, options, logits, labels, quality, diversity):
    """The weights, said once more: numpy, float64."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p = (p / p.sum(1, keepdims=True))[np.arange(len(labels)), labels]
    p_quality, p_diversity = (np.exp(scores[np.arange(len(labels)), labels]) for scores in (quality, diversity))
    weights = {
        "ce": np.ones(len(labels)),
        "focal": (1 - p) ** options.get("gamma", 2.0),
        "imp": p_quality / p_diversity,
        "dimp": p_quality / p,
    }[name]
    weights = np.minimum(weights, options.get("clip", np.inf))
    return weights / weights.mean() if options.get("normalize") else weights


def reference(name, options, rows, tokens, encoder, training=TRAINING):
    """A plain loop: AdamW by hand-made groups, the schedule written out, no scheduler, no accumulation."""
    model = load_classifier(str(encoder), CLASSES, 0, "sdpa").train()
    quality, diversity = (log_scores(len(rows), seed).astype(np.float64) for seed in (1, 2))
    decayed = [p for n, p in model.named_parameters() if not (n.endswith("bias") or "LayerNorm" in n)]
    others = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=training.learning_rate, fused=False, foreach=False,
    )  # fmt: skip
    batches = [b for epoch in range(training.epochs) for b in epoch_batches(tokens.lengths, 16, 0, epoch)]
    rising, losses = round(training.warmup * len(batches)), []
    for number, batch in enumerate(batches):
        factor = number / rising if number < rising else (len(batches) - number) / (len(batches) - rising)
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * factor
        ids = [tokens.input_ids[tokens.offsets[r] : tokens.offsets[r + 1]].tolist() for r in batch]
        longest = max(map(len, ids))
        logits = model(
            input_ids=torch.tensor([row + [0] * (longest - len(row)) for row in ids]),
            attention_mask=torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
        ).logits
        labels = rows.labels[batch]
        values = logits.detach().numpy().astype(np.float64)
        weights = reference_weights(name, options, values, labels, quality[batch], diversity[batch])
        log_p = torch.log_softmax(logits, dim=-1)[torch.arange(len(batch)), torch.from_numpy(labels)]
        loss = -(torch.from_numpy(weights).float() * log_p).mean()
        losses.append(loss.item() * len(batch))
        optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
        for gradient in gradients:
            gradient.mul_(min(1.0, training.gradient_norm / (norm + 1e-6)))
        optimizer.step()
    half = len(batches) // 2
    return model, [sum(losses[:half]) / len(rows), sum(losses[half:]) / len(rows)]


def assert_same_parameters(first, second, atol):
    """Equal up to ``atol``; without the keys' biases, whose true gradient is 0 and whose Adam steps are rounding."""
    for (name, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        if atol == 0.0 or not name.endswith("key.bias"):
            torch.testing.assert_close(a, b, rtol=0.0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_same_as_a_plain_loop(name, options, rows, tokens, tiny_encoder):
    loop = make_loop(make(name, **options), rows, tokens, tiny_encoder, TRAINING)
    start = [p.detach().clone() for p in loop.plain.parameters()]
    outcome = loop.run(lambda entry: None)
    expected, losses = reference(name, options, rows, tokens, tiny_encoder)
    assert_same_parameters(loop.plain, expected, 2e-5)
    moved = max(float((p - q).detach().abs().max()) for p, q in zip(loop.plain.parameters(), start, strict=True))
    assert moved > 3e-3, "the tolerance means nothing where parameters hardly move"
    np.testing.assert_allclose([entry["train_loss"] for entry in outcome.history], losses, rtol=1e-4)
    assert outcome.rows_trained == 2 * len(rows)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
@pytest.mark.parametrize("accumulation", [2, 3])
def test_accumulated_slices_are_one_batch(name, options, accumulation, rows, tokens, tiny_encoder):
    whole, sliced = (
        make_loop(
            make(name, **options), rows, tokens, tiny_encoder,
            TRAINING.model_copy(update={"batch_size": 32, "accumulation": slices}),
        )
        for slices in (1, accumulation)
    )  # fmt: skip
    first, second = (loop.run(lambda entry: None) for loop in (whole, sliced))
    assert whole.steps == sliced.steps == 4
    assert_same_parameters(whole.plain, sliced.plain, 2e-5)
    np.testing.assert_allclose(first.weights[-1], second.weights[-1], rtol=1e-3)
    assert first.history[-1]["train_loss"] == pytest.approx(second.history[-1]["train_loss"], rel=1e-4)


class Table(Method[MethodSettings]):
    """Weights from a table by row."""

    name = "table"
    table: torch.Tensor

    def weights(self, step):
        return self.table[step.rows]


def table(values, **options):
    method = Table(MethodSettings(**options))
    method.table = torch.as_tensor(values, dtype=torch.float32)
    return method


def test_normalise_rescales_the_weights_of_a_batch_to_mean_one(rows, tokens, tiny_encoder):
    values = np.linspace(0.01, 0.2, len(rows)).astype(np.float32)
    training = TRAINING.model_copy(update={"gradient_norm": 1e9})
    batches = [b for epoch in range(2) for b in epoch_batches(tokens.lengths, 16, 0, epoch)]
    normalized = make_loop(table(values, normalize=True), rows, tokens, tiny_encoder, training)
    outcome = normalized.run(lambda entry: None)

    class Rescaled(Table):
        calls = 0

        def weights(self, step):
            batch = batches[self.calls]
            self.calls += 1
            return self.table[step.rows] / self.table[batch].mean()

    by_hand = Rescaled()
    by_hand.table = torch.from_numpy(values)
    expected = make_loop(by_hand, rows, tokens, tiny_encoder, training)
    losses = [entry["train_loss"] for entry in expected.run(lambda entry: None).history]
    assert_same_parameters(normalized.plain, expected.plain, 2e-5)
    np.testing.assert_allclose([entry["train_loss"] for entry in outcome.history], losses, rtol=1e-5)
    np.testing.assert_allclose(outcome.weights[-1], values)  # the record shows the method's own weights


def test_normalise_makes_the_scale_of_the_weights_irrelevant(rows, tokens, tiny_encoder):
    values = np.linspace(0.5, 2.0, len(rows))
    loops = [
        make_loop(table(values * scale, normalize=True), rows, tokens, tiny_encoder, TRAINING) for scale in (1, 1024)
    ]
    for loop in loops:
        loop.run(lambda entry: None)
    assert_same_parameters(loops[0].plain, loops[1].plain, 1e-6)


@pytest.mark.parametrize("normalize", [False, True])
def test_a_batch_of_zero_weights_changes_nothing(normalize, rows, tokens, tiny_encoder):
    training = TRAINING.model_copy(update={"weight_decay": 0.0})
    loop = make_loop(table(np.zeros(len(rows)), normalize=normalize), rows, tokens, tiny_encoder, training)
    before = [p.detach().clone() for p in loop.plain.parameters()]
    outcome = loop.run(lambda entry: None)
    assert all(torch.equal(p, q) for p, q in zip(loop.plain.parameters(), before, strict=True))
    assert [entry["train_loss"] for entry in outcome.history] == [0.0, 0.0]
    assert outcome.history[-1]["weight_ess"] == 0.0


def test_rows_with_zero_weight_do_not_count(rows, tokens, tiny_encoder):
    """Filtering with weights, and a change of the labels of what is filtered out, give the same model."""
    keep = (np.arange(len(rows)) % 3 > 0).astype(np.float32)
    other = rows.take(range(len(rows)))
    other.labels[keep == 0] = (other.labels[keep == 0] + 1) % CLASSES
    loops = [make_loop(table(keep), split, tokens, tiny_encoder, TRAINING) for split in (rows, other)]
    for loop in loops:
        loop.run(lambda entry: None)
    assert_same_parameters(loops[0].plain, loops[1].plain, 0.0)


def test_the_lag_of_dimp_is_that_of_the_loop(rows, tokens, tiny_encoder):
    """Three epochs: the weights of the last two follow from those of the epochs before, whose p they show."""
    training = TRAINING.model_copy(update={"epochs": 3})
    outcomes = {
        lag: [make_loop(lagging(lag, rows), rows, tokens, tiny_encoder, training).run(lambda entry: None) for _ in "ab"]
        for lag in ("none", "epoch", "first")
    }
    for first, second in outcomes.values():
        assert first.history == second.history
        np.testing.assert_array_equal(first.weights, second.weights)
    plain, epoch, first = (outcomes[lag][0].weights for lag in ("none", "epoch", "first"))
    for lagged in (epoch, first):
        np.testing.assert_array_equal(lagged[0], plain[0])
        np.testing.assert_array_equal(lagged[1], plain[0], "p is that of the epoch before")
    np.testing.assert_array_equal(first[2], plain[0])
    assert (epoch[2] != plain[0]).mean() > 0.9
    assert (epoch[1] != plain[1]).mean() > 0.9


def lagging(lag, rows):
    method = make("dimp", lag=lag)
    method.prepare(SourceInfo(rows.labels, CLASSES, None))
    return method


def test_an_epoch_ends_once(rows, tokens, tiny_encoder):
    class Epochs(Method[MethodSettings]):
        """Counts batches and ends of epochs."""

        name = "epochs"

        def __init__(self):
            super().__init__()
            self.events = []

        def end_epoch(self, total):
            assert total(torch.ones(2)).tolist() == [1.0, 1.0]
            self.events.append("end")

        def weights(self, batch):
            self.events.append(batch.epoch)
            return torch.ones(len(batch.labels))

    training = TRAINING.model_copy(update={"steps": 7, "evaluations": 4})  # evaluated within epochs too
    loop = make_loop(Epochs(), rows, tokens, tiny_encoder, training)
    loop.run(lambda entry: None)
    assert loop.method.events == [0, 0, 0, "end", 1, 1, 1, "end", 2]


def test_gradients_flow_through_weights_that_are_attached(rows, tokens, tiny_encoder):
    class Attached(Method[MethodSettings]):
        name = "attached"
        detach = False

        def weights(self, step):
            weights = 1 - step.log_model.exp()
            return weights.detach() if self.detach else weights

    attached, detached = Attached(), Attached()
    detached.detach = True
    loops = [make_loop(method, rows, tokens, tiny_encoder, TRAINING) for method in (attached, detached)]
    outcomes = [loop.run(lambda entry: None) for loop in loops]
    assert outcomes[0].history[-1]["train_loss"] != outcomes[1].history[-1]["train_loss"]


@pytest.mark.parametrize(
    ("settings", "steps", "evaluated_at"),
    [
        ({"epochs": 3}, 9, [3, 6, 9]),
        ({"epochs": 2, "steps": 5}, 5, [2, 5]),
        ({"epochs": 5, "steps": 2}, 2, [1, 2]),
        ({"epochs": 1, "batch_size": 100}, 1, [1]),
        ({"epochs": 3, "steps": 8}, 8, [3, 5, 8]),
        ({"epochs": 4, "evaluations": 2}, 12, [6, 12]),
        ({"epochs": 1, "evaluations": 9}, 3, [1, 2, 3]),
    ],
)
def test_steps_and_evaluations(settings, steps, evaluated_at, rows, tokens, tiny_encoder):
    training = Training(**{"batch_size": 16} | settings)
    loop = make_loop(make("ce"), rows, tokens, tiny_encoder, training)
    reported = []
    outcome = loop.run(reported.append)
    assert loop.steps == loop.done == steps
    assert [entry["step"] for entry in outcome.history] == evaluated_at
    assert [entry["epoch"] for entry in outcome.history] == list(range(1, len(evaluated_at) + 1))
    assert reported == outcome.history
    assert [p.shape for p in outcome.predictions["test"]] == [(len(rows), CLASSES)] * len(evaluated_at)


def test_warm_up_leaves_no_trace(rows, tokens, tiny_encoder, monkeypatch):
    runs = []
    for skip in (False, True):
        loop = make_loop(make("dimp"), rows, tokens, tiny_encoder, TRAINING)
        if skip:
            monkeypatch.setattr(loop, "_warm_up", lambda: None)
        runs.append((loop.run(lambda entry: None), loop.plain))
    assert runs[0][0].history == runs[1][0].history
    assert_same_parameters(runs[0][1], runs[1][1], 0.0)


def test_bfloat16_is_close_and_keeps_the_loss_in_float32(rows, tokens, tiny_encoder):
    seen = []

    class Watch(Method[MethodSettings]):
        name = "watch"

        def weights(self, step):
            seen.append(step.logits.dtype)
            return step.logits.new_ones(step.labels.shape)

    losses = {}
    for precision in ("float32", "bfloat16"):
        training = TRAINING.model_copy(update={"precision": precision})
        outcome = make_loop(Watch(), rows, tokens, tiny_encoder, training).run(lambda entry: None)
        losses[precision] = outcome.history[-1]["train_loss"]
    assert set(seen) == {torch.float32}
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    assert losses["bfloat16"] != losses["float32"]


def test_an_exploding_loss_names_the_row(rows, tokens, tiny_encoder):
    training = TRAINING.model_copy(update={"learning_rate": 1e30, "warmup": 0.0})
    with pytest.raises(TrialError) as caught:
        make_loop(make("ce"), rows, tokens, tiny_encoder, training).run(lambda entry: None)
    second = epoch_batches(tokens.lengths, 16, 0, 0)[1]
    assert str(caught.value) == (
        f"the loss of row {rows.ids[second[0]]!r} is nan at step 2 of 6 (method 'ce', learning rate 1e+30)"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.5])
def test_a_weight_that_is_no_weight_names_the_row(value, rows, tokens, tiny_encoder):
    values = np.ones(len(rows))
    bad = int(epoch_batches(tokens.lengths, 16, 0, 0)[2][5])
    values[bad] = value
    with pytest.raises(TrialError) as caught:
        make_loop(table(values), rows, tokens, tiny_encoder, TRAINING).run(lambda entry: None)
    assert str(caught.value).startswith(
        f"the weight of row {rows.ids[bad]!r} is {value} at step 3 of 6 (method 'table'"
    )


def test_a_product_that_overflows_is_not_passed_over(rows, tokens, tiny_encoder):
    values = np.full(len(rows), 3e38)
    with pytest.raises(TrialError, match=r"the training loss is (inf|nan) by step 3"):
        make_loop(table(values), rows, tokens, tiny_encoder, TRAINING).run(lambda entry: None)


class Alone(ProcessGroup):
    """A worker of a group whose peers are silent: what it sums and compares is its own."""

    def wrap(self, model):
        return model

    def sum(self, tensor):
        return tensor

    def maximum(self, tensor):
        return tensor


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_records_its_own_rows_only(rank, rows, tokens, tiny_encoder):
    """With 17 rows in batches of 16 the last batch has one row: the second worker is idle then."""
    some = rows.take(range(17))
    lengths = tokens.lengths[:17]
    few = type(tokens)(tokens.input_ids[: lengths.sum()], tokens.token_type_ids[: lengths.sum()], tokens.offsets[:18])
    training = TRAINING.model_copy(update={"epochs": 1})
    workers = Alone(torch.device("cpu"), rank, 2)
    outcome = make_loop(make("ce"), some, few, tiny_encoder, training, workers).run(lambda entry: None)
    own_rows = {int(row) for batch in epoch_batches(lengths, 16, 0, 0) for row in batch[rank::2]}
    assert set(np.flatnonzero(~np.isnan(outcome.weights[0]))) == own_rows


def test_scores_of_zero_probability_stay_finite(rows, tokens, tiny_encoder):
    loop = make_loop(make("imp", clip=2.0), rows, tokens, tiny_encoder, TRAINING)
    loop.quality[:, 0], loop.diversity[:, 1] = -math.inf, -math.inf
    outcome = loop.run(lambda entry: None)
    assert np.isfinite(outcome.weights).all()
    assert np.all(outcome.weights[0][rows.labels == 0] <= math.exp(LOG_FLOOR / 2))
    assert np.all(outcome.weights[0][rows.labels == 1] == 2.0)
