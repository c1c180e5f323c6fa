"""Encoders that compute only what the logits depend on: no padding, and in the last layer only the first token.

Rows of a batch lie one after the other in a single sequence, so that linear layers, layer norms and dropout see no
padding (the "unpadding" of Zeng et al. 2022, arXiv 2208.08124); only attention puts them back into a rectangle. The
heads of these models read the first token alone, so the last layer computes keys and values of all tokens, but
everything else for the first tokens only. Logits and gradients are those of the whole computation, up to the order of
sums; dropout draws fewer numbers and so other masks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import eager_attention_forward

from harness.data.split import IntArray
from harness.data.tokens import Tokens
from harness.encoders import BERT_LIKE
from harness.training.dropout import dropout

PREFIX = "unpadded_"


class Rows:
    """Where B rows lie in a sequence of N tokens without padding.

    Args:
        lengths: tokens per row [B].
        device: of the tokens.

    Attributes:
        count: number of rows B.
        longest: tokens of the longest row.
        starts: position of the first token of each row, int64 [B].
        of_token: the row of each token, int64 [N].
        mask: which places of the rectangle [B, longest] hold a token, bool; None if all do.
    """

    def __init__(self, lengths: IntArray, device: torch.device) -> None:
        self.count, self.longest = len(lengths), int(lengths.max())
        starts = np.cumsum(lengths) - lengths
        self.starts = torch.from_numpy(starts).to(device)
        self.of_token = torch.from_numpy(np.repeat(np.arange(self.count), lengths)).to(device)
        present = np.arange(self.longest) < lengths[:, None]
        self.mask: Tensor | None = None
        if not present.all():
            self.mask = torch.from_numpy(present).to(device)
            self._positions = torch.from_numpy(np.flatnonzero(present)).to(device)
        self._attention_masks: dict[torch.dtype, Tensor] = {}  # every layer asks for the same

    def pad(self, values: Tensor) -> Tensor:
        """[1, N, H] as a rectangle [B, longest, H], filled up with zeros."""
        if self.mask is not None:
            values = values.new_zeros(self.mask.numel(), values.shape[-1]).index_copy(0, self._positions, values[0])
        return values.view(self.count, self.longest, -1)

    def unpad(self, values: Tensor) -> Tensor:
        """[B, longest, H] as [1, N, H]."""
        values = values.flatten(0, 1)
        return (values if self.mask is None else values.index_select(0, self._positions))[None]

    def first(self, values: Tensor) -> Tensor:
        """The values of the first tokens, [1, N, H] -> [B, 1, H]."""
        return values[0].index_select(0, self.starts)[:, None]

    def attention_mask(self, dtype: torch.dtype) -> Tensor | None:
        """What attention adds to its scores [B, 1, 1, longest]; None without padding."""
        if self.mask is None:
            return None
        if dtype not in self._attention_masks:
            zeros = torch.zeros_like(self.mask, dtype=dtype)
            self._attention_masks[dtype] = zeros.masked_fill(~self.mask, torch.finfo(dtype).min)[:, None, None, :]
        return self._attention_masks[dtype]


class FirstTokenLayer(nn.Module):
    """A layer of BERT whose output is that of the first tokens; has the parameters of the layer by the same names.

    Args:
        layer: a ``BertLayer``, or a layer with the same parts.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.attention, self.intermediate, self.output = layer.attention, layer.intermediate, layer.output

    def forward(self, hidden: Tensor, *_: Any, rows: Rows, **__: Any) -> Tensor:
        """Hidden states of all tokens [1, N, H] -> those of the first tokens after this layer [B, 1, H]."""
        attention: Any = self.attention.self
        first = rows.first(hidden)
        query = _heads(attention, attention.query(first))
        key, value = (_heads(attention, rows.pad(layer(hidden))) for layer in (attention.key, attention.value))
        p = attention.dropout.p if self.training else 0.0
        name = attention.config._attn_implementation.removeprefix(PREFIX)
        context = _attend(name, attention, query, key, value, rows, p, attention.scaling)
        attended: Tensor = self.attention.output(context, first)
        out: Tensor = self.output(self.intermediate(attended), attended)
        return out


def skip_unused(model: Any) -> bool:
    """Makes a sequence classifier skip padding and what its head does not read; changes the model in place.

    Args:
        model: a transformers model; use ``model_inputs`` for its batches afterwards.

    Returns:
        False if the model is of another type than ``BERT_LIKE``; it is then left as it is.
    """
    if model.config.model_type not in BERT_LIKE or getattr(model.config, "is_decoder", False):
        return False
    layers = model.base_model.encoder.layer
    layers[-1] = FirstTokenLayer(layers[-1])
    model.config._attn_implementation = PREFIX + model.config._attn_implementation
    return True


def model_inputs(model: Any, tokens: Tokens, rows: IntArray, device: torch.device) -> dict[str, Any]:
    """The arguments for a model's forward pass on some rows.

    Args:
        model: the classifier without wrappers.
        tokens: the tokens of all rows.
        rows: row numbers [B].
        device: of the model.

    Returns:
        For a model that skips padding: ``input_ids``, ``token_type_ids`` and ``position_ids`` [1, N], and ``rows``;
        for others the first two and ``attention_mask``, [B, longest].
    """
    if not model.config._attn_implementation.startswith(PREFIX):
        return {name: torch.from_numpy(v).to(device, non_blocking=True) for name, v in tokens.padded(rows).items()}
    part = tokens.take(rows)
    lengths = part.lengths
    # RoBERTa numbers positions from the one after that of padding
    first = getattr(model.base_model.embeddings, "padding_idx", -1) + 1
    positions = np.concatenate([np.arange(first, first + length) for length in lengths])
    arrays: dict[str, Any] = {
        "input_ids": part.input_ids,
        "token_type_ids": part.token_type_ids,
        "position_ids": positions,
    }
    inputs: dict[str, Any] = {
        name: torch.from_numpy(values.astype(np.int64)).to(device, non_blocking=True)[None]
        for name, values in arrays.items()
    }
    return inputs | {"rows": Rows(lengths, device)}


def _heads(attention: Any, values: Tensor) -> Tensor:
    """[B, T, H] -> [B, heads, T, H / heads]."""
    heads: Tensor = values.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)
    return heads


def _attend(
    name: str, module: Any, query: Tensor, key: Tensor, value: Tensor, rows: Rows, p: float, scaling: float
) -> Tensor:
    """The attention ``name`` of transformers with dropout ``p``, on a rectangle [B, heads, T, H / heads]: [B, T, H]."""
    mask = rows.attention_mask(query.dtype)
    if p > 0.0 and query.device.type == "cpu":  # no fused kernel has dropout there
        scores = query @ key.transpose(2, 3) * scaling
        weights = dropout((scores if mask is None else scores + mask).softmax(-1), p)
        return (weights @ value).transpose(1, 2).flatten(2)
    interface: Any = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention_forward)
    context: Tensor = interface(module, query, key, value, mask, dropout=p, scaling=scaling)[0]
    return context.flatten(2)


def _register(name: str) -> None:
    """Registers the attention ``name`` of transformers for sequences without padding."""

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, *, rows: Rows, dropout: float,
        scaling: float, **_: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        query, key, value = (_heads(module, rows.pad(x.transpose(1, 2).flatten(2))) for x in (query, key, value))
        return rows.unpad(_attend(name, module, query, key, value, rows, dropout, scaling)), None

    AttentionInterface.register(PREFIX + name, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(PREFIX + name, lambda *_, **__: None)


for _name in ("sdpa", "eager"):
    _register(_name)
