"""Predictions of a model, and their metrics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.data.batches import evaluation_batches
from harness.data.split import IntArray
from harness.data.tokens import Tokens
from harness.metrics import ACCURACY, MACRO_F1, METRICS, label_accuracy, label_macro_f1
from harness.training.activations import model_inputs
from harness.training.classifier import forward
from harness.training.process_group import ProcessGroup

FloatArray = npt.NDArray[np.float32]


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
            logits = forward(model, model_inputs(model, tokens, rows, group.device), precision)
            out[torch.from_numpy(rows).to(group.device)] = logits.log_softmax(-1)
    model.train(was_training)
    array: FloatArray = group.sum(out).cpu().numpy()
    return array


def metrics(log_probs: FloatArray, labels: IntArray, prefix: str) -> dict[str, float]:
    """All of ``harness.metrics`` for log-probabilities [n, C] and class indices [n]; keys begin with ``prefix``."""
    return {metric.column(prefix): metric.compute(log_probs, labels) for metric in METRICS.values()}


def label_metrics(predicted: IntArray, labels: IntArray, classes: int, prefix: str) -> dict[str, float]:
    """Accuracy and macro F1 of predicted class indices; an index outside the classes is wrong."""
    return {
        ACCURACY.column(prefix): label_accuracy(predicted, labels),
        MACRO_F1.column(prefix): label_macro_f1(predicted, labels, classes),
    }
