"""Named streams of randomness.

A trial's seed is split into streams (subset, initialisation, order, dropout, ...). No stream depends on the
method's name, so methods share them and can be compared in pairs.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, stream: str, *more: object) -> int:
    """A 63-bit seed for one named stream of a trial's seed."""
    text = "/".join(str(part) for part in (seed, stream, *more))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, stream: str, *more: object) -> np.random.Generator:
    """A NumPy generator on that stream (PCG64, whose bits do not change between NumPy versions)."""
    return np.random.Generator(np.random.PCG64(derive(seed, stream, *more)))
