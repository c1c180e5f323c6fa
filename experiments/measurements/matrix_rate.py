"""The rate at which this processor multiplies the matrices of a model's linear layers; used by ``training_step.py``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from harness.data.tokens import Tokens
from harness.training.activations import model_inputs


@dataclass(frozen=True, order=True)
class Product:
    """A linear layer: its inputs and outputs, and whether it runs on all tokens or on one of each row."""

    inputs: int
    outputs: int
    on_all_tokens: bool


def linear_layers(model: nn.Module) -> list[Product]:
    """The linear layers of a model, one for each call in a forward pass."""
    layers: list[Product] = []

    def record(module: nn.Module, arguments: tuple[Tensor, ...], _: Tensor) -> None:
        if isinstance(module, nn.Linear):
            calls = arguments[0].numel() // module.in_features
            layers.append(Product(module.in_features, module.out_features, calls == 6))

    hooks = [module.register_forward_hook(record) for module in model.modules()]
    tokens = Tokens(np.ones(6, np.int32), np.zeros(6, np.int8), np.array([0, 3, 6]))
    model(**model_inputs(model, tokens, np.arange(2), torch.device("cpu")))
    for hook in hooks:
        hook.remove()
    return layers


def product_seconds(layers: list[Product], tokens: int, rows: int, dtype: torch.dtype, repetitions: int) -> float:
    """Seconds of the products of one step, by linear layer: outputs, and both gradients."""
    total = 0.0
    for layer in sorted(set(layers)):
        inputs, outputs, count = layer.inputs, layer.outputs, tokens if layer.on_all_tokens else rows
        x, weight, slope = (
            torch.randn(*shape).to(dtype) for shape in ((count, inputs), (outputs, inputs), (count, outputs))
        )
        y, dx, dw = torch.empty_like(slope), torch.empty_like(x), torch.empty_like(weight)
        times = []
        for _ in range(repetitions + 1):
            start = time.perf_counter()
            torch.mm(x, weight.T, out=y)
            torch.mm(slope, weight, out=dx)
            torch.mm(slope.T, x, out=dw)
            times.append(time.perf_counter() - start)
        total += layers.count(layer) * median(times[1:])
    return total


def bfloat16_speedup(size: int = 512, repetitions: int = 9) -> float:
    """How much faster a product of two square matrices is in bfloat16 than in float32; below 1 where it is slower.

    What the processor's flags say is not enough: some have AVX-512 BF16 at half the rate of their float32 products.
    """
    layers = [Product(size, size, on_all_tokens=True)]
    slow, fast = (product_seconds(layers, size, size, dtype, repetitions) for dtype in (torch.float32, torch.bfloat16))
    return slow / fast
