"""The inner product of one direction with every example's gradient, all at once.

For a direction v in the space of the parameters and the losses ℓ_i of a batch, ⟨v, ∇ℓ_i⟩ is the derivative of ℓ_i
along v. Forward-mode differentiation carries that derivative along with the forward pass: one pass gives it for every
example, exactly and for any model. ``by_layer`` gives the same for less where the model allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

#: a tensor for every trainable parameter, by name
Direction = Mapping[str, Tensor]


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters by name, detached: they share their memory with the model's."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def logits_at(model: nn.Module, batch: dict[str, Tensor], precision: str) -> Callable[[dict[str, Tensor]], Tensor]:
    """The logits of a batch, float32 [B, C], as a function of the trainable parameters."""
    rest = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    rest |= {name: b.detach() for name, b in model.named_buffers()}
    device = batch["input_ids"].device.type

    def logits(parameters: dict[str, Tensor]) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            out: Any = torch.func.functional_call(model, (parameters, rest), kwargs=batch)
        found: Tensor = out.logits.to(torch.promote_types(out.logits.dtype, torch.float32))
        return found

    return logits


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

    Dropout is drawn from the global generator as in any forward pass: with the generator set to the state before some
    other forward pass the masks are those of that pass (given the same attention kernel, see ``plain_attention``).

    Args:
        model: the classifier; not changed.
        batch: its inputs, [B, T] each.
        labels: class indices, int64 [B].
        direction: v, for every trainable parameter.
        precision: as in training.

    Returns:
        float32 [B], without a graph.
    """
    point = parameters_of(model)
    with torch.no_grad(), plain_attention():
        along = {name: direction[name].to(value.dtype) for name, value in point.items()}
        products: Tensor = torch.func.jvp(losses_at(model, batch, labels, precision), (point,), (along,))[1]
    return products


def plain_attention() -> Any:
    """A context in which attention is computed by the plain kernel: the fused ones have no forward-mode derivative."""
    return sdpa_kernel(SDPBackend.MATH)


class ForwardModeProducts:
    """What can be asked about the losses of one forward pass, by another pass with the same masks.

    Args:
        model: the classifier without wrappers.
        batch: its inputs, [B, T] each.
        labels: class indices, int64 [B].
        precision: as in training.
    """

    def __init__(self, model: nn.Module, batch: dict[str, Tensor], labels: Tensor, precision: str) -> None:
        self._model, self._batch, self._labels, self._precision = model, batch, labels, precision
        self._states = random_states(labels.device)

    def watching(self) -> Any:
        """A context for the forward pass: the plain kernel draws its masks as the second pass does."""
        return plain_attention()

    def gradient(self, losses: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """∇ Σ w ℓ for every trainable parameter; the graph is kept."""
        return gradient((weights * losses).sum(), self._model)

    def products(self, losses: Tensor, direction: Direction) -> Tensor:
        """⟨v, ∇ℓ_i⟩ of every example [B]; the generators are left as they were found."""
        cpu, cuda = self._states
        device = self._labels.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.set_rng_state(cpu)
            if cuda is not None:
                torch.cuda.set_rng_state(cuda, device)
            found = inner_products(self._model, self._batch, self._labels, direction, self._precision)
        return found.to(losses.dtype)


def gradient(value: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """The gradient of a scalar for every trainable parameter by name; the graph is kept."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(
        value, list(named.values()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return dict(zip(named, found, strict=True))


def random_states(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The states of the generators that a forward pass on the device draws from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
