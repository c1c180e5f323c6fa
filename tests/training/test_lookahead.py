"""The look-ahead meta-gradient against differentiating through the optimizer's step, and what its users make of it."""

from __future__ import annotations

import math

import higher
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from harness.config.experiment import Training
from harness.phases import Phase
from harness.training.activations import model_inputs, skip_unused
from harness.training.classifier import load_classifier, make_optimizer
from harness.training.meta_gradients.forward_mode import ForwardModeProducts, plain_attention
from harness.training.meta_gradients.lookahead import BatchLookahead, Lookahead
from harness.training.timing import PhaseTimer
from tests.training.small import CLASSES, HERE
from tests.training.test_ghost_products import Shifted

TRAINING = Training(epochs=3, batch_size=16, learning_rate=2e-3, warmup=0.0, weight_decay=0.1)
ROWS = np.array([3, 8, 1, 22, 30, 41])
WEIGHTS = torch.tensor([1.0, 0.3, 2.0, 0.7, 0.0, 1.4])


class Scene:
    """A model in the middle of its training, with dropout, a batch and a small real set."""

    def __init__(self, rows, tokens, encoder, dtype=torch.float64, dropout=0.2, training=TRAINING, frozen=()):
        self.rows, self.tokens, self.dtype = rows, tokens, dtype
        self.model = load_classifier(str(encoder), CLASSES, 0, "sdpa").to(dtype).train()
        skip_unused(self.model)
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = dropout
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not any(part in name for part in frozen))
        self.optimizer, schedule = make_optimizer(self.model, training, 20)
        torch.manual_seed(1)
        for number in range(3):  # moments that are not zero
            batch, labels = self.inputs(np.arange(number * 8, number * 8 + 8))
            F.cross_entropy(self.model(**batch).logits, labels).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            schedule.step()
        real = rows.take(np.arange(33, 48))
        self.real_rows = np.arange(33, 48)
        real_set = real, tokens.take(self.real_rows)
        self.ahead = Lookahead(self.model, self.optimizer, real_set, training, 0, HERE, PhaseTimer(HERE.device))

    def inputs(self, rows):
        return model_inputs(self.model, self.tokens, rows, HERE.device), torch.from_numpy(self.rows.labels[rows])

    def bound(self):
        batch, labels = self.inputs(ROWS)
        products = self.ahead.example_products(batch, labels)
        with products.recording():
            losses = F.cross_entropy(self.model(**batch).logits, labels, reduction="none")
        index = torch.from_numpy(ROWS)
        return BatchLookahead(self.ahead, products, index, losses, len(ROWS), len(self.rows), True)

    def real_loss(self, parameters):
        batch, labels = self.inputs(self.real_rows)
        self.model.eval()
        with plain_attention():
            loss = F.cross_entropy(functional_call(self.model, parameters, kwargs=batch).logits, labels)
        self.model.train()
        return loss

    def stepped(self, weights, rule, state):
        """θ' as a differentiable function of the weights, AdamW written out once more."""
        named = dict(self.model.named_parameters())
        batch, labels = self.inputs(ROWS)
        torch.set_rng_state(state)
        with plain_attention():
            losses = F.cross_entropy(functional_call(self.model, named, kwargs=batch).logits, labels, reduction="none")
        gradients = torch.autograd.grad((weights * losses).mean(), list(named.values()), create_graph=True)
        out = {}
        groups = {id(p): group for group in self.optimizer.param_groups for p in group["params"]}
        for (name, parameter), g in zip(named.items(), gradients, strict=True):
            group, memory = groups[id(parameter)], self.optimizer.state[parameter]
            if rule == "sgd":
                out[name] = parameter.detach() - group["lr"] * g
                continue
            t = memory["step"].item() + 1
            m = 0.9 * memory["exp_avg"] + 0.1 * g
            v = 0.999 * memory["exp_avg_sq"] + 0.001 * g**2
            # the root's derivative at 0 is infinite, where our gradient is 0 as well
            safe = torch.where(v > 0, v, torch.ones_like(v))
            root = torch.where(v > 0, (safe / (1 - 0.999**t)).sqrt(), torch.zeros_like(v))
            old = parameter.detach() * (1 - group["lr"] * group["weight_decay"])
            out[name] = old - group["lr"] * (m / (1 - 0.9**t)) / (root + 1e-8)
        return out


def off(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("ghost", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 5e-5)])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_same_as_double_backward_through_the_step(rule, dtype, tolerance, ghost, rows, tokens, tiny_encoder):
    exact = Scene(rows, tokens, tiny_encoder)
    assert exact.ahead.uses_ghost_products, "so it is with this model"
    exact.ahead.uses_ghost_products = ghost
    weights = WEIGHTS.double().requires_grad_()
    state = torch.get_rng_state()
    (expected,) = torch.autograd.grad(exact.real_loss(exact.stepped(weights, rule, state)), weights)
    torch.set_rng_state(state)
    actual = exact.bound().sensitivity(WEIGHTS.double(), rule, None)
    # our result is handed out in float32
    assert off(actual, expected) < tolerance
    if dtype == torch.float32:
        scene = Scene(rows, tokens, tiny_encoder, dtype)
        scene.ahead.uses_ghost_products = ghost
        scene.model.load_state_dict(exact.model.state_dict())
        for ours, theirs in zip(scene.model.parameters(), exact.model.parameters(), strict=True):
            for name in ("exp_avg", "exp_avg_sq"):
                scene.optimizer.state[ours][name].copy_(exact.optimizer.state[theirs][name])
        torch.set_rng_state(state)
        assert off(scene.bound().sensitivity(WEIGHTS, rule, None), expected) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 5e-5)])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_same_as_a_library_that_differentiates_through_the_step(rule, dtype, tolerance, rows, tokens, tiny_encoder):
    training = TRAINING.model_copy(update={"weight_decay": 0.0})  # the library knows Adam, not AdamW
    scene = Scene(rows, tokens, tiny_encoder, dtype, training=training)
    state, model = torch.get_rng_state(), scene.model
    weights = (WEIGHTS + 0.2).to(dtype)  # with 0 there would be coordinates without a moment, for which it puts in 1e-8
    actual = scene.bound().sensitivity(weights, rule, None)
    theirs = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[rule](
        [{"params": group["params"], "lr": group["lr"]} for group in scene.optimizer.param_groups]
    )
    if rule == "adam":
        for parameter, known in scene.optimizer.state.items():  # a float32 number of steps spoils its 1 - 0.999**t
            theirs.state[parameter] = known | {"step": int(known["step"])}
        for group in theirs.param_groups:  # it adds eps before it corrects the second moment
            group["eps"] *= math.sqrt(1 - 0.999**4)
    weights.requires_grad_()
    torch.set_rng_state(state)
    with plain_attention(), higher.innerloop_ctx(model, theirs, copy_initial_weights=False) as (copy, optimizer):
        batch, labels = scene.inputs(ROWS)
        losses = F.cross_entropy(copy(**batch).logits, labels, reduction="none")
        optimizer.step((weights * losses).mean())
        batch, labels = scene.inputs(scene.real_rows)
        copy.eval()
        (expected,) = torch.autograd.grad(F.cross_entropy(copy(**batch).logits, labels), weights)
    assert off(actual, expected) < tolerance


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_finite_differences_of_the_whole_look_ahead(rule, rows, tokens, tiny_encoder):
    scene = Scene(rows, tokens, tiny_encoder)
    state = torch.get_rng_state()
    actual = scene.bound().sensitivity(WEIGHTS.double(), rule, None)
    for row in (0, 5):  # not where the weight is 0: Adam's derivative there holds within eps only
        ends = []
        for sign in (1, -1):
            moved = WEIGHTS.double()
            moved[row] += sign * 1e-4
            ends.append(scene.real_loss(scene.stepped(moved, rule, state)).item())
        assert actual[row].item() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-4, abs=1e-9)


def test_the_exact_form_is_the_published_step_of_every_example(rows, tokens, tiny_encoder):
    scene = Scene(rows, tokens, tiny_encoder, dropout=0.0)
    bound = scene.bound()
    named = dict(scene.model.named_parameters())
    steps = []
    for row in ROWS:
        batch, labels = scene.inputs(np.array([row]))
        loss = F.cross_entropy(scene.model(**batch).logits, labels)
        gradients = torch.autograd.grad(loss, list(named.values()))
        changed, _ = scene.ahead.adam(dict(zip(named, gradients, strict=True)))
        steps.append(changed)
    moved = {n: p.detach() + sum(w * s[n] for w, s in zip(WEIGHTS.double() / 6, steps, strict=True)) for n, p in
             named.items()}  # fmt: skip
    leaves = {n: p.requires_grad_() for n, p in moved.items()}
    gradients = torch.autograd.grad(scene.real_loss(leaves), list(leaves.values()))
    expected = torch.stack([sum((s[n] * g).sum() for n, g in zip(leaves, gradients, strict=True)) for s in steps]) / 6
    actual = bound.sensitivity(WEIGHTS.double(), "adam", None, "exact")
    assert off(actual, expected) < 1e-6
    linear = bound.sensitivity(WEIGHTS.double(), "adam", None)
    assert off(linear, expected) > 1e-3, "for Adam the two forms differ"
    both = [bound.sensitivity(WEIGHTS.double(), "sgd", None, form) for form in ("linear", "exact")]
    assert off(*both) < 1e-5, "for SGD they do not"


def test_a_model_whose_rows_share_a_layer_is_looked_ahead_by_forward_mode(rows, tokens, tiny_encoder):
    scene = Scene(rows, tokens, tiny_encoder)
    scene.model.classifier = Shifted(scene.model.classifier)
    real_set = rows.take(scene.real_rows), tokens.take(scene.real_rows)
    ahead = Lookahead(scene.model, scene.optimizer, real_set, TRAINING, 0, HERE, PhaseTimer(HERE.device))
    assert not ahead.uses_ghost_products
    batch, labels = scene.inputs(ROWS)
    assert isinstance(ahead.example_products(batch, labels), ForwardModeProducts)


def test_parameters_that_are_not_trained_stay_out_of_it(rows, tokens, tiny_encoder):
    """The slope of the real loss where one step on the weighted batch moves only what is trained."""
    actual = {}
    for ghost in (True, False):
        scene = Scene(rows, tokens, tiny_encoder, frozen=("embeddings.word", "LayerNorm.bias"))
        scene.ahead.uses_ghost_products = ghost
        assert len(scene.optimizer.state) < len(list(scene.model.parameters()))
        torch.manual_seed(7)
        actual[ghost] = [scene.bound().sensitivity(WEIGHTS.double(), rule, None) for rule in ("sgd", "adam")]
    torch.testing.assert_close(actual[True], actual[False], rtol=1e-5, atol=1e-10)


def test_no_real_row_is_drawn_twice_in_one_look(rows, tokens, tiny_encoder):
    ahead = Scene(rows, tokens, tiny_encoder).ahead
    still = [{n: torch.zeros_like(p) for n, p in ahead.model.named_parameters()} for _ in range(2)]
    all_rows, more = ahead.real_gradient(still[0], None), ahead.real_gradient(still[1], 99)
    assert all(torch.equal(all_rows[name], more[name]) for name in all_rows)


@pytest.mark.parametrize("ghost", [True, False])
def test_the_generator_goes_on_as_if_nobody_had_looked_ahead(ghost, rows, tokens, tiny_encoder):
    scene = Scene(rows, tokens, tiny_encoder)
    scene.ahead.uses_ghost_products = ghost
    bound = scene.bound()
    before = torch.get_rng_state()
    first = bound.sensitivity(WEIGHTS.double(), "adam", None)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(bound.sensitivity(WEIGHTS.double(), "adam", None), first)
    assert scene.model.training
    assert Phase.META_GRADIENT in scene.ahead.timer.seconds


def test_real_rows_come_in_a_seeded_order_each_once_a_round(rows, tokens, tiny_encoder):
    ahead = Scene(rows, tokens, tiny_encoder).ahead
    order = [next(ahead.order) for _ in range(30)]
    assert sorted(order[:15]) == sorted(order[15:]) == list(range(15))
    assert order[:15] != order[15:]
    assert order == [next(x) for x in [Scene(rows, tokens, tiny_encoder).ahead.order] for _ in range(30)]


def test_the_classes_are_evenly_mixed_in_any_few_real_rows(rows, tokens, tiny_encoder):
    ahead = Scene(rows, tokens, tiny_encoder).ahead
    labels = rows.labels[33:48]
    order = labels[[next(ahead.order) for _ in range(15)]]
    for label in np.unique(labels):
        seen = np.cumsum(order == label)
        expected = (labels == label).mean() * np.arange(1, 16)
        assert np.abs(seen - expected).max() <= 1.0, "never more than a row from its share"
