"""Derivative of the loss on the small real set with respect to the weights of a batch, through a lookahead step.

θ' is θ after one optimizer step on mean(w ℓ). The derivative of the real loss L(θ') with respect to w_i is

    dL/dw_i = ⟨∇L(θ'), dθ'/dw_i⟩,    and for a step Δ(g) of the batch's gradient g:    dθ'/dw_i = Δ'(g) ∇ℓ_i / B,

because the steps of SGD and Adam are elementwise. With v = Δ'(g) ∇L(θ') all derivatives are ⟨v, ∇ℓ_i⟩/B: one
backward pass for g, one on real rows for ∇L(θ'), and the inner products from the layers' inputs and output gradients
of the pass for g (``ghost_products``) or, for models that this does not support, by a forward-mode pass
(``forward_mode``). The result is exact: it equals differentiation through the optimizer step, without gradient
clipping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.config.experiment import Training
from harness.data.batches import longest_first
from harness.data.split import IntArray, Split
from harness.data.tokens import Tokens
from harness.methods.protocols import Form, Rule
from harness.phases import Phase
from harness.seeds import generator
from harness.training.activations import model_inputs
from harness.training.meta_gradients.forward_mode import ForwardModeProducts, gradient, losses_at, parameters_of
from harness.training.meta_gradients.ghost_products import GhostProducts
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer

#: Elements per block of the Adam step on a CPU: intermediate results then fit into its cache.
BLOCK = 1 << 16
Tensors = dict[str, Tensor]
#: Gradient by name -> change Δ of the parameters, and its elementwise derivative Δ'.
StepOf = Callable[[Tensors], tuple[Tensors, Tensors]]


class Lookahead:
    """Lookahead through the optimizer of a training loop.

    Args:
        model: the classifier without wrappers.
        optimizer: its AdamW.
        real: the small real set and its tokens.
        training: settings of the loop.
        seed: seed of the loop, for the order of the real rows.
        group: the processes that train together.
        timer: takes the time, as ``Phase.META_GRADIENT``.

    Attributes:
        order: positions of real rows without end, in the order in which batches take them.
        drawn: how many of them were taken so far.
        uses_ghost_products: True if the model allows ``GhostProducts``; otherwise ``ForwardModeProducts`` are used.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, real: tuple[Split, Tokens], training: Training,
        seed: int, group: ProcessGroup, timer: PhaseTimer,
    ) -> None:  # fmt: skip
        self.model, self.optimizer, self.training = model, optimizer, training
        self.group, self.timer = group, timer
        self._real, self._tokens = real
        self._labels = torch.from_numpy(self._real.labels).to(group.device)
        self.order = self._draws(generator(seed, "real_rows"))
        self.drawn = 0
        self._names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.uses_ghost_products = self._probe()

    def example_products(self, batch: dict[str, Any], labels: Tensor) -> GhostProducts | ForwardModeProducts:
        """Inner products for a forward pass, which must run in the context ``recording()`` of the returned object."""
        if self.uses_ghost_products:
            return GhostProducts(self.model, len(labels), self.training.precision, batch.get("rows"))
        return ForwardModeProducts(self.model, batch, labels, self.training.precision)

    def _probe(self) -> bool:
        """True if ``GhostProducts`` are exact for this model; tried on a batch with the first real row twice."""
        rows = np.zeros(2, dtype=np.int64)
        batch = model_inputs(self.model, self._tokens, rows, self.group.device)
        products = GhostProducts(self.model, len(rows), self.training.precision, batch.get("rows"))
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), products.recording():
            self.model(**batch)
        self.model.train(was_training)
        return products.is_exact()

    def skip(self, rows: int) -> None:
        """Takes real rows that lookaheads had before."""
        self._take(rows)

    def _take(self, rows: int) -> IntArray:
        """The positions of the next real rows [rows]."""
        self.drawn += rows
        return np.fromiter(islice(self.order, rows), dtype=np.int64, count=rows)

    def sgd(self, gradient: Tensors) -> tuple[Tensors, Tensors]:
        """A step of plain gradient descent with the current learning rate: Δ = -lr g, and its derivative -lr."""
        rates = {self._names[p]: group["lr"] for group in self.optimizer.param_groups for p in group["params"]}
        change = {name: -rates[name] * value for name, value in gradient.items()}
        return change, {name: torch.full_like(value, -rates[name]) for name, value in gradient.items()}

    def adam(self, gradient: Tensors) -> tuple[Tensors, Tensors]:
        """The next step of the loop's AdamW, without gradient clipping, and its elementwise derivative."""
        change, slope = ({name: torch.zeros_like(p) for name, p in parameters_of(self.model).items()} for _ in range(2))
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                name, value = self._names[parameter], parameter.detach()
                state = self.optimizer.state.get(parameter) or {"step": 0.0}
                moments = [state[key] if key in state else torch.zeros_like(value) for key in ("exp_avg", "exp_avg_sq")]
                arrays = [gradient[name], *moments, value, change[name], slope[name]]
                size = BLOCK if value.device.type == "cpu" else value.numel()
                for block in zip(*(array.reshape(-1).split(size) for array in arrays), strict=True):
                    _adam_step(block, group, float(state["step"]) + 1.0)
        return change, slope

    def real_gradient(self, change: Tensors, rows: int | None) -> Tensors:
        """∇L at θ + Δ, without dropout.

        Args:
            change: Δ by name; overwritten.
            rows: number of real rows, the next ones in the seeded order; None for all.
        """
        selection = np.arange(len(self._real))
        if rows is not None and rows < len(selection):
            selection = self._take(rows)
        moved = {name: change[name].add_(p).requires_grad_() for name, p in parameters_of(self.model).items()}
        total: Tensors = {}
        was_training = self.model.training
        self.model.eval()
        share = selection[self.group.rank :: self.group.size]
        for part in longest_first(share, self._tokens.lengths, self.training.batch_size):
            batch = model_inputs(self.model, self._tokens, part, self.group.device)
            labels = self._labels[torch.from_numpy(part).to(self.group.device)]
            loss = losses_at(self.model, batch, labels, self.training.precision)(moved).sum() / len(selection)
            gradients = torch.autograd.grad(loss, list(moved.values()), allow_unused=True, materialize_grads=True)
            for name, value in zip(moved, gradients, strict=True):
                total[name] = total[name].add_(value) if name in total else value
        self.model.train(was_training)
        if not total:  # this process has no real row of its own
            total = {name: torch.zeros_like(value) for name, value in moved.items()}
        return {name: self.group.sum(value) for name, value in total.items()}

    def _draws(self, random: np.random.Generator) -> Iterator[int]:
        """All real rows in random order, again and again; every order mixes the classes evenly."""
        labels = self._real.labels
        while True:
            order, rank = random.permutation(len(labels)), np.zeros(len(labels))
            for label in np.unique(labels):
                members = order[labels[order] == label]
                rank[members] = (np.arange(len(members)) + random.random()) / len(members)
            yield from (int(row) for row in np.argsort(rank, kind="stable"))


@dataclass(frozen=True)
class BatchLookahead:
    """The ``MetaGradient`` of one batch, for this process's share of its rows.

    Attributes:
        ahead: lookahead through the optimizer of the loop.
        products: gradients and inner products for the losses.
        rows: positions of the B rows in the source, int64 [B].
        losses: ℓ, float32 [B], attached to the graph.
        size: rows of the batch over all processes.
        total: rows n of the source.
        present: False where this process has no row of its own, and its only row must not count.
    """

    ahead: Lookahead
    products: GhostProducts | ForwardModeProducts
    rows: Tensor
    losses: Tensor
    size: int
    total: int
    present: bool

    def sensitivity(self, weights: Tensor, rule: Rule, real_rows: int | None, form: Form = "linear") -> Tensor:
        """Derivative of the loss on the small real set, after one step on mean(w ℓ), with respect to each weight.

        With ``adam``, a coordinate whose moments are nearly 0 (a word that only occurs in rows of weight 0) has a
        derivative of the order lr/eps, which holds only within a distance of about eps. ``exact`` uses whole steps
        and is not affected.

        Args:
            weights: w, float32 [B]: the point at which the derivative is taken.
            rule: the optimizer of the lookahead step.
            real_rows: number of real rows, the next ones in a seeded order; None for all of them.
            form: see ``Form``; both are the same for ``sgd``.

        Returns:
            dL(θ')/dw_i, float32 [B].
        """
        with self.ahead.timer.phase(Phase.META_GRADIENT):
            if form == "exact":
                return self._one_by_one(weights.detach(), rule, real_rows)
            change, slope = self._step_of(rule)(self._gradient(weights.detach()))
            real = self.ahead.real_gradient(change, real_rows)
            direction = {name: slope[name].mul_(real[name]) for name in real}
            return self.products.inner_products(self.losses, direction).float() / self.size

    def sum(self, values: Tensor) -> Tensor:
        """The sum of values [B] over the whole batch, over all processes."""
        return self.ahead.group.sum(values.detach().sum() * float(self.present))

    def scatter(self, values: Tensor) -> Tensor:
        """Values [B] at the positions of their rows in the source, zero elsewhere [n]; the same on all processes."""
        out = torch.zeros(self.total, device=values.device)
        out[self.rows] = values.detach() * float(self.present)
        return self.ahead.group.sum(out)

    def _step_of(self, rule: Rule) -> StepOf:
        return {"sgd": self.ahead.sgd, "adam": self.ahead.adam}[rule]

    def _gradient(self, weights: Tensor) -> Tensors:
        """∇ mean(w ℓ) over the batch of all processes, with the dropout masks of the forward pass."""
        names = parameters_of(self.ahead.model)
        if not bool(self.ahead.group.sum(weights.abs().sum())):
            return {name: torch.zeros_like(value) for name, value in names.items()}
        gradients = self.products.gradient(self.losses, weights * (float(self.present) / self.size))
        return {name: self.ahead.group.sum(value) for name, value in gradients.items()}

    def _one_by_one(self, weights: Tensor, rule: Rule, real_rows: int | None) -> Tensor:
        """The published form: one step per example from its own gradient, and the weighted sum of these steps.

        Equal to ``linear`` for SGD but not for Adam, whose step is not linear in the gradient. Takes two backward
        passes per example.
        """
        step_of = self._step_of(rule)
        ahead = {name: torch.zeros_like(value) for name, value in parameters_of(self.ahead.model).items()}
        for weight, loss in zip(weights, self.losses, strict=True):
            for name, value in step_of(gradient(loss, self.ahead.model))[0].items():
                ahead[name] += value * (weight * float(self.present) / self.size)
        ahead = {name: self.ahead.group.sum(value) for name, value in ahead.items()}
        real = self.ahead.real_gradient(ahead, real_rows)
        out = []
        for loss in self.losses:
            own = step_of(gradient(loss, self.ahead.model))[0]
            out.append(torch.stack([(own[name] * real[name]).sum() for name in own]).sum())
        return torch.stack(out).float() / self.size


class SubsetLookahead:
    """The ``MetaGradient`` of the rows that a method weighs; the other rows of the batch step with weight 1.

    Args:
        whole: of all B rows.
        selection: indices of the b weighed rows among the B rows, int64 [b].
        positions: positions of these rows among all weighed rows of the source, int64 [b].
        total: number of weighed rows of the source.

    Attributes:
        size: weighed rows of the batch, over all processes.
    """

    def __init__(self, whole: BatchLookahead, selection: Tensor, positions: Tensor, total: int) -> None:
        self.whole, self._selection, self._positions, self._total = whole, selection, positions, total
        ones = whole.losses.new_ones(len(selection))
        self.size = int(whole.sum(ones).item())

    def sensitivity(self, weights: Tensor, rule: Rule, real_rows: int | None, form: Form = "linear") -> Tensor:
        """dL(θ')/dw_i of the weighed rows [b]; see ``BatchLookahead.sensitivity``."""
        all_weights = self.whole.losses.detach().new_ones(len(self.whole.losses))
        all_weights[self._selection] = weights.detach()
        return self.whole.sensitivity(all_weights, rule, real_rows, form)[self._selection]

    def sum(self, values: Tensor) -> Tensor:
        """The sum of values [b] over the whole batch, over all processes."""
        return self.whole.sum(values)

    def scatter(self, values: Tensor) -> Tensor:
        """Values [b] at their positions among all weighed rows, zero elsewhere; the same on all processes."""
        out = torch.zeros(self._total, device=values.device)
        out[self._positions] = values.detach() * float(self.whole.present)
        return self.whole.ahead.group.sum(out)


def _adam_step(arrays: tuple[Tensor, ...], group: dict[str, Any], number: float) -> None:
    """Computes step ``number`` of AdamW and its elementwise derivative, in place.

    Args:
        arrays: gradient g, first and second moment, parameters, and the outputs step and derivative; all [k].
        group: settings of the parameter group.
        number: of the step, from 1.
    """
    g, first, second, value, change, slope = arrays
    rate, (beta1, beta2), eps, decay = group["lr"], group["betas"], group["eps"], group["weight_decay"]
    up, down = 1 - beta1**number, 1 - beta2**number
    root = (second * (beta2 / down)).addcmul_(g, g, value=(1 - beta2) / down).sqrt_()
    denominator = root + eps
    move = first.lerp(g, 1 - beta1).div_(denominator)
    # d root/dg = (1 - β2) g / (down root); where root is 0, g is 0 and so is the product
    bend = torch.div(g, root.clamp_(min=torch.finfo(g.dtype).tiny))
    size = -rate / up
    torch.addcmul(g.new_tensor(size * (1 - beta1)), bend, move, value=-size * (1 - beta2) / down, out=slope)
    slope.div_(denominator)
    torch.mul(move, size, out=change)
    if decay:
        change.sub_(value, alpha=rate * decay)
