"""What a report takes from the ledger's files, of this version and of the one before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from harness.ledger.artifacts import (
    History,
    PlannedTrial,
    PlanRecord,
    Predictions,
    Scores,
    Texts,
    Weights,
    best_epoch,
    from_parquet,
    to_parquet,
)
from harness.ledger.entries import Entry
from harness.ledger.legacy import upgrade_weights
from harness.reports.load import load, load_metrics, load_scores

from .fake_ledger import FakeLedger

FRAME = pd.DataFrame({"id": ["a", "b"], "label": ["x", "y"], "corruption": ["", "flip"]}).assign(
    weight_1=[1.0, 1.0], weight_2=[0.0, float("nan")], weight_3=[2.0, 3.0]
)


def test_a_row_has_its_last_weight_and_its_mean_one() -> None:
    rows = Weights.from_frame(from_parquet(to_parquet(FRAME))).summary()
    assert rows["weight"].tolist() == [2.0, 3.0]
    assert rows["mean_weight"].tolist() == [1.0, 2.0], "epochs in which a row was not seen do not count"
    assert rows["corruption"].tolist() == ["", "flip"]


def test_of_several_stages_the_first_one_gives_the_weights() -> None:
    nan = float("nan")
    frame = pd.DataFrame({"id": ["g", "r"], "label": ["x", "x"], "corruption": ["", ""]}).assign(
        weight_1=[0.5, nan], weight_2=[0.25, nan], weight_3=[nan, 1.0]
    )
    rows = Weights.from_frame(frame).summary()
    assert rows["weight"].iloc[0] == 0.25


def test_weights_of_version_1_have_texts_and_marked_ids() -> None:
    old = pd.DataFrame({"id": ["noisy-a", "noisy-b+flip", "a+b"], "label": ["x", "y", "x"], "text": ["1", "2", "3"]})
    old = old.assign(pair=["eins", "zwei", "drei"], weight_1=[1.0, 1.0, 1.0])
    weights = Weights.from_frame(upgrade_weights(old))
    assert weights.frame["corruption"].tolist() == ["", "flip", ""]
    assert weights.texts is not None
    assert weights.texts.iloc[0] == "1  //  eins"
    assert upgrade_weights(FRAME) is FRAME, "later versions have the column"


def test_a_trial_that_went_on_from_a_checkpoint_is_marked() -> None:
    ledger = FakeLedger({"a": {"ce": {0: 0.5, 1: 0.6}}})
    assert "resumed" not in load_scores("a", ledger).trials
    ledger.trials()["a-ce-1"].metrics["resumed"] = 1.0
    assert load_scores("a", ledger).trials["resumed"].tolist() == pytest.approx([float("nan"), 1.0], nan_ok=True)


def test_a_history_of_version_1_is_a_list() -> None:
    entries = [{"epoch": 1.0, "validation_accuracy": 0.5}, {"epoch": 2.0, "validation_accuracy": 0.5}]
    assert History.from_bytes(b'[{"epoch": 1.0}]').entries == [{"epoch": 1.0}]
    history = History.from_bytes(History(entries).to_bytes())
    assert history.entries == entries
    assert history.chosen("last")["epoch"] == 2.0
    assert history.chosen("best_validation")["epoch"] == 1.0
    assert best_epoch(entries) == 1, "the first of equals"


def test_scores_and_texts_survive_their_files() -> None:
    table = np.log(np.float32([[0.9, 0.1], [0.4, 0.6]]))
    frame = from_parquet(to_parquet(Scores.to_frame(["a", "b"], ["no", "yes"], table)))
    ids, log_probs = Scores.from_frame(frame).log_probs(["no", "yes"])
    assert ids == ("a", "b")
    np.testing.assert_array_equal(log_probs, table.astype(np.float64))
    texts = from_parquet(to_parquet(Texts.to_frame(["a"], ["one"], ["two"])))
    assert Texts.from_frame(texts) == {"a": "one  //  two"}


@dataclass(frozen=True)
class MemoryReader:
    """A ledger of one experiment in memory: trial -> file -> content."""

    files: dict[str, dict[str, bytes]]
    uri: str = "memory:"

    def trials(self, keys: object = None) -> dict[str, Entry]:
        return {id_: Entry(id_, "FINISHED", 0) for id_ in self.files if id_ != "parent"}

    def parents(self) -> dict[str, Entry]:
        return {"example": Entry("parent", "FINISHED", 0)}

    def fetch(self, wanted: object) -> None:
        pass

    def artifact(self, entry: Entry, path: str) -> bytes | None:
        return self.files[entry.run].get(path)


LABELS = [f"label {i:03d}" for i in range(130)]
TRUTH = np.array([0, 1, 129])
HISTORY = [{"epoch": 1.0, "validation_accuracy": 0.9}, {"epoch": 2.0, "validation_accuracy": 0.5}]


def predictions_file(ids: list[str], first: list[float], second: list[float], count: int = 130) -> bytes:
    """Log-probabilities whose greatest are at the given classes; NaN for no prediction."""
    log_probs = {}
    for epoch, classes in ((1, first), (2, second)):
        log_probs[epoch] = np.full((3, count), -9.0, np.float32)
        for row, name in enumerate(classes):
            log_probs[epoch][row] = np.nan if np.isnan(name) else np.where(np.arange(count) == name, -0.1, -9.0)
    return to_parquet(Predictions.to_frame(ids, LABELS[:count], np.minimum(TRUTH, count - 1), log_probs))


def ledger(rule: str, count: int, predictions: dict[str, bytes | None], unrequested: str = "") -> MemoryReader:
    trials = [
        PlannedTrial(id_, "news", "generated", "ce", "ce", seed, None, [""], id_ != unrequested, None, None, 1)
        for seed, id_ in enumerate(predictions)
    ]
    benchmark = {"labels": LABELS[:count], "splits": []}
    plan = PlanRecord("example", {"report": {"epoch": rule}}, {"news": benchmark}, {}, trials)
    files = {id_: {History.FILE: History(HISTORY).to_bytes()} for id_ in predictions}
    for id_, content in predictions.items():
        if content is not None:
            files[id_][Predictions.FILE] = content
    return MemoryReader({"parent": {PlanRecord.FILE: plan.to_bytes()}, **files})


@pytest.mark.parametrize(("rule", "expected"), [("last", [2, -1, 129]), ("best_validation", [1, 0, 0])])
def test_predictions_are_those_of_the_chosen_epoch(rule: str, expected: list[int]) -> None:
    content = predictions_file(["a", "b", "c"], [1, 0, 0], [2, np.nan, 129])
    benchmark = load("example", ledger(rule, 130, {"t": content})).predictions["news"]
    assert benchmark.predicted["t"].tolist() == expected
    assert benchmark.truth.tolist() == TRUTH.tolist()
    assert benchmark.classes == 130


def test_predictions_of_few_classes_are_small() -> None:
    content = predictions_file(["a", "b", "c"], [1, 0, 0], [1, 1, np.nan], count=2)
    benchmark = load("example", ledger("last", 2, {"t": content})).predictions["news"]
    assert benchmark.predicted["t"].dtype == benchmark.truth.dtype == np.int8
    assert benchmark.predicted["t"].tolist() == [1, 1, -1]


def test_trials_without_predictions_of_the_same_rows_have_none() -> None:
    content, other = (predictions_file(ids, [1, 0, 0], [1, 1, 0]) for ids in (["a", "b", "c"], ["a", "b", "d"]))
    files = {"first": content, "older ledger": None, "other rows": other, "checker": content, "second": content}
    results = load("example", ledger("last", 130, files, unrequested="checker"))
    assert list(results.predictions["news"].predicted) == ["first", "second"]
    assert load("example", ledger("last", 130, {"older ledger": None})).predictions == {}
    assert results.resampled.of("news", ["first", "older ledger"], "test_accuracy") is None


def test_rows_of_a_corrupted_source_have_the_probability_of_their_label() -> None:
    sources = {"noisy": {"title": "corrupted rows", "role": "corrupted", "splits": ["noisy"], "weighed": ["noisy"]}}
    benchmark = {"labels": ["x", "y"], "splits": [{"split": "noisy", "digest": "d", "rows": 2}]}
    trials = [
        PlannedTrial("q", "news", "real_small", "ce", "ce", 0, 1.0, [""], False, None, None, 1),
        PlannedTrial("t", "news", "noisy", "imp", "imp", 0, 1.0, [""], True, "q", "missing", 1),
    ]
    plan = PlanRecord("example", {}, {"news": benchmark}, sources, trials)
    log_probs = np.log(np.float32([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]]))
    scores = Scores.to_frame(["b", "other", "a"], ["x", "y"], log_probs)
    history = {History.FILE: History(HISTORY).to_bytes()}
    files = {
        "parent": {PlanRecord.FILE: plan.to_bytes()},
        "q": {**history, plan.scores_file("q", trials[1]): to_parquet(scores)},
        "t": {**history, Weights.FILE: to_parquet(FRAME)},
    }
    weights = load("example", MemoryReader(files)).weights
    assert weights["quality"].tolist() == pytest.approx([0.125, 0.25]), "of labels x and y, by id"
    assert weights["diversity"].isna().all(), "a checker without scores in the ledger"


def test_metrics_alone_give_the_same_trials() -> None:
    ledger = FakeLedger({"a": {"ce": {0: 0.7, 1: None}, "imp": {0: 0.8, 1: 0.75}}})
    results = load_metrics("a", ledger)
    assert results is not None
    everything = load("a", ledger).trials
    pd.testing.assert_frame_equal(results.trials[list(everything)], everything)
    assert results.weights.empty
    assert results.epochs.empty
