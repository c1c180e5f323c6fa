"""What may be recommended: ways to train on both files, and human rows alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A way to train.

    Attributes:
        source: what it trains on; see ``harness.config.sources``.
        method: how its rows are weighed.
        title: in words.
    """

    source: str
    method: str
    title: str

    @property
    def key(self) -> str:
        """Its short name, e.g. ``both:dimp``."""
        return key(self.source, self.method)

    @property
    def weighs_rows(self) -> bool:
        """Whether written rows may have different weights."""
        return self.method not in ("ce", "mix")


def key(source: str, method: str) -> str:
    """The short name of a source and a method."""
    return f"{source}:{method}"


#: The null hypothesis: written rows are not used.
NULL = Candidate("real_small", "ce", "human rows alone")
WRITTEN = Candidate("generated", "ce", "written rows alone")
DIMP = Candidate("both", "dimp", "both, written rows weighed by DIMP")
CANDIDATES = (
    WRITTEN,
    Candidate("both", "ce", "both together"),
    Candidate("both", "mix", "both, human rows with half of the loss"),
    DIMP,
    Candidate("both", "filter", "both, written rows that a model of the human rows doubts left out"),
    Candidate("generated_then_real", "ce", "written rows, then human rows"),
    Candidate("generated_then_real", "dimp", "written rows weighed by DIMP, then human rows"),
)
BY_KEY = {candidate.key: candidate for candidate in (NULL, *CANDIDATES)}
