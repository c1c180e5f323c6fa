"""Two experiments with known scores: what got better, what is the same, what only one of them has."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from harness.metrics import ACCURACY, MACRO_F1
from harness.reports.comparison import CellComparison, Comparison, compare_trials
from harness.reports.load import load_scores
from harness.reports.resampling import ResampledScores, TestPredictions, on_the_same_rows

from .fake_ledger import FakeLedger, Scores

BASE = {0: 0.70, 1: 0.71, 2: 0.72, 3: 0.73}


def shifted(*points: float) -> dict[int, float | None]:
    """The scores of ``BASE``, with a gain in points for each seed."""
    return {seed: score + gain / 100 for (seed, score), gain in zip(BASE.items(), points, strict=False)}


FIRST: Scores = {name: dict(BASE) for name in ("ce", "focal", "imp", "dimp", "prior", "filter", "rho")}
SECOND: Scores = {
    "ce": dict(BASE),
    "focal": shifted(-3.0, -3.1, -2.9, -3.0),
    "imp": shifted(4.0, 5.0, 6.0, 5.0),
    "dimp": shifted(8.0, -9.0, 7.0, -5.0),
    "prior": {0: 0.75, 7: 0.80},
    "rho": {8: 0.90, 9: None},
    "gce": dict(BASE),
}


def trials(name: str, ledger: FakeLedger) -> pd.DataFrame:
    return load_scores(name, ledger).trials


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    ledger = FakeLedger({"a": FIRST, "b": SECOND}, {"a": 10.0, "b": 20.0})
    return compare_trials(trials("a", ledger), trials("b", ledger), ACCURACY)


@pytest.fixture(scope="module")
def cells(comparison: Comparison) -> dict[str, CellComparison]:
    return {cell.key.method: cell for cell in comparison.cells}


def test_every_cell_has_its_outcome(cells: dict[str, CellComparison]) -> None:
    assert {method: cell.outcome for method, cell in cells.items()} == {
        "ce": "same", "focal": "worse", "imp": "better", "dimp": "unclear", "prior": "untested", "rho": "unpaired",
    }  # fmt: skip


def test_differences_are_of_shared_seeds_worked_by_hand(cells: dict[str, CellComparison]) -> None:
    """Gains of 4, 5, 6, 5: mean 5, standard error √(2/3)/2 = 0.408, t(0.975, 3) = 3.182, half width 1.299."""
    imp = cells["imp"].score
    assert (imp.n, imp.wins) == (4, 4)
    assert 100 * imp.mean == pytest.approx(5.0)
    assert [100 * end for end in imp.interval] == pytest.approx([3.701, 6.299], abs=1e-3)
    # t = 12.25 with 3 degrees of freedom: p = 0.001173; the second of three tests, by Holm, counts twice
    assert imp.p == pytest.approx(2 * 0.001173, rel=1e-3)
    assert (cells["prior"].score.n, cells["prior"].second.n) == (1, 2), "seed 7 is in one of them only"
    assert cells["rho"].score.n == 0


def test_times_are_compared_as_ratios(cells: dict[str, CellComparison]) -> None:
    """Seconds 10, 11, 12, 13 against 20, 21, 22, 23."""
    ce = cells["ce"]
    expected = float(np.exp(np.mean(np.log(np.array([20, 21, 22, 23]) / np.array([10, 11, 12, 13])))))
    assert ce.ratio[0] == pytest.approx(expected)
    assert ce.ratio[1] < expected < ce.ratio[2]
    assert ce.seconds == (11.5, 21.5)
    assert ce.speed == "slower"
    assert cells["rho"].speed == "unpaired"


def test_the_other_direction_is_faster_and_mirrored(cells: dict[str, CellComparison]) -> None:
    ledger = FakeLedger({"a": FIRST, "b": SECOND}, {"a": 10.0, "b": 20.0})
    back = compare_trials(trials("b", ledger), trials("a", ledger), ACCURACY)
    mirrored = {cell.key.method: cell for cell in back.cells}
    assert mirrored["ce"].speed == "faster"
    assert mirrored["imp"].outcome == "worse"
    assert mirrored["imp"].score.mean == pytest.approx(-cells["imp"].score.mean)


def test_cells_of_one_experiment_alone_are_listed(comparison: Comparison) -> None:
    assert [key.method for key in comparison.only_first] == ["filter"]
    assert [key.method for key in comparison.only_second] == ["gce"]
    assert comparison.devices == (("a, 1 thread",), ("b, 1 thread",))


def test_another_metric(cells: dict[str, CellComparison]) -> None:
    ledger = FakeLedger({"a": FIRST, "b": SECOND})
    by_f1 = compare_trials(trials("a", ledger), trials("b", ledger), MACRO_F1)
    (imp,) = [cell for cell in by_f1.cells if cell.key.method == "imp"]
    assert imp.first.mean == pytest.approx(cells["imp"].first.mean - 0.1)


def test_json_has_no_value_that_json_lacks(comparison: Comparison) -> None:
    content = comparison.as_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == json.loads(json.dumps(content))
    rho = next(row for row in content["cells"] if row["method"] == "rho")
    assert rho["difference"]["mean"] is None
    assert (rho["outcome"], rho["first"]["n"], rho["second"]["n"]) == ("unpaired", 4, 1)
    assert content["only_first"] == [
        {"benchmark": "toy", "source": "generated", "method": "filter", "fraction": None, "variant": ""}
    ]


def test_nothing_finished_is_nothing_to_compare() -> None:
    ledger = FakeLedger({"a": {"ce": {0: None, 1: None}}})
    planned = trials("a", ledger)
    assert set(planned["status"]) == {"missing"}
    columns = {"seconds_train": np.nan, "test_accuracy": np.nan}
    (cell,) = compare_trials(planned.assign(**columns), planned.assign(**columns), ACCURACY).cells
    assert (cell.outcome, cell.speed, cell.score.n) == ("unpaired", "unpaired", 0)


# -- test rows -------------------------------------------------------------------------------------------------------

ROWS = 40


def predictions(name: str, right: list[int], ids: str = "row-") -> dict[str, TestPredictions]:
    """Of 40 rows, the first ``right[seed]`` are predicted right."""
    predicted = {f"{name}-ce-{seed}": (np.arange(ROWS) >= count).astype(np.int64) for seed, count in enumerate(right)}
    return {"toy": TestPredictions(np.zeros(ROWS, np.int64), 2, predicted, tuple(f"{ids}{i}" for i in range(ROWS)))}


def test_few_test_rows_leave_a_gain_unclear_however_alike_the_seeds_are() -> None:
    """Gains of 2, 3, 2, 3 of 40 rows: p is small over seeds, but other test rows could give another sign."""
    before, after = [20, 20, 20, 20], [22, 23, 22, 23]
    scores = ({"ce": {seed: count / ROWS for seed, count in enumerate(counts)}} for counts in (before, after))
    ledger = FakeLedger(dict(zip("ab", scores, strict=True)))
    frames = trials("a", ledger), trials("b", ledger)
    (alone,) = compare_trials(*frames, ACCURACY).cells
    assert alone.outcome == "better"
    assert not alone.score.rows_known

    both = on_the_same_rows(predictions("a", before), predictions("b", after))
    (cell,) = compare_trials(*frames, ACCURACY, ResampledScores(both)).cells
    assert cell.score.rows_known
    assert cell.score.interval == alone.score.interval
    # the rows give the mean a standard error of about sqrt(2.5) / 40 = 0.040
    low, high = cell.score.hierarchical
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(2.5) / ROWS, rel=0.15)
    assert low < 0 < high
    assert cell.outcome == "unclear"

    other = on_the_same_rows(predictions("a", before), predictions("b", after, ids="other-"))
    (unknown,) = compare_trials(*frames, ACCURACY, ResampledScores(other)).cells
    assert not unknown.score.rows_known
