"""Inner products of one direction with the gradient of every example, from the pass of a training step.

The output of a linear layer, an embedding or a layer norm is linear in the parameters of the layer. The contribution
of such a layer to the inner product of a direction v with the gradient of example i is therefore

    ⟨v, ∇ℓ_i⟩ = ⟨layer(a_i; v), ∂ℓ_i/∂y_i⟩,

where a_i is the input of the layer, y_i its output, and layer(a_i; v) its output with v in place of its parameters.
No gradient of a single example is formed (the "ghost dot-product" of Wang et al. 2024, Data Shapley in One Training
Run). The sum over all layers is exact and equals the result of ``forward_mode``, which takes three products per layer
instead of one. The a_i and ∂ℓ_i/∂y_i also give the gradient of Σ w_i ℓ_i for any weights, without another pass.

Requirements: outputs keep the batch dimension or that of the tokens without padding, and every parameter belongs to one
layer. BERT, MiniLM, DistilBERT,
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

from harness.training.activations import Rows
from harness.training.meta_gradients.forward_mode import Direction

LINEAR_IN_PARAMETERS = (nn.Linear, nn.Embedding, nn.LayerNorm)
#: Weights smaller than this share of the largest weight are not divided by.
SMALL = 1e-12


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
        name: of the layer.
        input: detached, [B, ...], or [1, N, ...] for a sequence of N tokens without padding.
        output: attached to the graph, [B, ...] or [1, N, ...].
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
        layout: where the rows lie in a sequence without padding, for a model that takes one.
    """

    def __init__(self, model: nn.Module, rows: int, precision: str, layout: Rows | None = None) -> None:
        self._model, self._rows, self._precision, self._layout = model, rows, precision, layout
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
        shared = len(first) == 1 and self._layout is None
        return (first.expand(self._rows, *first.shape[1:]) if shared else first, *rest)

    def is_exact(self) -> bool:
        """True if the products are exact for this model.

        Every trainable parameter must belong to exactly one supported layer, and outputs keep the batch dimension or
        that of the tokens. An output that was changed in place after its layer returned it is not supported.
        """
        called = {call.name for call in self._calls} == set(self._layers)
        parameters = [p for _, p in self._model.named_parameters(remove_duplicate=False) if p.requires_grad]
        once = len(parameters) == len(set(parameters))
        kept = all(
            (len(call.output) == self._rows or self._by_token(call.output)) and call.output._version == call.version
            for call in self._calls
        )
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
                products = change.to(total.dtype) * slope.to(total.dtype)
                if self._by_token(products):
                    assert self._layout is not None, "without a layout nothing is by token"
                    total.index_add_(0, self._layout.of_token, products[0].flatten(1).sum(1))
                else:
                    total += products.flatten(1).sum(1)
        return total / self._weights

    @property
    def ready(self) -> bool:
        """True once the ∂ℓ_i/∂y_i are computed, by ``gradient`` or ``inner_products``."""
        return self._weights is not None

    def backward(self, weights: Tensor) -> None:
        """Adds ∇ Σ w ℓ to the ``grad`` of every trainable parameter, from what is known by layer.

        Takes one product per linear layer, where a backward pass takes two.

        Args:
            weights: w [B], detached.
        """
        assert self._weights is not None, "needs the slopes of every layer"
        factors = weights / self._weights
        with torch.autocast(weights.device.type, torch.bfloat16, self._precision == "bfloat16"):
            for call, slope in zip(self._calls, self._slopes, strict=True):
                by_token = self._by_token(slope)
                factor = factors[self._layout.of_token][None] if by_token and self._layout else factors
                scaled = slope * factor.to(slope.dtype).reshape(*factor.shape, *[1] * (slope.dim() - factor.dim()))
                _add_gradients(self._layers[call.name], call.input, scaled)

    def _by_token(self, values: Tensor) -> bool:
        """True for [1, N, ...], the values of a sequence without padding."""
        return self._layout is not None and values.shape[:2] == (1, len(self._layout.of_token))

    def _along(self, name: str, direction: Direction) -> dict[str, Tensor]:
        """The direction for one layer; zero for parameters that are not trained."""
        own = self._layers[name].named_parameters(recurse=False)
        return {key: direction[f"{name}.{key}"] if p.requires_grad else torch.zeros_like(p) for key, p in own}


def _add_gradients(layer: nn.Module, inputs: Tensor, slope: Tensor) -> None:
    """Adds the gradients of a layer's parameters to their ``grad``.

    Args:
        layer: linear in its parameters.
        inputs: of one call.
        slope: of the loss in the output of this call.
    """
    parameters = {name: p for name, p in layer.named_parameters(recurse=False) if p.requires_grad}
    gradients: tuple[Tensor, ...]
    if isinstance(layer, nn.Linear):
        flat = slope.flatten(0, -2)
        known = {"weight": lambda: flat.T @ inputs.flatten(0, -2), "bias": lambda: flat.sum(0)}
        gradients = tuple(known[name]() for name in parameters)
    else:
        with torch.enable_grad():
            own = {name: p.detach().requires_grad_() for name, p in parameters.items()}
            gradients = torch.autograd.grad(functional_call(layer, own, (inputs,)), list(own.values()), slope)
    for parameter, value in zip(parameters.values(), gradients, strict=True):
        value = value.to(parameter.dtype)
        parameter.grad = value if parameter.grad is None else parameter.grad.add_(value)
