"""The token ids of a split, computed once for each tokenizer and maximum length."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data.split import IntArray, Split
from harness.store import Store, digest

# One process tokenizes at a time; threads of a tokenizer warn or hang after a fork.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
#: The token id that fills rows up; masked, so that any id would do.
PADDING = 0


@dataclass(frozen=True)
class Tokens:
    """The token ids of n rows in flat arrays.

    Attributes:
        input_ids: all token ids, int32 [sum of lengths].
        token_type_ids: 0 for the first text, 1 for the second of a pair; same shape.
        offsets: row i is ``input_ids[offsets[i]:offsets[i + 1]]``, int64 [n + 1].
    """

    input_ids: npt.NDArray[np.int32]
    token_type_ids: npt.NDArray[np.int8]
    offsets: IntArray

    @property
    def lengths(self) -> IntArray:
        """Tokens per row [n]."""
        return np.diff(self.offsets)

    def take(self, rows: IntArray) -> Tokens:
        """The tokens of ``rows`` (row numbers), in that order."""
        offsets = np.concatenate([[0], np.cumsum(self.lengths[rows])]).astype(np.int64)
        flat = self._positions(rows)
        return Tokens(self.input_ids[flat], self.token_type_ids[flat], offsets)

    def padded(self, rows: Sequence[int] | IntArray) -> dict[str, IntArray]:
        """The rows as ``input_ids``, ``token_type_ids`` and ``attention_mask`` [B, longest row].

        Shorter rows are filled with ``PADDING``.
        """
        lengths = self.lengths[rows]
        mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
        out = {"attention_mask": mask.astype(np.int64)}
        flat = self._positions(rows)
        for name, values in (("input_ids", self.input_ids), ("token_type_ids", self.token_type_ids)):
            out[name] = np.zeros(mask.shape, dtype=np.int64)
            out[name][mask] = values[flat]
        return out

    def _positions(self, rows: Sequence[int] | IntArray) -> IntArray:
        """Positions of the rows' tokens in the flat arrays."""
        parts = [np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def tokenize(split: Split, tokenizer: Callable[[], Any], encoder: str, max_length: int, store: Store) -> Tokens:
    """The tokens of a split, read from the store, or computed and stored.

    Args:
        split: the rows.
        tokenizer: returns the Hugging Face tokenizer; called only if the tokens are not in the store.
        encoder: the encoder's identity, part of the key.
        max_length: most tokens of a row; longer rows are truncated, pairs at their longer text.
        store: where tokens are stored.
    """
    key = digest("tokens", split.digest, encoder, max_length)
    blob = store.get("tokens", key, replaceable=True)
    if blob is None:
        blob = _encode(split, tokenizer(), max_length)
        store.put("tokens", key, **blob)
    return Tokens(blob["input_ids"], blob["token_type_ids"], blob["offsets"])


def _encode(split: Split, tokenizer: Any, max_length: int) -> dict[str, Any]:
    pairs = None if split.pairs is None else list(split.pairs)
    encoding = tokenizer(
        list(split.texts), pairs, truncation=True, max_length=max_length, return_token_type_ids=True,
        return_attention_mask=False,
    )  # fmt: skip
    lengths = [len(row) for row in encoding["input_ids"]]
    return {
        "input_ids": np.concatenate([np.asarray(row, np.int32) for row in encoding["input_ids"]]),
        "token_type_ids": np.concatenate([np.asarray(row, np.int8) for row in encoding["token_type_ids"]]),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    }
