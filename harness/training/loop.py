"""The only training loop: minimizes mean(w · cross-entropy) with the weights of a method, whatever the method.

The cross-entropy is that of the labels, or of the targets that the method gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.experiment import Training
from harness.data.batches import training_batches
from harness.data.split import IntArray, Split
from harness.data.tokens import Tokens
from harness.errors import TrialError
from harness.methods import AnyMethod, MicroBatch
from harness.phases import Phase
from harness.seeds import derive
from harness.training.activations import model_inputs
from harness.training.classifier import forward, make_optimizer
from harness.training.evaluation import FloatArray, metrics, predict
from harness.training.meta_gradients.forward_mode import ForwardModeProducts
from harness.training.meta_gradients.ghost_products import GhostProducts
from harness.training.meta_gradients.lookahead import BatchLookahead, Lookahead, SubsetLookahead
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer
from harness.training.weights import WeightRecord, summary

Report = Callable[[dict[str, float]], None]
#: Steps between two checks of losses and weights, by device type; a check on a GPU waits for the device.
CHECK_EVERY = {"cpu": 1, "cuda": 20}


@dataclass(frozen=True)
class Inputs:
    """The data of a fine-tune.

    Attributes:
        source: the n rows to train on.
        tokens: their tokens.
        quality: log-probabilities of the quality checker for the m weighed rows, float32 [m, C], or None.
        diversity: log-probabilities of the diversity checker, as ``quality``.
        evaluation: split name -> rows and tokens to evaluate on.
        real: the small real set and its tokens, for a method that needs gradients or inner trainings.
        weighed: positions in ``source`` of the m rows that the method weighs, int64 [m]; the other rows keep weight
            1. None for all rows (m = n).
        is_real: which rows are real, bool [n], for a method that weighs real rows too; else None.
    """

    source: Split
    tokens: Tokens
    quality: FloatArray | None
    diversity: FloatArray | None
    evaluation: dict[str, tuple[Split, Tokens]]
    real: tuple[Split, Tokens] | None = None
    weighed: IntArray | None = None
    is_real: npt.NDArray[np.bool_] | None = None


@dataclass
class Outcome:
    """The result of a fine-tune.

    Attributes:
        history: metrics of every evaluation, in order.
        predictions: split -> log-probabilities float32 [evaluations, rows, C].
        weights: the last weight of every row before each evaluation, float32 [evaluations, n].
        rows_trained: rows that went through training steps, counted with repetition.
        steps: optimizer steps.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    predictions: dict[str, list[FloatArray]] = field(default_factory=dict)
    weights: list[npt.NDArray[np.float32]] = field(default_factory=list)
    rows_trained: int = 0
    steps: int = 0


class LoopCheckpoint:
    """Where a loop keeps its state after every evaluation: here, nowhere. See ``harness.training.checkpoint``."""

    @property
    def exists(self) -> bool:
        """True if there is a state to restore."""
        return False

    def restore(self, loop: Loop) -> Outcome | None:
        """Brings a new loop into the saved state; returns its outcome so far, None if there is no such state."""
        return None

    def save(self, loop: Loop, outcome: Outcome) -> None:
        """Saves the state of a loop whose last step was evaluated."""


@dataclass(frozen=True)
class WeighedPart:
    """The part of a micro-batch that the method weighs.

    Attributes:
        batch: these b rows, without gradients.
        selection: their positions in the micro-batch, int64 [b]; None for all rows.
    """

    batch: MicroBatch
    selection: Tensor | None


class Loop:
    """Fine-tunes a model with weighted cross-entropy.

    Args:
        model: the classifier, on the group's device.
        method: gives the weights; already prepared.
        inputs: rows, tokens and scores.
        training: settings of optimizer, schedule and length.
        seed: seed of the streams for order and dropout.
        group: the processes that train together.
        timer: takes the wall time of each phase.
        before: numbers of evaluations and of steps in earlier stages; epochs and steps are numbered from there.
    """

    def __init__(
        self, model: nn.Module, method: AnyMethod, inputs: Inputs, training: Training, seed: int, group: ProcessGroup,
        timer: PhaseTimer, before: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        self.before = before
        self.method, self.inputs, self.training, self.seed = method, inputs, training, seed
        self.group, self.timer = group, timer
        self.plain, self.model = model, group.wrap(model)
        per_epoch = math.ceil(len(inputs.source) / training.batch_size)
        self.steps = training.steps or training.epochs * per_epoch
        self.optimizer, self.schedule = make_optimizer(model, training, self.steps)
        self.labels = torch.from_numpy(inputs.source.labels).to(group.device)
        self.quality = _tensor(inputs.quality, group.device)
        self.diversity = _tensor(inputs.diversity, group.device)
        self.is_real = None if inputs.is_real is None else torch.from_numpy(inputs.is_real).to(group.device)
        self.positions = _positions(inputs, group.device)
        self.ahead: Lookahead | None = None
        if "gradients" in method.needs:
            assert inputs.real is not None, "a method that needs gradients gets real rows"
            assert training.accumulation == 1, "planning refuses anything else"
            self.ahead = Lookahead(model, self.optimizer, inputs.real, training, seed, group, timer)
        self.record = WeightRecord(len(inputs.source), group)
        self.done = 0
        self.epoch = 0

    def run(self, report: Report, checkpoint: LoopCheckpoint | None = None) -> Outcome:
        """Trains all epochs and reports every evaluation.

        Args:
            report: called with the metrics of every evaluation, also of those that are in the checkpoint.
            checkpoint: gives the state to go on from, and takes the state after every evaluation.

        Raises:
            TrialError: a loss or weight is not finite, or a weight is negative; names the row and the step.
        """
        with self.timer.phase(Phase.WARM_UP):
            self._warm_up()
        torch.manual_seed(derive(self.seed, "dropout", self.group.rank))
        checkpoint = checkpoint or LoopCheckpoint()
        outcome = checkpoint.restore(self) or self._begin(checkpoint)
        for entry in outcome.history:
            report(entry)
        batches = training_batches(self.inputs.tokens.lengths, self.training.batch_size, self.seed, self.steps)
        batches = islice(batches, self.done, None)
        self.model.train()
        evaluations = min(self.training.evaluation_count, self.steps)
        for number in range(1 + len(outcome.history), evaluations + 1):
            until = round(self.steps * number / evaluations)
            with self.timer.phase(Phase.TRAIN):
                train_loss, rows = self._interval(islice(batches, until - self.done))
            outcome.rows_trained += rows
            with self.timer.phase(Phase.EVALUATE):
                evaluated, trained = self.before
                entry = {"epoch": float(evaluated + number), "step": float(trained + self.done)}
                entry["train_loss"] = train_loss
                outcome.history.append(entry | self._evaluate(outcome))
            report(outcome.history[-1])
            outcome.steps = self.done
            checkpoint.save(self, outcome)
        return outcome

    def _begin(self, checkpoint: LoopCheckpoint) -> Outcome:
        """The outcome before the first step; saves what the method learned in inner trainings, if there were any."""
        outcome = Outcome(predictions={name: [] for name in self.inputs.evaluation})
        if "inner_training" in self.method.needs:
            checkpoint.save(self, outcome)
        return outcome

    def _interval(self, batches: Iterator[tuple[int, IntArray]]) -> tuple[float, int]:
        """Trains on some batches and returns the mean weighted loss over their rows, and the number of rows."""
        total, rows_seen = torch.zeros((), dtype=torch.float64, device=self.group.device), 0
        for epoch, rows in batches:
            if epoch > self.epoch:
                self.method.end_epoch(lambda tensor: self.group.sum(tensor.to(self.group.device)))
                self.epoch = epoch
            total += self._train_step(rows, epoch)
            rows_seen += len(rows)
        loss = self.group.sum(total).item() / max(1, rows_seen)
        if not math.isfinite(loss):
            raise TrialError(f"the training loss is {loss} by step {self.done}")
        return loss, rows_seen

    def _train_step(self, rows: IntArray, epoch: int) -> Tensor:
        """Steps the optimizer once on a global batch.

        Returns:
            This process's share of Σ w·ce, a detached float64 scalar.
        """
        share = rows[self.group.rank :: self.group.size]
        # every process takes part in every step: without rows of its own it computes one row with weight zero
        idle = len(share) == 0
        micro_batches = [m for m in np.array_split(rows[:1] if idle else share, self.training.accumulation) if len(m)]
        total_loss = torch.zeros((), dtype=torch.float64, device=self.group.device)
        total_weight = torch.zeros((), device=self.group.device)
        self.optimizer.zero_grad(set_to_none=True)
        for number, part in enumerate(micro_batches):
            last = number == len(micro_batches) - 1
            synchronized = last or self.group.size == 1
            with nullcontext() if synchronized else self.model.no_sync():  # type: ignore[operator]
                losses, weights, products = self._micro_batch(part, epoch, len(rows), present=not idle)
                # DDP averages gradients over processes; the mean of a batch is over the rows of all of them
                self._backward(losses, weights, products, 0.0 if idle else self.group.size / len(rows))
            if not idle:
                weights, losses = weights.detach(), losses.detach()
                total_loss += (weights * losses).sum()
                total_weight += weights.sum()
                self.record.add(torch.from_numpy(part).to(self.group.device), weights, self.done)
        if self.method.settings.normalize:
            mean = self.group.sum(total_weight) / len(rows)
            factor = torch.where(mean > 0, 1.0 / mean, torch.zeros_like(mean))
            for parameter in self.plain.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)
            total_loss = total_loss * factor
        torch.nn.utils.clip_grad_norm_(self.plain.parameters(), self.training.gradient_norm)
        self.optimizer.step()
        self.schedule.step()
        self.done += 1
        return total_loss

    def _backward(
        self, losses: Tensor, weights: Tensor, products: GhostProducts | ForwardModeProducts | None, factor: float
    ) -> None:
        """Adds ∇ factor · Σ w·ce to the gradients of the parameters; losses and weights are [B]."""
        known = isinstance(products, GhostProducts) and products.ready
        if known and not weights.requires_grad and self.group.size == 1:  # DDP needs a backward pass of its own
            products.backward(weights * factor)  # type: ignore[union-attr]
        else:
            ((weights * losses).sum() * factor).backward()

    def _micro_batch(
        self, rows: IntArray, epoch: int, size: int, present: bool
    ) -> tuple[Tensor, Tensor, GhostProducts | ForwardModeProducts | None]:
        """The losses and weights of a micro-batch of B rows, without a backward pass.

        Args:
            rows: their positions in the source [B].
            epoch: passes over the source so far, from 0.
            size: rows of the whole batch, over all processes.
            present: False where this process has no row of its own and the row must not count.

        Returns:
            Cross-entropy and weights, attached to the graph [B], and what is known of the gradients of single rows.
        """
        device = self.group.device
        batch = model_inputs(self.plain, self.inputs.tokens, rows, device)
        index = torch.from_numpy(rows).to(device)
        labels = self.labels[index]
        products = self.ahead.example_products(batch, labels) if self.ahead else None
        with products.recording() if products else nullcontext():
            logits = forward(self.model, batch, self.training.precision)
        part = self._weighed_part(rows, index, labels, logits, epoch)
        losses = self._losses(logits, labels, part)
        gradients = None
        if self.ahead and products:
            total = len(self.inputs.source)
            gradients = BatchLookahead(self.ahead, products, index, losses, size, total, present)
        weights = self._weights(logits, part, gradients, present)
        if self.done % CHECK_EVERY.get(device.type, 20) == 0:
            self._check(rows, losses.detach(), weights.detach())
        return losses, weights, products

    def _weighed_part(self, rows: IntArray, index: Tensor, labels: Tensor, logits: Tensor, epoch: int) -> WeighedPart:
        """The part of a micro-batch that the method weighs."""
        selection, positions = None, index
        if self.positions is not None:
            positions = self.positions[index]
            selection = (positions >= 0).nonzero()[:, 0]
            positions, rows, index = positions[selection], rows[selection.cpu().numpy()], index[selection]
            labels, logits = labels[selection], logits[selection]
        batch = MicroBatch(
            ids=tuple(self.inputs.source.ids[row] for row in rows), rows=positions, labels=labels, logits=logits,
            quality=None if self.quality is None else self.quality[positions],
            diversity=None if self.diversity is None else self.diversity[positions], epoch=epoch,
            real=None if self.is_real is None else self.is_real[index],
        )  # fmt: skip
        return WeighedPart(batch, selection)

    def _losses(self, logits: Tensor, labels: Tensor, part: WeighedPart) -> Tensor:
        """The cross-entropy of a micro-batch [B]: of the method's targets where it gives any, else of the labels."""
        losses = F.cross_entropy(logits, labels, reduction="none")
        targets = self.method.checked_targets(part.batch) if part.batch.ids else None
        if targets is None:
            return losses
        assert self.ahead is None, "lookaheads are computed with the labels"
        soft = F.cross_entropy(part.batch.logits, targets, reduction="none")
        return soft if part.selection is None else losses.index_put((part.selection,), soft)

    def _weights(self, logits: Tensor, part: WeighedPart, gradients: BatchLookahead | None, present: bool) -> Tensor:
        """The weights of a micro-batch [B]: the method's for the rows that it weighs, 1 for others."""
        batch, selection = part.batch, part.selection
        if gradients is None and not (present and len(batch.ids)):  # with gradients all processes must take part
            return logits.new_ones(len(logits))
        if selection is None:
            return self.method.checked_weights(replace(batch, gradients=gradients))
        if gradients is not None:
            assert self.inputs.weighed is not None, "there is a selection only where some rows are weighed"
            subset = SubsetLookahead(gradients, selection, batch.rows, len(self.inputs.weighed))
            batch = replace(batch, gradients=subset)
        return logits.new_ones(len(logits)).index_put((selection,), self.method.checked_weights(batch))

    def _check(self, rows: IntArray, losses: Tensor, weights: Tensor) -> None:
        """Raises ``TrialError`` for the first loss or weight that is not finite, or a negative weight."""
        for what, values, wrong in (
            ("loss", losses, ~losses.isfinite()),
            ("weight", weights, ~weights.isfinite() | (weights < 0)),
        ):
            if bool(wrong.any()):
                first = int(wrong.nonzero()[0, 0])
                raise TrialError(
                    f"the {what} of row {self.inputs.source.ids[rows[first]]!r} is {values[first].item()} "
                    f"at step {self.done + 1} of {self.steps} (method {self.method.name!r}, "
                    f"learning rate {self.training.learning_rate})"
                )

    def _evaluate(self, outcome: Outcome) -> dict[str, float]:
        """Predicts every evaluated split; adds predictions and weights to the outcome and returns the metrics."""
        entry: dict[str, float] = {}
        for name, (split, tokens) in self.inputs.evaluation.items():
            log_probs = predict(
                self.plain, tokens, self._classes(), self.training.evaluation_batch_size, self.training.precision,
                self.group,
            )  # fmt: skip
            outcome.predictions[name].append(log_probs)
            entry |= metrics(log_probs, split.labels, name)
        outcome.weights.append(self.record.take())
        last = outcome.weights[-1]
        weighed = last if self.inputs.weighed is None else last[self.inputs.weighed]
        return entry | summary(weighed, self.method.settings.clip)

    def _classes(self) -> int:
        return int(self.plain.config.num_labels)  # type: ignore[union-attr, arg-type]

    def _warm_up(self) -> None:
        """One forward and backward pass without effect: the first pass pays for kernels and allocators."""
        rows = np.arange(min(self.training.batch_size, len(self.inputs.source)))
        batch = model_inputs(self.plain, self.inputs.tokens, rows, self.group.device)
        devices = [self.group.device] if self.group.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            forward(self.plain, batch, self.training.precision).sum().backward()
        self.optimizer.zero_grad(set_to_none=True)


def _tensor(values: FloatArray | None, device: torch.device) -> Tensor | None:
    return None if values is None else torch.tensor(values, device=device)


def _positions(inputs: Inputs, device: torch.device) -> Tensor | None:
    """The position of every row among the weighed ones [n], -1 for others; None where all are weighed."""
    if inputs.weighed is None:
        return None
    positions = torch.full((len(inputs.source),), -1, dtype=torch.int64)
    positions[torch.from_numpy(inputs.weighed)] = torch.arange(len(inputs.weighed))
    return positions.to(device)
