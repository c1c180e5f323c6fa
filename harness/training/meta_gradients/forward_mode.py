"""Inner products of one direction with the gradient of every example, in one forward-mode pass.

For a direction v in parameter space and the losses ℓ_i of a batch, ⟨v, ∇ℓ_i⟩ is the derivative of ℓ_i along v.
Forward-mode differentiation computes it together with the forward pass: exactly, for all examples and any model.
``ghost_products`` computes the same at a lower cost for the models that it supports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

#: Parameter name -> tensor of its shape, for every trainable parameter.
Direction = Mapping[str, Tensor]


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters by name, detached; they share memory with the model."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def logits_at(model: nn.Module, batch: dict[str, Tensor], precision: str) -> Callable[[dict[str, Tensor]], Tensor]:
    """The logits of a batch, float32 [B, C], as a function of the trainable parameters."""
    rest = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    rest |= {name: b.detach() for name, b in model.named_buffers()}
    device = batch["input_ids"].device.type

    def compute(parameters: dict[str, Tensor]) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            out: Any = torch.func.functional_call(model, (parameters, rest), kwargs=batch)
        logits: Tensor = out.logits.to(torch.promote_types(out.logits.dtype, torch.float32))
        return logits

    return compute


def losses_at(
    model: nn.Module, batch: dict[str, Tensor], labels: Tensor, precision: str
) -> Callable[[dict[str, Tensor]], Tensor]:
    """The cross-entropy of every example, float32 [B], as a function of the trainable parameters."""
    logits = logits_at(model, batch, precision)
    return lambda parameters: F.cross_entropy(logits(parameters), labels, reduction="none")


def inner_products(
    model: nn.Module, batch: dict[str, Tensor], labels: Tensor, direction: Direction, precision: str = "float32"
) -> Tensor:  # fmt: skip
    """⟨v, ∇ℓ_i⟩ of every example i of a batch, in one forward-mode pass.

    Dropout masks are drawn from the global generator. To repeat the masks of another forward pass, restore the state
    that the generator had before it, and run that pass in ``plain_attention`` too.

    Args:
        model: the classifier; not changed.
        batch: its inputs, [B, T] each.
        labels: class indices, int64 [B].
        direction: v, for every trainable parameter.
        precision: ``float32`` or ``bfloat16``, as in training.

    Returns:
        float32 [B], without a graph.
    """
    point = parameters_of(model)
    with torch.no_grad(), plain_attention():
        along = {name: direction[name].to(value.dtype) for name, value in point.items()}
        products: Tensor = torch.func.jvp(losses_at(model, batch, labels, precision), (point,), (along,))[1]
    return products


def plain_attention() -> Any:
    """A context that selects the math kernel of attention: the fused kernels have no forward-mode derivative."""
    return sdpa_kernel(SDPBackend.MATH)


class ForwardModeProducts:
    """Gradients and inner products for the losses of one forward pass, by a second pass with the same dropout masks.

    Create it before the forward pass, and run that pass in the context ``recording()``.

    Args:
        model: the classifier without wrappers.
        batch: its inputs, [B, T] each.
        labels: class indices, int64 [B].
        precision: ``float32`` or ``bfloat16``, as in training.
    """

    def __init__(self, model: nn.Module, batch: dict[str, Tensor], labels: Tensor, precision: str) -> None:
        self._model, self._batch, self._labels, self._precision = model, batch, labels, precision
        self._states = random_states(labels.device)

    def recording(self) -> Any:
        """A context for the forward pass: selects the kernel whose dropout masks the second pass can repeat."""
        return plain_attention()

    def gradient(self, losses: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """∇ Σ w ℓ for every trainable parameter; the graph is kept."""
        return gradient((weights * losses).sum(), self._model)

    def inner_products(self, losses: Tensor, direction: Direction) -> Tensor:
        """⟨v, ∇ℓ_i⟩ of every example [B], without a graph; the state of the random generators is kept."""
        cpu, cuda = self._states
        device = self._labels.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.set_rng_state(cpu)
            if cuda is not None:
                torch.cuda.set_rng_state(cuda, device)
            products = inner_products(self._model, self._batch, self._labels, direction, self._precision)
        return products.to(losses.dtype)


def gradient(value: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """The gradient of a scalar for every trainable parameter by name; the graph is kept."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(
        value, list(named.values()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return dict(zip(named, gradients, strict=True))


def random_states(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The states of the generators that a forward pass on the device draws from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
