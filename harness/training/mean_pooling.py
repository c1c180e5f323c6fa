"""Mean pooling for encoders whose classification head reads the first token alone.

Sentence encoders are trained with the mean over a row's tokens as its embedding (Reimers & Gurevych 2019,
arXiv 1908.10084), and their first token says little before it is fine-tuned. Here one more transformer layer, the same
as the encoder's own, starts as that mean: its attention is nearly even, its values are the hidden states themselves.
So the model stays one that transformers loads by its configuration, and the new layer is trained like the others.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

#: How much the mean counts beside the first token's own state, which a residual connection adds.
MEAN_SCALE = 4.0
#: Standard deviation of the weights of queries and keys; as in BERT, and small enough for nearly even attention.
STD = 0.02


@torch.no_grad()
def start_as_mean(model: Any) -> None:
    """Initializes the last layer of a model so that its output for the first token is nearly LN(first + s · mean).

    LN is a layer norm, s is ``MEAN_SCALE``, the mean is over the tokens of the row. Draws from the global generator of
    torch.

    Args:
        model: with layers like those of BERT; changed in place.
    """
    layer = model.base_model.encoder.layer[-1]
    attention = layer.attention
    for part in (attention.self.query, attention.self.key, layer.intermediate.dense):
        _set(part, nn.init.normal_(part.weight, std=STD))
    identity = torch.eye(model.config.hidden_size)
    _set(attention.self.value, identity)
    _set(attention.output.dense, MEAN_SCALE * identity)
    _set(layer.output.dense, torch.zeros_like(layer.output.dense.weight))
    for norm in (attention.output.LayerNorm, layer.output.LayerNorm):
        _set(norm, torch.ones_like(norm.weight))


def _set(part: Any, weight: torch.Tensor) -> None:
    part.weight.copy_(weight)
    part.bias.zero_()
