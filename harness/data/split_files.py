"""Finished splits as files: one file a split, written whole, verified on reading, safe with concurrent processes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from harness.data.split import Split
from harness.errors import StoreError
from harness.files import write_atomically
from harness.store import Store


def write(path: Path, split: Split, notes: list[str]) -> None:
    """Write a split and its notes to ``path``, whole or not at all, behind a SHA-256 of the content."""
    content = {
        "name": split.name,
        "ids": split.ids,
        "texts": split.texts,
        "pairs": split.pairs,
        "labels": split.labels.tolist(),
        "corruptions": split.corruptions,
        "notes": notes,
    }
    body = json.dumps(content, ensure_ascii=False).encode()
    write_atomically(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def read(path: Path) -> tuple[Split, list[str]] | None:
    """The split and its notes, or None where the file is missing or damaged."""
    try:
        checksum, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        return None
    content = json.loads(body)
    split = Split(
        content["name"],
        tuple(content["ids"]),
        tuple(content["texts"]),
        _optional_tuple(content["pairs"]),
        np.array(content["labels"], dtype=np.int64),
        _optional_tuple(content["corruptions"]),
    )
    return split, content["notes"]


def save_split(split: Split, store: Store) -> None:
    """Write a split to the store under its own digest, for workers that cannot reach its sources."""
    if not store.has("splits", split.digest):
        columns = [split.name, split.ids, split.texts, split.pairs, split.corruptions]
        text = json.dumps(columns, ensure_ascii=False)
        store.put("splits", split.digest, labels=split.labels, text=np.frombuffer(text.encode(), np.uint8))


def load_split(digest: str, store: Store) -> Split:
    """The split with this digest, verified.

    Raises:
        StoreError: it is not in the store, or its content does not have the digest.
    """
    blob = store.get("splits", digest)
    if blob is None:
        cause = " Nodes that joined later must see the same folder; a URL (--store) is safe." if store.local else ""
        raise StoreError(f"split {digest[:12]} is not in the store {store.root}; run the experiment again.{cause}")
    # splits that were stored before there were corruptions lack that column, and have the same digest
    name, ids, texts, pairs, *more = json.loads(blob["text"].tobytes().decode())
    corruptions = _optional_tuple(more[0]) if more else None
    split = Split(name, tuple(ids), tuple(texts), _optional_tuple(pairs), blob["labels"], corruptions)
    if split.digest != digest:
        raise StoreError(f"split {digest[:12]} in the store {store.root} is damaged; delete it and run again")
    return split


def _optional_tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
