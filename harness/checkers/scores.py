"""Scores of a checker: its log-probabilities for the rows of some splits, stored by content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.data.split import Split
from harness.errors import TrialError
from harness.store import Store, digest


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of all classes for some rows.

    Attributes:
        checker: id of the trial that trained the checker.
        ids: the n row ids.
        log_probabilities: float32 [n, C], in the order of ``ids``.
        temperature: with which they are calibrated; None for the checker's own.
    """

    checker: str
    ids: tuple[str, ...]
    log_probabilities: npt.NDArray[np.float32]
    temperature: float | None = None

    def aligned(self, split: Split) -> npt.NDArray[np.float32]:
        """The log-probabilities [n, C] for exactly the rows of ``split``, in its order.

        Raises:
            TrialError: rows without a score, or scores that are not log-probabilities; names the first such id.
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


def scores_key(checker: str, digests: Mapping[str, str], calibrated: bool = False) -> str:
    """The key of a checker's scores, in the store and in the ledger.

    Args:
        checker: the id of the checker's trial, which fixes the share of ``real_small`` too.
        digests: split -> digest, for the splits whose rows are scored.
        calibrated: True for calibrated scores.
    """
    return digest("scores", checker, dict(digests), *(["calibrated"] if calibrated else []))


def save_scores(scores: Scores, digests: Mapping[str, str], store: Store) -> None:
    """Stores the scores of the rows of these splits."""
    ids = np.frombuffer("\n".join(scores.ids).encode(), np.uint8)
    calibrated = scores.temperature is not None
    temperature = {"temperature": np.float64(scores.temperature)} if calibrated else {}
    key = scores_key(scores.checker, digests, calibrated)
    store.put("scores", key, ids=ids, log_probabilities=scores.log_probabilities, **temperature)


def load_scores(checker: str, digests: Mapping[str, str], store: Store, calibrated: bool = False) -> Scores:
    """The scores of a checker for the rows of these splits.

    Raises:
        TrialError: they are not in the store.
        StoreError: they are damaged.
    """
    blob = store.get("scores", scores_key(checker, digests, calibrated))
    if blob is None:
        kind = "calibrated scores" if calibrated else "scores"
        raise TrialError(f"checker {checker} has not scored {', '.join(digests)}: its {kind} are not in the store")
    ids = tuple(blob["ids"].tobytes().decode().split("\n"))
    return Scores(checker, ids, blob["log_probabilities"], float(blob["temperature"]) if calibrated else None)


def join(parts: Sequence[Scores]) -> Scores:
    """The scores of several checkers, each for other rows, as those of one.

    Raises:
        TrialError: two checkers have scored the same row.
    """
    if len(parts) == 1:
        return parts[0]
    ids = tuple(id_ for part in parts for id_ in part.ids)
    if len(set(ids)) != len(ids):
        twice = next(id_ for id_, count in Counter(ids).items() if count > 1)
        raise TrialError(f"checkers {' and '.join(part.checker for part in parts)} have both scored row {twice!r}")
    values = np.concatenate([part.log_probabilities for part in parts])
    return Scores(" + ".join(part.checker for part in parts), ids, values)


def scores_exist(
    checker: str, wanted: Iterable[Mapping[str, str]], store: Store, calibrated: Iterable[Mapping[str, str]] = ()
) -> bool:
    """True if the store has a checker's scores for each of these groups of splits; reads no rows.

    Args:
        checker: the id of the checker's trial.
        wanted: split -> digest, for each group of splits.
        store: where scores are stored.
        calibrated: the groups of splits whose calibrated scores are wanted.
    """
    keys = [scores_key(checker, digests) for digests in wanted]
    keys += [scores_key(checker, digests, calibrated=True) for digests in calibrated]
    return all(store.has("scores", key) for key in keys)
