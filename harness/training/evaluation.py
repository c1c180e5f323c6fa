"""Predictions of a model, and their metrics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor, nn

from harness.data.batches import evaluation_batches
from harness.data.split import IntArray
from harness.data.tokens import Tokens
from harness.training.classifier import forward
from harness.training.process_group import ProcessGroup

FloatArray = npt.NDArray[np.float32]


def to_device(padded: dict[str, IntArray], device: torch.device) -> dict[str, Tensor]:
    """A padded batch as tensors on the device."""
    return {name: torch.from_numpy(values).to(device, non_blocking=True) for name, values in padded.items()}


@torch.no_grad()
def predict(
    model: nn.Module, tokens: Tokens, classes: int, batch_size: int, precision: str, group: ProcessGroup
) -> FloatArray:
    """Log-probabilities float32 [n, C] without dropout; the batches are shared among the processes."""
    was_training = model.training
    model.eval()
    out = torch.zeros(len(tokens.lengths), classes, device=group.device)
    for number, rows in enumerate(evaluation_batches(tokens.lengths, batch_size)):
        if number % group.size == group.rank:
            logits = forward(model, to_device(tokens.padded(rows), group.device), precision)
            out[torch.from_numpy(rows).to(group.device)] = logits.log_softmax(-1)
    model.train(was_training)
    array: FloatArray = group.sum(out).cpu().numpy()
    return array


def metrics(log_probabilities: FloatArray, labels: IntArray, prefix: str) -> dict[str, float]:
    """Accuracy, macro F1 over all C classes (0 for a class without rows and predictions) and mean cross-entropy."""
    loss = -log_probabilities[np.arange(len(labels)), labels].astype(np.float64).mean()
    values = label_metrics(log_probabilities.argmax(axis=1), labels, log_probabilities.shape[1], prefix)
    return values | {f"{prefix}_loss": float(loss)}


def label_metrics(predicted: IntArray, labels: IntArray, classes: int, prefix: str) -> dict[str, float]:
    """Accuracy and macro F1 of predicted class indices; an index outside the classes is wrong."""
    known = list(range(classes))
    return {
        f"{prefix}_accuracy": float(accuracy_score(labels, predicted)),
        f"{prefix}_f1": float(f1_score(labels, predicted, labels=known, average="macro", zero_division=0)),
    }
