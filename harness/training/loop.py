"""The only training loop. It asks the method for weights and does not know its name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
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
from harness.methods.protocols import MetaGradient
from harness.seeds import derive
from harness.training.classifier import forward, make_optimizer
from harness.training.evaluation import FloatArray, metrics, predict, to_device
from harness.training.meta_gradients.lookahead import BatchLookahead, Lookahead, SubsetLookahead
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer
from harness.training.weights import WeightRecord, summary

Report = Callable[[dict[str, float]], None]
CHECK_EVERY = {"cpu": 1, "cuda": 20}  # steps between looks at the loss; on a GPU a look waits for the device


@dataclass(frozen=True)
class Inputs:
    """What a fine-tune works on.

    Attributes:
        source: the n rows to train on, and their tokens.
        quality: log-probabilities of the quality checker for them, float32 [n, C], or None.
        diversity: the same of the diversity checker.
        evaluation: split name -> rows and tokens to evaluate on.
        real: the small real set and its tokens, for a method that needs gradients or inner trainings.
        weighed: positions of the m rows that the method weighs, others keep weight 1; None for all. Scores are theirs.
        is_real: which of the rows are real [n], for a method that weighs real rows too; else None.
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
    """What a fine-tune gave.

    Attributes:
        history: metrics of every evaluation, in order.
        predictions: split -> log-probabilities float32 [evaluations, rows, C].
        weights: the last weight of every row before each evaluation, float32 [evaluations, n].
        rows_trained: rows that went through training steps, with repetition.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    predictions: dict[str, list[FloatArray]] = field(default_factory=dict)
    weights: list[npt.NDArray[np.float32]] = field(default_factory=list)
    rows_trained: int = 0


class Loop:
    """Fine-tunes a model with weighted cross-entropy.

    Args:
        model: the classifier, on the workers' device.
        method: gives the weights; prepared.
        inputs: rows, tokens and scores.
        training: the settings.
        seed: the trial's seed.
        workers: the processes that train together.
        phases: where time is booked.
        before: evaluations and steps of the trial before this training, where numbering goes on.
    """

    def __init__(
        self, model: nn.Module, method: AnyMethod, inputs: Inputs, training: Training, seed: int, workers: ProcessGroup,
        phases: PhaseTimer, before: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        self.before = before
        self.method, self.inputs, self.training, self.seed = method, inputs, training, seed
        self.workers, self.phases = workers, phases
        self.plain, self.model = model, workers.wrap(model)
        per_epoch = math.ceil(len(inputs.source) / training.batch_size)
        self.steps = training.steps or training.epochs * per_epoch
        self.optimizer, self.schedule = make_optimizer(model, training, self.steps)
        self.labels = torch.from_numpy(inputs.source.labels).to(workers.device)
        self.quality = _tensor(inputs.quality, workers.device)
        self.diversity = _tensor(inputs.diversity, workers.device)
        self.is_real = None if inputs.is_real is None else torch.from_numpy(inputs.is_real).to(workers.device)
        self.positions = _positions(inputs, workers.device)
        self.ahead: Lookahead | None = None
        if "gradients" in method.needs:
            assert inputs.real is not None, "a method that needs gradients gets real rows"
            assert training.accumulation == 1, "planning refuses anything else"
            self.ahead = Lookahead(model, self.optimizer, inputs.real, training, seed, workers, phases)
        self.record = WeightRecord(len(inputs.source), workers)
        self.done = 0

    def run(self, report: Report) -> Outcome:
        """Trains to the end; every evaluation is reported.

        Raises:
            TrialError: a loss or weight is not finite, with the row and the step.
        """
        outcome = Outcome(predictions={name: [] for name in self.inputs.evaluation})
        with self.phases.phase("warm_up"):
            self._warm_up()
        torch.manual_seed(derive(self.seed, "dropout", self.workers.rank))
        batches = training_batches(self.inputs.tokens.lengths, self.training.batch_size, self.seed, self.steps)
        self.model.train()
        evaluations = min(self.training.epochs, self.steps)
        for number in range(1, evaluations + 1):
            until = round(self.steps * number / evaluations)
            with self.phases.phase("train"):
                train_loss, rows = self._interval(islice(batches, until - self.done))
            outcome.rows_trained += rows
            with self.phases.phase("evaluate"):
                evaluated, trained = self.before
                entry = {"epoch": float(evaluated + number), "step": float(trained + self.done)}
                entry["train_loss"] = train_loss
                outcome.history.append(entry | self._evaluate(outcome))
            report(outcome.history[-1])
        return outcome

    def _interval(self, batches: Iterator[tuple[int, IntArray]]) -> tuple[float, int]:
        """Trains on some batches; the mean weighted loss over their rows, and how many rows there were."""
        total, rows_seen = torch.zeros((), dtype=torch.float64, device=self.workers.device), 0
        for epoch, rows in batches:
            total += self._batch(rows, epoch)
            rows_seen += len(rows)
        loss = self.workers.sum(total).item() / max(1, rows_seen)
        if not math.isfinite(loss):
            raise TrialError(f"the training loss is {loss} by step {self.done}")
        return loss, rows_seen

    def _batch(self, rows: IntArray, epoch: int) -> Tensor:
        """One optimizer step on a global batch; this worker's share of Σ w·ce (a detached scalar)."""
        share = rows[self.workers.rank :: self.workers.size]
        # every worker takes part in every step: without rows of its own it computes one with weight zero
        idle = len(share) == 0
        slices = [s for s in np.array_split(rows[:1] if idle else share, self.training.accumulation) if len(s)]
        total_loss = torch.zeros((), dtype=torch.float64, device=self.workers.device)
        total_weight = torch.zeros((), device=self.workers.device)
        self.optimizer.zero_grad(set_to_none=True)
        for number, part in enumerate(slices):
            last = number == len(slices) - 1
            synchronized = last or self.workers.size == 1
            with nullcontext() if synchronized else self.model.no_sync():  # type: ignore[operator]
                loss, weights = self._step(part, epoch, len(rows), present=not idle)
                loss = loss * 0.0 if idle else loss
                # DDP averages gradients over workers; the mean of a batch is over the rows of all of them
                (loss * (self.workers.size / len(rows))).backward()
            total_loss += loss.detach()
            if not idle:
                self.record.add(torch.from_numpy(part).to(self.workers.device), weights, self.done)
                total_weight += weights.sum()
        if self.method.settings.normalize:
            mean = self.workers.sum(total_weight) / len(rows)
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

    def _step(self, rows: IntArray, epoch: int, size: int, present: bool) -> tuple[Tensor, Tensor]:
        """Σ w·ce over a slice of a batch of ``size`` rows, attached, and its weights [B], detached."""
        device = self.workers.device
        batch = to_device(self.inputs.tokens.padded(rows), device)
        index = torch.from_numpy(rows).to(device)
        labels = self.labels[index]
        asked = self.ahead.watch(batch, labels) if self.ahead else None
        with asked.watching() if asked else nullcontext():
            logits = forward(self.model, batch, self.training.precision)
        losses = F.cross_entropy(logits, labels, reduction="none")
        gradients = None
        if self.ahead and asked:
            total = len(self.inputs.source)
            gradients = BatchLookahead(self.ahead, asked, index, losses, size, total, present)
        weights = self._weights(rows, index, labels, logits, epoch, gradients)
        if self.done % CHECK_EVERY.get(device.type, 20) == 0:
            self._check(rows, losses.detach(), weights.detach())
        return (weights * losses).sum(), weights.detach()

    def _weights(
        self, rows: IntArray, index: Tensor, labels: Tensor, logits: Tensor, epoch: int,
        gradients: BatchLookahead | None,
    ) -> Tensor:  # fmt: skip
        """The weights of a micro-batch [B]: the method's for the rows that it weighs, 1 for others."""
        if self.positions is None:
            return self.method.checked_weights(self._micro_batch(rows, index, labels, logits, epoch, gradients, index))
        own = self.positions[index]
        chosen = (own >= 0).nonzero()[:, 0]
        weights = logits.new_ones(len(rows))
        if not len(chosen) and gradients is None:
            return weights
        own = own[chosen]
        subset = None
        if gradients is not None:
            assert self.inputs.weighed is not None
            subset = SubsetLookahead(gradients, chosen, own, len(self.inputs.weighed))
        batch = self._micro_batch(
            rows[chosen.cpu().numpy()], index[chosen], labels[chosen], logits[chosen], epoch, subset, own
        )
        return weights.index_put((chosen,), self.method.checked_weights(batch))

    def _micro_batch(
        self, rows: IntArray, index: Tensor, labels: Tensor, logits: Tensor, epoch: int,
        gradients: MetaGradient | None, own: Tensor,
    ) -> MicroBatch:  # fmt: skip
        return MicroBatch(
            ids=tuple(self.inputs.source.ids[row] for row in rows), rows=own, labels=labels, logits=logits,
            quality=None if self.quality is None else self.quality[own],
            diversity=None if self.diversity is None else self.diversity[own], epoch=epoch, gradients=gradients,
            real=None if self.is_real is None else self.is_real[index],
        )  # fmt: skip

    def _check(self, rows: IntArray, losses: Tensor, weights: Tensor) -> None:
        for what, values, wrong in (
            ("loss", losses, ~losses.isfinite()),
            ("weight", weights, ~weights.isfinite() | (weights < 0)),
        ):
            if bool(wrong.any()):
                place = int(wrong.nonzero()[0, 0])
                raise TrialError(
                    f"the {what} of row {self.inputs.source.ids[rows[place]]!r} is {values[place].item()} "
                    f"at step {self.done + 1} of {self.steps} (method {self.method.name!r}, "
                    f"learning rate {self.training.learning_rate})"
                )

    def _evaluate(self, outcome: Outcome) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, (split, tokens) in self.inputs.evaluation.items():
            log_probabilities = predict(
                self.plain, tokens, self._classes(), self.training.evaluation_batch_size, self.training.precision,
                self.workers,
            )  # fmt: skip
            outcome.predictions[name].append(log_probabilities)
            found |= metrics(log_probabilities, split.labels, name)
        outcome.weights.append(self.record.take())
        last = outcome.weights[-1]
        weighed = last if self.inputs.weighed is None else last[self.inputs.weighed]
        return found | summary(weighed, self.method.settings.clip)

    def _classes(self) -> int:
        return int(self.plain.config.num_labels)  # type: ignore[union-attr, arg-type]

    def _warm_up(self) -> None:
        """One forward and backward pass that changes nothing: the first one pays for kernels and allocators."""
        rows = np.arange(min(self.training.batch_size, len(self.inputs.source)))
        batch = to_device(self.inputs.tokens.padded(rows), self.workers.device)
        devices = [self.workers.device] if self.workers.device.type == "cuda" else []
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
