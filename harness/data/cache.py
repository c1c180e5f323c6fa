"""Finished splits on disk: one file a split, checked on reading, safe under processes that race."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from harness.data.types import Split


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
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as stream:
        stream.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    os.replace(stream.name, path)


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
