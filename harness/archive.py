"""The results of finished trials in one file: to publish them, and to go on elsewhere without training them again.

The file is a zip of the store's artifacts: ``trials/ID.npz`` and, for checkers, ``scores/KEY.npz``. Metrics, runtimes
and scores are exact, and so are the last validation predictions of checkers, which calibrate them. Test predictions are
those that the ledger keeps (the last evaluation and the best on validation rows), and they and weights are rounded to
float16.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from harness.checkers.scores import scores_key
from harness.errors import UserError
from harness.files import write_atomically
from harness.ledger.artifacts import best_epoch
from harness.planning.trials import Job
from harness.store import Arrays, Store
from harness.training.trial_result import TrialResult, load_result, pack, unpack

#: The time of every file in a zip, so that equal results give equal bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def export(jobs: Iterable[Job], store: Store, path: Path) -> int:
    """Writes the results of the finished jobs to a zip; returns how many there are.

    Args:
        jobs: of an experiment; those without a result are left out. A checker goes with the scores that it has; where
            it has to score other rows too, it is trained again.
        store: has the results.
        path: the file; replaced if it exists.

    Raises:
        UserError: none of the jobs has finished.
    """
    buffer, finished = io.BytesIO(), 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for job in sorted(jobs, key=lambda job: job.trial.id):
            result = load_result(job.trial, store)
            if result is None:
                continue
            finished += 1
            _write(archive, f"trials/{job.trial.id}.npz", pack(_reduced(result, bool(job.scores))))
            for key in sorted(scores_key(job.trial.id, digests) for digests in job.scores.values()):
                if (scores := store.get("scores", key)) is not None:
                    _write(archive, f"scores/{key}.npz", scores)
    if not finished:
        raise UserError(f"the store {store.root} has no result of this experiment; run it first, or see --home")
    write_atomically(path, buffer.getvalue())
    return finished


def restore(path: Path, store: Store) -> tuple[int, int]:
    """Puts the results in a zip into a store; what the store has already stays as it is.

    Returns:
        The number of trials that were added, and of those that were there before.

    Raises:
        UserError: the file is missing or was not written by ``export``.
    """
    added = known = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):  # scores come first: a trial counts only with them
                kind, _, file = name.partition("/")
                key = file.removesuffix(".npz")
                if kind not in ("trials", "scores") or not key.isalnum():
                    raise UserError(f"{path}: expected results written by `harness export`, found {name!r} in it")
                if store.has(kind, key):
                    known += kind == "trials"
                    continue
                with archive.open(name) as content:
                    arrays = _read(content)
                store.put(kind, key, **(pack(_expanded(unpack(arrays))) if kind == "trials" else arrays))
                added += kind == "trials"
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: expected a zip written by `harness export`: {error}") from None
    return added, known


def _reduced(result: TrialResult, checker: bool) -> TrialResult:
    """A result with the arrays that the ledger keeps, in float16; that of a checker with what calibrates it."""
    arrays = {"test": _rounded(result.arrays["test"][_kept(result)])}
    if checker:
        arrays["validation"] = result.arrays["validation"][-1:]
    if "weights" in result.arrays:
        arrays["weights"] = _rounded(result.arrays["weights"])
    return replace(result, arrays=arrays)


def _rounded(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values in float16, or as they are where a finite one is too large for it."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    return values if np.isinf(rounded[np.isfinite(values)]).any() else rounded


def _expanded(result: TrialResult) -> TrialResult:
    """A reduced result with arrays in the shapes of ``TrialResult``: NaN for predictions that are not kept."""
    arrays = {name: values.astype(np.float32) for name, values in result.arrays.items()}
    for name, kept in (("test", _kept(result)), ("validation", [-1])):
        if name in arrays:
            whole = np.full((len(result.history), *arrays[name].shape[1:]), np.nan, dtype=np.float32)
            whole[kept] = arrays[name]
            arrays[name] = whole
    return replace(result, arrays=arrays)


def _kept(result: TrialResult) -> list[int]:
    """Positions of the evaluations whose test predictions the ledger keeps."""
    return sorted({best_epoch(result.history) - 1, len(result.history) - 1})


def _write(archive: zipfile.ZipFile, name: str, arrays: Arrays) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    archive.writestr(zipfile.ZipInfo(name, _TIME), buffer.getvalue(), zipfile.ZIP_DEFLATED, 9)


def _read(content: IO[bytes]) -> Arrays:
    with np.load(io.BytesIO(content.read()), allow_pickle=False) as blob:
        return {name: blob[name] for name in blob.files}
