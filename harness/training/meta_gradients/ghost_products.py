"""Inner products of one direction with the gradient of every example, from the pass of a training step.

The output of a linear layer, an embedding or a layer norm is linear in the parameters of the layer. The contribution
of such a layer to the inner product of a direction v with the gradient of example i is therefore

    ⟨v, ∇ℓ_i⟩ = ⟨layer(a_i; v), ∂ℓ_i/∂y_i⟩,

where a_i is the input of the layer, y_i its output, and layer(a_i; v) its output with v in place of its parameters.
No gradient of a single example is formed (the "ghost dot-product" of Wang et al. 2024, Data Shapley in One Training
Run). The sum over all layers is exact and equals the result of ``forward_mode``, which takes three products per layer
instead of one.

Requirements: outputs keep the batch dimension, and every parameter belongs to one layer. BERT, MiniLM, DistilBERT,
RoBERTa and ELECTRA meet them; DeBERTa does not: its examples share the keys and queries of the positions.
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
#: Weights smaller than this share of the largest weight are not divided by.
SMALL = 1e-12


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
        name: of the layer.
        input: detached, [B, ...].
        output: attached to the graph, [B, ...].
        version: of the output's memory; another one later means that it was changed in place.
    """

    name: str
    input: Tensor
    output: Tensor
    version: int


class GhostProducts:
    """Gradients and inner products for the losses of one forward pass, layer by layer.

    Run the forward pass in the context ``recording()``.

    Args:
        model: the classifier without wrappers.
        rows: number of rows B of the batch.
        precision: ``float32`` or ``bfloat16``, as in training.
    """

    def __init__(self, model: nn.Module, rows: int, precision: str) -> None:
        self._model, self._rows, self._precision = model, rows, precision
        self._layers = {
            name: module
            for name, module in model.named_modules()
            if any(p.requires_grad for p in module.parameters(recurse=False))
        }
        self._calls: list[Call] = []
        # ∂ Σ w ℓ/∂y of every call, and w, once they are computed
        self._slopes: tuple[Tensor, ...] = ()
        self._weights: Tensor | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """A context for the forward pass, in which the calls of all supported layers are recorded."""
        with ExitStack() as hooks:
            for name, layer in self._layers.items():
                if type(layer) not in LINEAR_IN_PARAMETERS:
                    continue

                def record(_: nn.Module, inputs: tuple[Any, ...], output: Tensor, name: str = name) -> None:
                    self._calls.append(Call(name, inputs[0].detach(), output, output._version))

                if isinstance(layer, nn.Embedding):
                    hooks.enter_context(layer.register_forward_pre_hook(self._expand))
                hooks.enter_context(layer.register_forward_hook(record))
            yield

    def _expand(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Repeats the input of an embedding that all rows share (positions) for every row."""
        first, *rest = inputs
        return (first.expand(self._rows, *first.shape[1:]) if len(first) == 1 else first, *rest)

    def is_exact(self) -> bool:
        """True if the products are exact for this model.

        Every trainable parameter must belong to exactly one supported layer, and outputs keep the batch dimension. An
        output that was changed in place after its layer returned it is not supported.
        """
        called = {call.name for call in self._calls} == set(self._layers)
        parameters = [p for _, p in self._model.named_parameters(remove_duplicate=False) if p.requires_grad]
        once = len(parameters) == len(set(parameters))
        kept = all(len(call.output) == self._rows and call.output._version == call.version for call in self._calls)
        return called and once and kept

    def gradient(self, losses: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """∇ Σ w ℓ for every trainable parameter; the graph is kept.

        Args:
            losses: ℓ [B], of the forward pass, attached.
            weights: w [B].
        """
        parameters = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        inputs: list[Tensor] = list(parameters.values())
        # rows are independent, so row i of ∂ Σ w ℓ/∂y is w_i ∂ℓ_i/∂y: one backward pass gives both
        both = bool(weights.min() > SMALL * weights.max())
        if both:
            inputs += [call.output for call in self._calls]
        gradients = torch.autograd.grad(
            (weights * losses).sum(), inputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        if both:
            self._slopes, self._weights = gradients[len(parameters) :], weights
        return dict(zip(parameters, gradients, strict=False))

    def inner_products(self, losses: Tensor, direction: Direction) -> Tensor:
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
                change = functional_call(self._layers[call.name], self._along(call.name, direction), (call.input,))
                total += (change.to(total.dtype) * slope.to(total.dtype)).flatten(1).sum(1)
        return total / self._weights

    def _along(self, name: str, direction: Direction) -> dict[str, Tensor]:
        """The direction for one layer; zero for parameters that are not trained."""
        own = self._layers[name].named_parameters(recurse=False)
        return {key: direction[f"{name}.{key}"] if p.requires_grad else torch.zeros_like(p) for key, p in own}
