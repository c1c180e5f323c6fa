"""A vocabulary trimmed to the tokens of a trial: embeddings of other tokens are neither trained nor kept in memory.

The embedding of a token that training never meets has no gradient: AdamW only decays it. So a model trained with the
tokens of its trial equals the model trained with all of them, and an embedding that is needed later, for other rows, is
the pretrained one after the same decay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from harness.config.experiment import Training
from harness.data.split import IntArray
from harness.data.tokens import PADDING, Tokens
from harness.training.classifier import make_optimizer


class TrimmedVocabulary:
    """Replaces a model's input embeddings by those of some tokens, which are numbered anew.

    Ids up to the largest that the model's configuration mentions (padding, end of text) keep their numbers: some models
    look for these ids among their inputs.

    Args:
        model: a transformers model, before training; changed in place.
        tokens: everything that it will be trained and evaluated on.

    Attributes:
        ids: the token ids kept, in ascending order, int64 [v]; a token's new number is its position.
    """

    def __init__(self, model: nn.Module, tokens: Sequence[Tokens]) -> None:
        self._model = model
        embeddings = model.get_input_embeddings()  # type: ignore[operator]
        self._pretrained, self._padding = embeddings.weight.detach(), embeddings.padding_idx
        self.ids = _union(np.arange(1 + max(PADDING, self._padding or 0, *_special_ids(model))), tokens)
        self._replace(self._pretrained[self.ids])

    def renumber(self, tokens: Tokens) -> Tokens:
        """The same rows by the new numbers; all of their tokens must be among ``ids``."""
        return replace(tokens, input_ids=np.searchsorted(self.ids, tokens.input_ids).astype(np.int32))

    def extend(self, tokens: Tokens, trainings: Sequence[tuple[Training, int]]) -> Tokens:
        """Adds the embeddings of tokens that the trained model has not met, and renumbers these rows.

        Args:
            tokens: other rows, for predictions.
            trainings: settings and number of steps of each training that the model went through.
        """
        ids = _union(self.ids, [tokens])
        known = np.isin(ids, self.ids)
        weight = self._pretrained[ids].clone()
        weight[known] = self._model.get_input_embeddings().weight.detach()  # type: ignore[operator]
        unmet = weight[~known]
        for training, steps in trainings:
            unmet = decayed(unmet, training, steps)
        weight[~known] = unmet
        self.ids = ids
        self._replace(weight)
        return self.renumber(tokens)

    def _replace(self, weight: torch.Tensor) -> None:
        padding = None if self._padding is None else int(np.searchsorted(self.ids, self._padding))
        embeddings = nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=padding)
        self._model.set_input_embeddings(embeddings)  # type: ignore[operator]


def decayed(weight: torch.Tensor, training: Training, steps: int) -> torch.Tensor:
    """Parameters after a training in which they have no gradient, by the steps of the optimizer itself."""
    if training.weight_decay == 0.0 or not len(weight):
        return weight
    holder = nn.Embedding.from_pretrained(weight.clone(), freeze=False)
    optimizer, schedule = make_optimizer(holder, training, steps)
    holder.weight.grad = torch.zeros_like(holder.weight)
    for _ in range(steps):
        optimizer.step()
        schedule.step()
    out: torch.Tensor = holder.weight.detach()
    return out


def _special_ids(model: nn.Module) -> list[int]:
    """The token ids in a model's configuration; 0 if there is none."""
    values = [value for key, value in model.config.to_dict().items() if key.endswith("token_id")]  # type: ignore[operator, union-attr]
    return [0, *(id_ for value in values for id_ in (value if isinstance(value, list) else [value]) if id_ is not None)]


def _union(ids: IntArray, tokens: Sequence[Tokens]) -> IntArray:
    return np.unique(np.concatenate([ids, *(np.unique(part.input_ids) for part in tokens)])).astype(np.int64)
