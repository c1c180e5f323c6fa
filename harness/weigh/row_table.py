"""The table of written rows, weights.csv: what each is worth, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.data.density_ratio import FOLDS as LEAST_TEXTS
from harness.data.density_ratio import log_density_ratio
from harness.data.split import Split, row_texts
from harness.weigh.candidates import NULL, WRITTEN
from harness.weigh.checks import Duplicates
from harness.weigh.folds import original_id
from harness.weigh.reading import Inputs
from harness.weigh.rounds import Outcome, Run
from harness.weigh.suspicion import SUSPICIOUS, RowViews, Suspicion, judge

FloatArray = npt.NDArray[np.float64]
#: Share of the human rows that are less similar to other human rows than a written row that counts as unlike them.
UNLIKE = 0.01


@dataclass(frozen=True)
class Views:
    """Log-probabilities [C] by id, by models that have seen neither the row nor its near-duplicates.

    Those of several models are averaged as logarithms, so that a row that many models have scored (a written one, by
    the models of the human rows of all folds) is as extreme as one that few have.

    Attributes:
        p: of models that human rows trained.
        q: of models that written rows trained.
    """

    p: dict[str, FloatArray]
    q: dict[str, FloatArray]

    def of(self, ids: Sequence[str]) -> RowViews:
        """Those of some rows."""
        return RowViews(np.stack([self.p[i] for i in ids]), np.stack([self.q[i] for i in ids]))


def views(outcomes: Mapping[Run, Outcome]) -> Views:
    """Both views of every human and written row, averaged over the models that have not seen it."""
    return Views(_view(outcomes, NULL.key), _view(outcomes, WRITTEN.key))


def _view(outcomes: Mapping[Run, Outcome], candidate: str) -> dict[str, FloatArray]:
    log_probs: dict[str, list[FloatArray]] = {}
    for run, outcome in outcomes.items():
        if run.candidate != candidate or run.share != 1.0:
            continue
        for id_, values in (*zip(outcome.ids, outcome.log_probs, strict=True), *outcome.written.items()):
            log_probs.setdefault(id_, []).append(values)
    return {id_: _normalized(np.mean(values, axis=0)) for id_, values in log_probs.items()}


def _normalized(log_probs: FloatArray) -> FloatArray:
    out: FloatArray = log_probs - np.log(np.exp(log_probs - log_probs.max()).sum()) - log_probs.max()
    return out


def suspicion(inputs: Inputs, both: Views) -> tuple[list[str], Suspicion]:
    """The ids of the written rows that were trained on, and what is known of their labels."""
    classes = dict(zip(inputs.written.ids, inputs.written.labels.tolist(), strict=True))
    ids = [id_ for id_ in inputs.written.ids if id_ in both.q]
    labels = np.array([classes[id_] for id_ in ids], dtype=np.int64)
    result = judge(both.of(inputs.people.ids), inputs.people.labels, both.of(ids), labels)
    sure = np.array([id_ in inputs.confirmed for id_ in ids])
    result.wrong[sure] = 0.0
    return ids, replace(result, share=float(result.wrong.mean()))


def table(
    inputs: Inputs, duplicates: Duplicates, outcomes: Mapping[Run, Outcome], both: Views,
    wrong: tuple[list[str], Suspicion], embeddings: tuple[FloatArray, FloatArray], weighing: str,
) -> pd.DataFrame:  # fmt: skip
    """A row for every written row, in the order of the file.

    Args:
        inputs: the rows.
        duplicates: near-duplicates among them.
        outcomes: of all trials.
        both: the two views of every row.
        wrong: see ``suspicion``.
        embeddings: of human and written rows, [m, D] and [n, D].
        weighing: the candidate whose weights are shown.
    """
    written = inputs.written
    people, rows = (_unit(values) for values in embeddings)
    copies = {**duplicates.of_written, **duplicates.of_people}
    frame = pd.DataFrame({
        **_texts(inputs),
        **_weights(written.ids, outcomes, weighing),
        "p_label": _of_label(both.p, written),
        "q_label": _of_label(both.q, written),
        **_judgements(inputs, *wrong),
        "looks_real": _looks_real(people, rows),
        **_nearest(people, rows, inputs.people),
        "duplicate_of": [copies.get(id_, "") for id_ in written.ids],
    })  # fmt: skip
    frame["flags"] = _flags({
        "wrong_label": frame["p_wrong"].to_numpy() > SUSPICIOUS,
        "unlike": frame["similarity"].to_numpy() < _usual_similarity(people, inputs.people),
        "duplicate": np.array([id_ in duplicates.of_written for id_ in written.ids]),
        "copy": np.array([id_ in duplicates.of_people for id_ in written.ids]),
        "reviewed": np.array([id_ in inputs.confirmed for id_ in written.ids]),
    })  # fmt: skip
    return frame


def _texts(inputs: Inputs) -> dict[str, Sequence[str]]:
    written = inputs.written
    second = {} if written.pairs is None else {"text2": written.pairs}
    labels = [inputs.labels[label] for label in written.labels.tolist()]
    return {"id": [original_id(id_) for id_ in written.ids], "text": written.texts, **second, "label": labels}


def _weights(ids: Sequence[str], outcomes: Mapping[Run, Outcome], candidate: str) -> dict[str, list[float]]:
    """The mean of a row's weights over folds and seeds, and their standard deviation; NaN where there are too few."""
    weights: dict[str, list[float]] = {}
    for run, outcome in outcomes.items():
        if run.candidate == candidate and run.share == 1.0:
            for id_, weight in outcome.weights.items():
                weights.setdefault(id_, []).append(weight)
    of_rows = [weights.get(id_, []) for id_ in ids]
    return {
        "weight": [float(np.mean(values)) if values else np.nan for values in of_rows],
        "weight_sd": [float(np.std(values, ddof=1)) if len(values) > 1 else np.nan for values in of_rows],
    }


def _of_label(view: Mapping[str, FloatArray], rows: Split) -> list[float]:
    """The probability of every row's label; NaN for rows without a view."""
    return [
        float(np.exp(view[id_][label])) if id_ in view else np.nan
        for id_, label in zip(rows.ids, rows.labels.tolist(), strict=True)
    ]


def _judgements(inputs: Inputs, ids: Sequence[str], judged: Suspicion) -> dict[str, Sequence[float | str]]:
    """The probability that a label is wrong, and for suspicious rows the likeliest one."""
    of_rows = dict(zip(ids, zip(judged.wrong.tolist(), judged.suggested.tolist(), strict=True), strict=True))
    pairs = [of_rows.get(id_, (np.nan, 0)) for id_ in inputs.written.ids]
    return {
        "p_wrong": [wrong for wrong, _ in pairs],
        "suggested_label": [inputs.labels[label] if wrong > SUSPICIOUS else "" for wrong, label in pairs],
    }


def _nearest(people: FloatArray, written: FloatArray, rows: Split) -> dict[str, Sequence[float | str]]:
    """The human row whose text is nearest, and how similar it is (cosine)."""
    similarity = written @ people.T
    nearest = similarity.argmax(axis=1)
    return {
        "nearest_human": [original_id(rows.ids[i]) for i in nearest],
        "similarity": similarity[np.arange(len(written)), nearest].tolist(),
    }


def _flags(flags: Mapping[str, npt.NDArray[np.bool_]]) -> list[str]:
    """The names of the flags of every row, with spaces between them."""
    rows = zip(*flags.values(), strict=True)
    return [" ".join(name for name, flag in zip(flags, row, strict=True) if flag) for row in rows]


def _unit(values: FloatArray) -> FloatArray:
    wide = values.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


def _looks_real(people: FloatArray, written: FloatArray) -> FloatArray:
    """The probability that a text is a human row, were both kinds equally many [n], by a cross-fitted classifier."""
    if min(len(people), len(written)) < LEAST_TEXTS:
        return np.full(len(written), np.nan)
    log_ratio, _ = log_density_ratio(written, people, 1.0, 0)
    return np.asarray(1.0 / (1.0 + np.exp(-log_ratio)))


def _usual_similarity(people: FloatArray, rows: Split) -> float:
    """The similarity to the nearest other human row that all but ``UNLIKE`` of the human rows have."""
    if len(set(row_texts(rows))) < 2:
        return -1.0
    similarity = people @ people.T
    np.fill_diagonal(similarity, -1.0)
    return float(np.quantile(similarity.max(axis=1), UNLIKE))
