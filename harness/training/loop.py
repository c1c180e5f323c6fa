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
from harness.methods import AnyMethod, Step
from harness.seeds import derive
from harness.training.classifier import forward, make_optimizer
from harness.training.evaluation import FloatArray, metrics, predict, to_device
from harness.training.meta_gradients.lookahead import BatchLookahead, Lookahead
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
    """

    source: Split
    tokens: Tokens
    quality: FloatArray | None
    diversity: FloatArray | None
    evaluation: dict[str, tuple[Split, Tokens]]
    real: tuple[Split, Tokens] | None = None


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
    """

    def __init__(
        self, model: nn.Module, method: AnyMethod, inputs: Inputs, training: Training, seed: int, workers: ProcessGroup,
        phases: PhaseTimer,
    ) -> None:  # fmt: skip
        self.method, self.inputs, self.training, self.seed = method, inputs, training, seed
        self.workers, self.phases = workers, phases
        self.plain, self.model = model, workers.wrap(model)
        per_epoch = math.ceil(len(inputs.source) / training.batch_size)
        self.steps = training.steps or training.epochs * per_epoch
        self.optimizer, self.schedule = make_optimizer(model, training, self.steps)
        self.labels = torch.from_numpy(inputs.source.labels).to(workers.device)
        self.quality = _tensor(inputs.quality, workers.device)
        self.diversity = _tensor(inputs.diversity, workers.device)
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
                entry = {"epoch": float(number), "step": float(self.done), "train_loss": train_loss}
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
        step = Step(
            ids=tuple(self.inputs.source.ids[row] for row in rows), rows=index, labels=labels, logits=logits,
            quality=None if self.quality is None else self.quality[index],
            diversity=None if self.diversity is None else self.diversity[index], epoch=epoch, gradients=gradients,
        )  # fmt: skip
        weights = self.method.checked_weights(step)
        if self.done % CHECK_EVERY.get(device.type, 20) == 0:
            self._check(step, losses.detach(), weights.detach())
        return (weights * losses).sum(), weights.detach()

    def _check(self, step: Step, losses: Tensor, weights: Tensor) -> None:
        for what, values, wrong in (
            ("loss", losses, ~losses.isfinite()),
            ("weight", weights, ~weights.isfinite() | (weights < 0)),
        ):
            if bool(wrong.any()):
                place = int(wrong.nonzero()[0, 0])
                raise TrialError(
                    f"the {what} of row {step.ids[place]!r} is {values[place].item()} at step {self.done + 1} of "
                    f"{self.steps} (method {self.method.name!r}, learning rate {self.training.learning_rate})"
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
        return found | summary(outcome.weights[-1], self.method.settings.clip)

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
