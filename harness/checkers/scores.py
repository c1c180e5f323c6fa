"""The scores of a checker: what it says of every row of a source, kept by content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.data.types import Split
from harness.errors import TrialError
from harness.store import Store, digest


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of all classes for the rows of one source.

    Attributes:
        checker: the trial whose model scored.
        ids: the n row ids.
        log_probabilities: float32 [n, C], in the order of ``ids``.
    """

    checker: str
    ids: tuple[str, ...]
    log_probabilities: npt.NDArray[np.float32]

    def aligned(self, split: Split) -> npt.NDArray[np.float32]:
        """The log-probabilities [n, C] for exactly the rows of ``split``, in its order.

        Raises:
            TrialError: rows without a score, or scores that are no log-probabilities; the first such id is named.
        """
        if self.ids == split.ids:
            out = self.log_probabilities
        else:
            position = {id_: i for i, id_ in enumerate(self.ids)}
            missing = [id_ for id_ in split.ids if id_ not in position]
            if missing:
                raise TrialError(
                    f"checker {self.checker} has no score for {len(missing)} of {len(split)} rows of {split.name}, "
                    f"first {missing[0]!r}: its scores are of other data"
                )
            out = self.log_probabilities[[position[id_] for id_ in split.ids]]
        sums = np.exp(out.astype(np.float64)).sum(axis=1)
        wrong = np.flatnonzero(~(np.abs(sums - 1.0) < 1e-3))
        if len(wrong):
            raise TrialError(
                f"checker {self.checker}: the probabilities of row {split.ids[wrong[0]]!r} sum to "
                f"{sums[wrong[0]]}, not 1"
            )
        return out


def scores_key(checker: str, source: Split) -> str:
    """Where the scores of a checker for these rows are kept."""
    return digest("scores", checker, source.digest)


def artefact_name(source: str, digests: Mapping[str, str]) -> str:
    """What the scores of a source are called in the ledger: its rows are part of the name.

    Args:
        source: the source's name.
        digests: split -> digest, for the splits of the source.
    """
    return f"scores_{source}_{digest(dict(digests))[:8]}"


def save(scores: Scores, source: Split, store: Store) -> None:
    """Keeps the scores."""
    ids = np.frombuffer("\n".join(scores.ids).encode(), np.uint8)
    store.put("scores", scores_key(scores.checker, source), ids=ids, log_probabilities=scores.log_probabilities)


def load(checker: str, source: Split, store: Store) -> Scores:
    """The scores of a checker for these rows.

    Raises:
        TrialError: there are none.
    """
    blob = store.get("scores", scores_key(checker, source))
    if blob is None:
        raise TrialError(f"checker {checker} has not scored {source.name}; its scores are missing from the store")
    return Scores(checker, tuple(blob["ids"].tobytes().decode().split("\n")), blob["log_probabilities"])
