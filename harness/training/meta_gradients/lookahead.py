"""How the loss on the small real set changes with a batch's weights: through one step of the optimizer, looked ahead.

θ' is θ after one step on mean(w ℓ). The derivative of the real loss L(θ') with respect to w_i is

    dL/dw_i = ⟨∇L(θ'), dθ'/dw_i⟩,    and for a step Δ(g) of the batch's gradient g:    dθ'/dw_i = Δ'(g) ∇ℓ_i / B,

since the steps of SGD and Adam act on each coordinate by itself. So with v = Δ'(g) ∇L(θ') all derivatives are
⟨v, ∇ℓ_i⟩/B: one backward pass for g, one on real rows for ∇L(θ'), and the products from what the pass for g left at
every layer (``by_layer``) or, where a model does not allow that, by a forward-mode pass (``forward_mode``). Nothing
is approximated: this is what differentiating through the optimizer's step gives, a step without gradient clipping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.config.experiment import Training
from harness.data.batches import evaluation_batches
from harness.data.split import Split
from harness.data.tokens import Tokens
from harness.methods.protocols import Form, Rule
from harness.seeds import generator
from harness.training.evaluation import to_device
from harness.training.meta_gradients.forward_mode import ForwardModeProducts, gradient, losses_at, parameters_of
from harness.training.meta_gradients.ghost_products import GhostProducts
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer

#: Numbers that are worked on at a time: what comes up on the way then stays in a processor's cache.
BLOCK = 1 << 16
Tensors = dict[str, Tensor]
#: gradient by name -> change of the parameters, and the derivative of that change coordinate by coordinate
StepOf = Callable[[Tensors], tuple[Tensors, Tensors]]


class Lookahead:
    """Looks ahead through a loop's optimizer.

    Args:
        model: the classifier without wrappers.
        optimizer: its AdamW.
        real: the small real set and its tokens.
        training: the loop's settings.
        seed: the trial's seed, for the order of the real rows.
        workers: the processes that train together.
        phases: time is booked as ``meta_gradient``.

    Attributes:
        by_layer: whether the model allows inner products by layers.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, real: tuple[Split, Tokens], training: Training,
        seed: int, workers: ProcessGroup, phases: PhaseTimer,
    ) -> None:  # fmt: skip
        self.model, self.optimizer, self.training = model, optimizer, training
        self.workers, self.phases = workers, phases
        self._real, self._tokens = real
        self._labels = torch.from_numpy(self._real.labels).to(workers.device)
        self._order = self._draws(generator(seed, "real_rows"))
        self._names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.by_layer = self._probe()

    def watch(self, batch: Tensors, labels: Tensor) -> GhostProducts | ForwardModeProducts:
        """What will be asked about a forward pass; it has to happen in its context ``watching()``."""
        if self.by_layer:
            return GhostProducts(self.model, len(labels), self.training.precision)
        return ForwardModeProducts(self.model, batch, labels, self.training.precision)

    def _probe(self) -> bool:
        """Whether rows, here a real one twice, go through the model as ``GhostProducts`` needs it."""
        rows = np.zeros(2, dtype=np.int64)
        seen = GhostProducts(self.model, len(rows), self.training.precision)
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), seen.watching():
            self.model(**to_device(self._tokens.padded(rows), self.workers.device))
        self.model.train(was_training)
        return seen.suffices()

    def sgd(self, gradient: Tensors) -> tuple[Tensors, Tensors]:
        """Plain gradient descent with the learning rate of now: Δ = -lr g."""
        rates = {self._names[p]: group["lr"] for group in self.optimizer.param_groups for p in group["params"]}
        change = {name: -rates[name] * value for name, value in gradient.items()}
        return change, {name: torch.full_like(value, -rates[name]) for name, value in gradient.items()}

    def adam(self, gradient: Tensors) -> tuple[Tensors, Tensors]:
        """A step of AdamW from the optimizer's own moments, as its next step would be without gradient clipping."""
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
        """∇L at θ + Δ on the next rows of the real set (None: all of them), without dropout. Δ is used up."""
        chosen = np.arange(len(self._real))
        if rows is not None and rows < len(chosen):
            chosen = np.array([next(self._order) for _ in range(rows)])
        moved = {name: change[name].add_(p).requires_grad_() for name, p in parameters_of(self.model).items()}
        total: Tensors = {}
        was_training = self.model.training
        self.model.eval()
        mine = chosen[self.workers.rank :: self.workers.size]
        size = self.training.batch_size
        for part in (mine[rows] for rows in evaluation_batches(self._tokens.lengths[mine], size)):
            batch = to_device(self._tokens.padded(part), self.workers.device)
            labels = self._labels[torch.from_numpy(part).to(self.workers.device)]
            loss = losses_at(self.model, batch, labels, self.training.precision)(moved).sum() / len(chosen)
            found = torch.autograd.grad(loss, list(moved.values()), allow_unused=True, materialize_grads=True)
            for name, value in zip(moved, found, strict=True):
                total[name] = total[name].add_(value) if name in total else value
        self.model.train(was_training)
        if not total:  # this worker has no real row of its own
            total = {name: torch.zeros_like(value) for name, value in moved.items()}
        return {name: self.workers.sum(value) for name, value in total.items()}

    def _draws(self, random: np.random.Generator) -> Iterator[int]:
        """All real rows, then all again in another order; the classes evenly mixed, so that few rows speak for all."""
        labels = self._real.labels
        while True:
            order, place = random.permutation(len(labels)), np.zeros(len(labels))
            for label in np.unique(labels):
                mine = order[labels[order] == label]
                place[mine] = (np.arange(len(mine)) + random.random()) / len(mine)
            yield from (int(row) for row in np.argsort(place, kind="stable"))


@dataclass(frozen=True)
class BatchLookahead:
    """A ``Lookahead`` on this worker's share of one batch: what a method gets.

    Attributes:
        ahead: the optimizer's part.
        rows: positions of the B rows in the source [B].
        losses: ℓ [B], attached to the graph.
        asked: what can be asked about the losses.
        size: rows of the batch over all workers.
        total: rows n of the source.
        present: False where this worker has no row of its own and computes one that does not count.
    """

    ahead: Lookahead
    asked: GhostProducts | ForwardModeProducts
    rows: Tensor
    losses: Tensor
    size: int
    total: int
    present: bool

    def sensitivity(self, weights: Tensor, rule: Rule, real_rows: int | None, form: Form = "linear") -> Tensor:
        """How the loss on the small real set, after one step on mean(w ℓ), changes with each weight.

        With ``adam`` a coordinate whose moments are 0 or nearly so (a word met only in rows of weight 0) has a
        derivative of the order lr/eps, true at that point and no further than eps around it; ``exact`` takes whole
        steps and has none of that.

        Args:
            weights: w, float32 [B], at which the derivative is taken.
            rule: whose step.
            real_rows: on how many real rows, the next ones in a seeded order; None for all of them.
            form: see ``Form``; the two are the same for ``sgd``.

        Returns:
            dL(θ')/dw_i, float32 [B].
        """
        with self.ahead.phases.phase("meta_gradient"):
            if form == "exact":
                return self._one_by_one(weights.detach(), rule, real_rows)
            change, slope = self._step_of(rule)(self._gradient(weights.detach()))
            real = self.ahead.real_gradient(change, real_rows)
            direction = {name: slope[name].mul_(real[name]) for name in real}
            return self.asked.products(self.losses, direction).float() / self.size

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the whole batch, on all workers."""
        return self.ahead.workers.sum(values.detach().sum() * float(self.present))

    def scatter(self, values: Tensor) -> Tensor:
        """Values of the batch's rows at their places in the source, zero elsewhere, the same on all workers [n]."""
        out = torch.zeros(self.total, device=values.device)
        out[self.rows] = values.detach() * float(self.present)
        return self.ahead.workers.sum(out)

    def _step_of(self, rule: Rule) -> StepOf:
        return {"sgd": self.ahead.sgd, "adam": self.ahead.adam}[rule]

    def _gradient(self, weights: Tensor) -> Tensors:
        """∇ of mean(w ℓ) over the batch of all workers, with the masks of the forward pass."""
        names = parameters_of(self.ahead.model)
        if not bool(self.ahead.workers.sum(weights.abs().sum())):
            return {name: torch.zeros_like(value) for name, value in names.items()}
        found = self.asked.gradient(self.losses, weights * (float(self.present) / self.size))
        return {name: self.ahead.workers.sum(value) for name, value in found.items()}

    def _one_by_one(self, weights: Tensor, rule: Rule, real_rows: int | None) -> Tensor:
        """The published form: every example's gradient makes a step of its own, and the weighted steps are added up.

        For SGD this is the same; for Adam it is not, for the step is not linear in the gradient. Two backward passes
        for every example.
        """
        step_of = self._step_of(rule)
        ahead = {name: torch.zeros_like(value) for name, value in parameters_of(self.ahead.model).items()}
        for weight, loss in zip(weights, self.losses, strict=True):
            for name, value in step_of(gradient(loss, self.ahead.model))[0].items():
                ahead[name] += value * (weight * float(self.present) / self.size)
        ahead = {name: self.ahead.workers.sum(value) for name, value in ahead.items()}
        real = self.ahead.real_gradient(ahead, real_rows)
        out = []
        for loss in self.losses:
            own = step_of(gradient(loss, self.ahead.model))[0]
            out.append(torch.stack([(own[name] * real[name]).sum() for name in own]).sum())
        return torch.stack(out).float() / self.size


class SubsetLookahead:
    """A ``BatchLookahead`` for the rows of a batch that a method weighs; the others keep weight 1.

    Args:
        whole: of the whole micro-batch of B rows.
        chosen: positions of the b weighed rows in it [b].
        positions: of these rows among all weighed rows of the source [b].
        total: weighed rows of the source.
    """

    def __init__(self, whole: BatchLookahead, chosen: Tensor, positions: Tensor, total: int) -> None:
        self._whole, self._chosen, self._positions, self._total = whole, chosen, positions, total
        ones = whole.losses.new_ones(len(chosen))
        self.size = int(whole.sum(ones).item())

    def sensitivity(self, weights: Tensor, rule: Rule, real_rows: int | None, form: Form = "linear") -> Tensor:
        """dL(θ')/dw_i of the weighed rows [b]; see ``BatchLookahead.sensitivity``."""
        everywhere = self._whole.losses.detach().new_ones(len(self._whole.losses))
        everywhere[self._chosen] = weights.detach()
        return self._whole.sensitivity(everywhere, rule, real_rows, form)[self._chosen]

    def sum(self, values: Tensor) -> Tensor:
        """The sum of values [b] over the whole batch, on all workers."""
        return self._whole.sum(values)

    def scatter(self, values: Tensor) -> Tensor:
        """Values [b] at their positions among all weighed rows, zero elsewhere, the same on all workers."""
        out = torch.zeros(self._total, device=values.device)
        out[self._positions] = values.detach() * float(self._whole.present)
        return self._whole.ahead.workers.sum(out)


def _adam_step(arrays: tuple[Tensor, ...], group: dict[str, Any], number: float) -> None:
    """Writes AdamW's ``number``-th step and its derivative, coordinate by coordinate.

    Args:
        arrays: gradient g, first and second moment, parameters; then where step and derivative go. All [k].
        group: the optimizer's settings.
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
