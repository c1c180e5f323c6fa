"""Inner products with every example's gradient, from what a training step has at hand anyway.

The output of a linear layer, an embedding or a layer norm is linear in the layer's parameters. So along a direction v
in the space of the parameters an example's loss changes, through one layer, by

    ⟨v, ∇ℓ_i⟩ = ⟨layer(a_i; v), ∂ℓ_i/∂y_i⟩,

a_i being what the layer got for the example and y_i what it gave: the layer is applied with v in place of its
parameters, and no gradient of a single example is ever formed (the "ghost dot-product" of Wang et al. 2024, Data
Shapley in One Training Run). Summed over the layers this is exact, the number that ``forward_mode`` has from a
pass of its own, for one product in every layer instead of three.

It needs the examples apart in every layer's output and no parameter used elsewhere. So it is with BERT, MiniLM,
DistilBERT, RoBERTa and ELECTRA, not with DeBERTa, whose examples share the positions' keys and queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from harness.training.meta_gradients.forward_mode import Direction

LINEAR_IN_PARAMETERS = (nn.Linear, nn.Embedding, nn.LayerNorm)
#: weights this much smaller than the largest are not divided by
SMALL = 1e-12


@dataclass(frozen=True)
class Call:
    """What a layer of some name got, detached, and gave, attached to the graph and of some version."""

    name: str
    given: Tensor
    output: Tensor
    version: int


class GhostProducts:
    """What can be asked about the losses of one forward pass, by layers.

    Args:
        model: the classifier without wrappers.
        rows: of the batch.
        precision: as in training.
    """

    def __init__(self, model: nn.Module, rows: int, precision: str) -> None:
        self._model, self._rows, self._precision = model, rows, precision
        self._layers = {
            name: module
            for name, module in model.named_modules()
            if any(p.requires_grad for p in module.parameters(recurse=False))
        }
        self._calls: list[Call] = []
        #: ∂ Σ w ℓ/∂y for every call, once it is known, and w
        self._slopes: tuple[Tensor, ...] = ()
        self._weights: Tensor | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A context for the forward pass."""
        with ExitStack() as hooks:
            for name, layer in self._layers.items():
                if type(layer) not in LINEAR_IN_PARAMETERS:
                    continue

                def keep(_: nn.Module, given: tuple[Any, ...], output: Tensor, name: str = name) -> None:
                    self._calls.append(Call(name, given[0].detach(), output, output._version))

                if isinstance(layer, nn.Embedding):
                    hooks.enter_context(layer.register_forward_pre_hook(self._apart))
                hooks.enter_context(layer.register_forward_hook(keep))
            yield

    def _apart(self, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Positions come once for all rows; here every row gets its own."""
        first, *rest = given
        return (first.expand(self._rows, *first.shape[1:]) if len(first) == 1 else first, *rest)

    def suffices(self) -> bool:
        """Whether the pass met every trainable parameter in a layer of a known kind, with the rows apart.

        A parameter of two layers has one name only, and what was changed in place is not what its layer gave.
        """
        met = {call.name for call in self._calls} == set(self._layers)
        parameters = [p for _, p in self._model.named_parameters(remove_duplicate=False) if p.requires_grad]
        once = len(parameters) == len(set(parameters))
        apart = all(len(call.output) == self._rows and call.output._version == call.version for call in self._calls)
        return met and once and apart

    def gradient(self, losses: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """∇ Σ w ℓ for every trainable parameter; the graph is kept.

        Args:
            losses: ℓ [B], of the forward pass, attached.
            weights: w [B].
        """
        parameters = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        wanted: list[Tensor] = list(parameters.values())
        # no row has to do with another, so ∂ Σ w ℓ/∂y is w_i ∂ℓ_i/∂y in row i: the same pass gives both
        both = bool(weights.min() > SMALL * weights.max())
        if both:
            wanted += [call.output for call in self._calls]
        found = torch.autograd.grad(
            (weights * losses).sum(), wanted, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        if both:
            self._slopes, self._weights = found[len(parameters) :], weights
        return dict(zip(parameters, found, strict=False))

    def products(self, losses: Tensor, direction: Direction) -> Tensor:
        """⟨v, ∇ℓ_i⟩ of every example.

        Args:
            losses: ℓ [B], of the forward pass, attached; the graph is kept.
            direction: v, for every trainable parameter.

        Returns:
            [B], in the precision of the losses, without a graph.
        """
        if self._weights is None:
            outputs = [call.output for call in self._calls]
            self._slopes = torch.autograd.grad(
                losses.sum(), outputs, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            self._weights = torch.ones_like(losses)
        total = torch.zeros_like(losses)
        with torch.no_grad(), torch.autocast(losses.device.type, torch.bfloat16, self._precision == "bfloat16"):
            for call, slope in zip(self._calls, self._slopes, strict=True):
                change = functional_call(self._layers[call.name], self._along(call.name, direction), (call.given,))
                total += (change.to(total.dtype) * slope.to(total.dtype)).flatten(1).sum(1)
        return total / self._weights

    def _along(self, name: str, direction: Direction) -> dict[str, Tensor]:
        """The direction for one layer; zero where a parameter is not trained."""
        own = self._layers[name].named_parameters(recurse=False)
        return {key: direction[f"{name}.{key}"] if p.requires_grad else torch.zeros_like(p) for key, p in own}
