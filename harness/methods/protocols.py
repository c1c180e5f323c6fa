"""What the training loop offers to methods that need ``gradients`` or ``inner_training``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from harness.data.split import IntArray

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor

#: The optimizer of the lookahead step: plain gradient descent, or AdamW with the moments of the real optimizer.
Rule = Literal["sgd", "adam"]
#: How the lookahead step depends on the weights. ``linear``: the derivative of one step on the weighted batch;
#: ``exact``: one step per example, and the weighted sum of these steps.
Form = Literal["linear", "exact"]
#: Outer loss as a function of the probability p of the given label. ``bounded``: 1 - p, at most 1 per row (the mean
#: absolute error of Ghosh et al. 2017, equal to the reverse cross-entropy of Wang et al. 2019 up to a factor);
#: ``cross_entropy``: -log p.
OuterLoss = Literal["bounded", "cross_entropy"]


class MetaGradient(Protocol):
    """Gradients of one batch, for a method that needs ``gradients``.

    In a stage that mixes real rows with others, B and n count the rows that the method weighs; the other rows of the
    batch take part in the lookahead step with weight 1.
    """

    @property
    def size(self) -> int:
        """Rows of the batch, over all processes."""

    def sensitivity(self, weights: Tensor, rule: Rule, real_rows: int | None, form: Form = "linear") -> Tensor:
        """Derivative of the loss on the small real set, after one step on mean(w ℓ), with respect to each weight.

        Args:
            weights: w, float32 [B]: the point at which the derivative is taken.
            rule: the optimizer of the lookahead step.
            real_rows: number of real rows, the next ones in a seeded order; None for all of them.
            form: see ``Form``; both are the same for ``sgd``.

        Returns:
            dL(θ')/dw_i, float32 [B].
        """

    def sum(self, values: Tensor) -> Tensor:
        """The sum of values [B] over the whole batch, over all processes."""

    def scatter(self, values: Tensor) -> Tensor:
        """Values [B] at the positions of their rows, zero elsewhere [n]; the same on all processes."""


class InnerTraining(Protocol):
    """Trainings before the real one, which leave its model unchanged, for a method that needs ``inner_training``.

    In a stage that mixes real rows with others, rows and weights are those that the method weighs; every inner
    training also uses all other rows, with weight 1.
    """

    @property
    def size(self) -> int:
        """Number of rows n."""

    def shuffled(self, number: int) -> IntArray:
        """Row positions in random order, from the trial's seed and ``number``, int64 [n]."""

    def train(self, weights: Tensor, rows: IntArray, epochs: int) -> None:
        """Fine-tunes on mean(w ℓ) over some rows, from the initial model and with the settings of the real training.

        Args:
            weights: w of all rows, float32 [n].
            rows: positions of the rows to train on.
            epochs: passes over them.
        """

    def inner_products(self, rows: IntArray, outer: IntArray | None, loss: OuterLoss) -> Tensor:
        """⟨∇ outer loss, ∇ℓ_i⟩ at the end of the last training, without dropout; the same on all processes.

        Args:
            rows: positions i.
            outer: positions of the rows whose mean is the outer loss; None for the small real set.
            loss: which outer loss.

        Returns:
            float32 [len(rows)].
        """
