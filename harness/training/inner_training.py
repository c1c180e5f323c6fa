"""Trainings before the real one: for methods that learn weights from where a weighted training ends."""

from __future__ import annotations

from types import TracebackType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.experiment import Training
from harness.data.batches import evaluation_batches
from harness.data.split import IntArray, Split
from harness.data.tokens import Tokens
from harness.methods.base import Method, MethodSettings, MicroBatch
from harness.methods.protocols import OuterLoss
from harness.seeds import generator
from harness.training.evaluation import to_device
from harness.training.loop import Inputs, Loop
from harness.training.meta_gradients.forward_mode import inner_products, logits_at, parameters_of
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer


class FixedWeights(Method[MethodSettings]):
    """Weights that somebody else has chosen."""

    name = "inner training"

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self._weights = weights

    def weights(self, step: MicroBatch) -> Tensor:
        """The weights of the batch's rows [B]."""
        return self._weights[step.rows]


class InnerTrainingRun:
    """Trains the model and puts it back: a context around inner trainings.

    Args:
        model: the classifier as the real training will start it, on the workers' device.
        inputs: of the real training; ``inputs.real`` must be given if the outer loss is of real rows.
        training: its settings.
        seed: the trial's seed: inner trainings share its order and dropout.
        workers: the processes that train together.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, training: Training, seed: int, workers: ProcessGroup) -> None:
        self._model, self._inputs, self._training = model, inputs, training
        self._seed, self._workers = seed, workers
        rows = inputs.weighed
        self._weighed = np.arange(len(inputs.source)) if rows is None else rows
        self._others = np.setdiff1d(np.arange(len(inputs.source)), self._weighed)
        self._start = {name: value.clone() for name, value in model.state_dict().items()}

    def __enter__(self) -> InnerTrainingRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restart()

    @property
    def size(self) -> int:
        """Rows n that the method weighs."""
        return len(self._weighed)

    def shuffled(self, number: int) -> IntArray:
        """The positions of the rows in a random order of the trial's seed [n]."""
        return generator(self._seed, "rehearsal", number).permutation(self.size)

    def train(self, weights: Tensor, rows: IntArray, epochs: int) -> None:
        """Fine-tunes from the start on mean(w ℓ) over ``rows``, with ``weights`` [n], and other rows at weight 1."""
        self._restart()
        chosen = np.concatenate([self._weighed[rows], self._others])
        fixed = torch.cat([weights[torch.from_numpy(rows)], weights.new_ones(len(self._others))])
        source, tokens = self._inputs.source.take(chosen), self._inputs.tokens.take(chosen)
        method = FixedWeights(fixed.to(self._workers.device))
        training = self._training.model_copy(update={"epochs": epochs, "steps": None})
        inputs = Inputs(source, tokens, None, None, {})
        phases = PhaseTimer(self._workers.device)  # of its own: the whole is booked by who asked for it
        Loop(self._model, method, inputs, training, self._seed, self._workers, phases).run(lambda entry: None)

    def inner_products(self, rows: IntArray, outer: IntArray | None, loss: OuterLoss) -> Tensor:
        """⟨∇ outer loss, ∇ℓ_i⟩ of ``rows`` [len(rows)] where the last training ended (see ``InnerTraining``)."""
        inputs, device = self._inputs, self._workers.device
        was_training = self._model.training
        self._model.eval()
        direction = self._outer_gradient(outer, loss)
        found = torch.zeros(len(rows), device=device)
        mine = evaluation_batches(inputs.tokens.lengths[self._weighed[rows]], self._training.evaluation_batch_size)
        for part in mine[self._workers.rank :: self._workers.size]:
            batch, labels = self._batch(inputs.source, inputs.tokens, self._weighed[rows][part])
            products = inner_products(self._model, batch, labels, direction, self._training.precision)
            found[torch.from_numpy(part).to(device)] = products.float()
        self._model.train(was_training)
        return self._workers.sum(found)

    def _outer_gradient(self, outer: IntArray | None, loss: OuterLoss) -> dict[str, Tensor]:
        if outer is None:
            assert self._inputs.real is not None, "a method that needs real rows gets them"
            split, tokens = self._inputs.real
            outer = np.arange(len(split))
        else:
            split, tokens = self._inputs.source, self._inputs.tokens
            outer = self._weighed[outer]
        parameters = {name: value.requires_grad_() for name, value in parameters_of(self._model).items()}
        total = {name: torch.zeros_like(value) for name, value in parameters.items()}
        batches = evaluation_batches(tokens.lengths[outer], self._training.batch_size)
        for part in batches[self._workers.rank :: self._workers.size]:
            batch, labels = self._batch(split, tokens, outer[part])
            logits = logits_at(self._model, batch, self._training.precision)(parameters)
            log_p = F.cross_entropy(logits, labels, reduction="none").neg()
            values = 1.0 - log_p.exp() if loss == "bounded" else -log_p
            found = torch.autograd.grad(
                values.sum() / len(outer), list(parameters.values()), allow_unused=True, materialize_grads=True
            )
            for name, value in zip(parameters, found, strict=True):
                total[name] += value
        return {name: self._workers.sum(value) for name, value in total.items()}

    def _batch(self, split: Split, tokens: Tokens, rows: IntArray) -> tuple[dict[str, Tensor], Tensor]:
        device = self._workers.device
        return to_device(tokens.padded(rows), device), torch.from_numpy(split.labels[rows]).to(device)

    def _restart(self) -> None:
        self._model.load_state_dict(self._start)
