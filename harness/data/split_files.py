"""Finished splits on disk: one file a split, checked on reading, safe under processes that race."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from harness.data.split import Split
from harness.files import write_atomically
from harness.store import Store


def write(path: Path, split: Split, notes: list[str]) -> None:
    """Put a split, and notes about how it came to be, at ``path`` in one step: readers see all of it or nothing."""
    content = {
        "name": split.name,
        "ids": split.ids,
        "texts": split.texts,
        "pairs": split.pairs,
        "labels": split.labels.tolist(),
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
    pairs = None if content["pairs"] is None else tuple(content["pairs"])
    labels = np.array(content["labels"], dtype=np.int64)
    return Split(content["name"], tuple(content["ids"]), tuple(content["texts"]), pairs, labels), content["notes"]


def save_split(split: Split, store: Store) -> None:
    """Writes a split to the store under its own digest, for workers that cannot see where its rows come from."""
    if not store.has("splits", split.digest):
        text = json.dumps([split.name, split.ids, split.texts, split.pairs], ensure_ascii=False)
        store.put("splits", split.digest, labels=split.labels, text=np.frombuffer(text.encode(), np.uint8))


def load_split(digest: str, store: Store) -> Split:
    """The split with this digest, verified.

    Raises:
        RuntimeError: it is not in the store, or its content does not have the digest.
    """
    blob = store.get("splits", digest)
    if blob is None:
        raise RuntimeError(f"split {digest[:12]} is not in the store {store.root}; run the experiment again")
    name, ids, texts, pairs = json.loads(blob["text"].tobytes().decode())
    split = Split(name, tuple(ids), tuple(texts), None if pairs is None else tuple(pairs), blob["labels"])
    if split.digest != digest:
        raise RuntimeError(f"split {digest[:12]} in the store {store.root} is damaged; delete it and run again")
    return split
