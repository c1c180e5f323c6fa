"""Trainings before the real one, for methods that learn weights from the end of a weighted training."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.experiment import Training
from harness.data.batches import evaluation_batches, longest_first
from harness.data.split import IntArray, Split
from harness.data.tokens import Tokens
from harness.methods.base import Method, MethodSettings, MicroBatch
from harness.methods.protocols import OuterLoss
from harness.seeds import generator
from harness.training.activations import model_inputs
from harness.training.loop import Inputs, Loop
from harness.training.meta_gradients.forward_mode import inner_products, logits_at, parameters_of
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer


class FixedWeights(Method[MethodSettings]):
    """Constant weights of all rows.

    Args:
        weights: float32 [n], on the group's device.
    """

    name = "inner training"

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self._weights = weights

    def weights(self, batch: MicroBatch) -> Tensor:
        """The constant weights of the rows [B]."""
        return self._weights[batch.rows]


class InnerTrainingRun:
    """A context for inner trainings, which restores the model at the end; implements ``InnerTraining``.

    Args:
        model: the classifier at the start of the real training, on the group's device.
        inputs: of the real training; ``inputs.real`` is required if the outer loss is of real rows.
        training: settings of the real training.
        seed: seed of the real training; inner trainings use the same streams for order and dropout.
        group: the processes that train together.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, training: Training, seed: int, group: ProcessGroup) -> None:
        self._model, self._inputs, self._training = model, inputs, training
        self._seed, self._group = seed, group
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
        """Row positions in random order, from the seed and ``number``, int64 [n]."""
        return generator(self._seed, "rehearsal", number).permutation(self.size)

    def train(self, weights: Tensor, rows: IntArray, epochs: int) -> None:
        """Fine-tunes from the initial model on mean(w ℓ) over ``rows``, and over all rows without weight at w = 1.

        Args:
            weights: w of all weighed rows, float32 [n].
            rows: positions of the weighed rows to train on.
            epochs: passes over them.
        """
        self._restart()
        positions = np.concatenate([self._weighed[rows], self._others])
        fixed = torch.cat([weights[torch.from_numpy(rows)], weights.new_ones(len(self._others))])
        source, tokens = self._inputs.source.take(positions), self._inputs.tokens.take(positions)
        method = FixedWeights(fixed.to(self._group.device))
        training = self._training.model_copy(update={"epochs": epochs, "steps": None})
        inputs = Inputs(source, tokens, None, None, {})
        timer = PhaseTimer(self._group.device)  # discarded: the caller times all inner trainings as one phase
        Loop(self._model, method, inputs, training, self._seed, self._group, timer).run(lambda entry: None)

    def inner_products(self, rows: IntArray, outer: IntArray | None, loss: OuterLoss) -> Tensor:
        """⟨∇ outer loss, ∇ℓ_i⟩ of ``rows`` at the end of the last training, float32 [len(rows)]."""
        inputs, device = self._inputs, self._group.device
        was_training = self._model.training
        self._model.eval()
        direction = self._outer_gradient(outer, loss)
        out = torch.zeros(len(rows), device=device)
        batches = evaluation_batches(inputs.tokens.lengths[self._weighed[rows]], self._training.evaluation_batch_size)
        for part in batches[self._group.rank :: self._group.size]:
            batch, labels = self._batch(inputs.source, inputs.tokens, self._weighed[rows][part])
            products = inner_products(self._model, batch, labels, direction, self._training.precision)
            out[torch.from_numpy(part).to(device)] = products.float()
        self._model.train(was_training)
        return self._group.sum(out)

    def _outer_gradient(self, outer: IntArray | None, loss: OuterLoss) -> dict[str, Tensor]:
        """∇ of the mean outer loss, over the weighed rows at ``outer`` or over the small real set."""
        if outer is None:
            assert self._inputs.real is not None, "a method that needs real rows gets them"
            split, tokens = self._inputs.real
            outer = np.arange(len(split))
        else:
            split, tokens = self._inputs.source, self._inputs.tokens
            outer = self._weighed[outer]
        parameters = {name: value.requires_grad_() for name, value in parameters_of(self._model).items()}
        total = {name: torch.zeros_like(value) for name, value in parameters.items()}
        batches = longest_first(outer, tokens.lengths, self._training.batch_size)
        for part in batches[self._group.rank :: self._group.size]:
            batch, labels = self._batch(split, tokens, part)
            logits = logits_at(self._model, batch, self._training.precision)(parameters)
            log_p = F.cross_entropy(logits, labels, reduction="none").neg()
            values = 1.0 - log_p.exp() if loss == "bounded" else -log_p
            gradients = torch.autograd.grad(
                values.sum() / len(outer), list(parameters.values()), allow_unused=True, materialize_grads=True
            )
            for name, value in zip(parameters, gradients, strict=True):
                total[name] += value
        return {name: self._group.sum(value) for name, value in total.items()}

    def _batch(self, split: Split, tokens: Tokens, rows: IntArray) -> tuple[dict[str, Any], Tensor]:
        device = self._group.device
        inputs = model_inputs(self._model, tokens, rows, device)
        return inputs, torch.from_numpy(split.labels[rows]).to(device)

    def _restart(self) -> None:
        self._model.load_state_dict(self._start)
