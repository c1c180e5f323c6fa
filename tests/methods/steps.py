"""Steps made from plain lists, and methods made ready for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from harness.methods import AnyMethod, MicroBatch, SourceInfo, methods


def make_step(
    logits: Any, labels: Any, quality: Any = None, diversity: Any = None, probabilities: bool = True
) -> MicroBatch:
    """A step; ``quality`` and ``diversity`` are probabilities [B, C] unless ``probabilities`` is False.

    Every second row is real, for methods that weigh real rows.
    """

    def scores(values: Any) -> torch.Tensor | None:
        if values is None:
            return None
        tensor = torch.tensor(values, dtype=torch.float32)
        return tensor.log() if probabilities else tensor

    classes = torch.as_tensor(labels, dtype=torch.int64)
    return MicroBatch(
        ids=tuple(f"generated-{i}" for i in range(len(classes))),
        rows=torch.arange(len(classes)),
        labels=classes,
        logits=torch.tensor(logits, dtype=torch.float32, requires_grad=True),
        quality=scores(quality),
        diversity=scores(diversity),
        epoch=0,
        real=torch.arange(len(classes)) % 2 == 1,
    )


def make(name: str, classes: int = 3, **settings: Any) -> AnyMethod:
    """A method by name, prepared on a source in which every class occurs and every second row is real;
    scores and embeddings are random."""
    kind = methods.get(name)
    method = kind(kind.settings_type()(**settings))
    source = np.arange(8 * classes) % classes
    rng = np.random.Generator(np.random.PCG64(3))
    scores = rng.dirichlet(np.ones(classes), len(source))
    real = np.arange(2 * classes + 1) % classes
    embeddings = (rng.normal(0, 1, (len(source), 4)), rng.normal(0.3, 1, (len(real), 4)))
    method.prepare(
        SourceInfo(
            source, classes, real, np.arange(len(source)) % 2 == 1, np.log(scores).astype(np.float32),
            tuple(values.astype(np.float32) for values in embeddings),
        )
    )  # fmt: skip
    return method
