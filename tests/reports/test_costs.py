"""Both accounts, worked by hand: a quality checker Q (a row of the grid or not), a diversity checker D, users."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.phases import Phase
from harness.reports import costs
from harness.reports.grid import requested

from .conftest import Build


def trial(name: str, train: float, score: float = 0.0, requested: bool = True, **more: Any) -> dict[str, Any]:
    row = {
        "trial": name,
        "status": "finished",
        "requested": requested,
        "quality_checker": None,
        "diversity_checker": None,
        "seconds_load": 1.0,
        "seconds_tokenize": 2.0,
        "seconds_warm_up": 100.0,
        "seconds_train": train,
        "seconds_evaluate": 1000.0,
        "seconds_score": score,
    }
    return row | more


def grid(quality_is_requested: bool) -> pd.DataFrame:
    return pd.DataFrame(
        [
            trial("Q", 7.0, score=4.0, requested=quality_is_requested),
            trial("D", 57.0, score=6.0),
            trial("imp", 67.0, quality_checker="Q", diversity_checker="D"),
            trial("dimp", 77.0, quality_checker="Q"),
        ]
    )


def test_stand_alone_charges_every_checker_and_its_scoring() -> None:
    cell_costs = costs.accounts(grid(quality_is_requested=False))
    assert cell_costs.loc["D", "stand_alone"] == 60.0  # its own scoring is charged to those who read it
    assert cell_costs.loc["imp", "stand_alone"] == 70.0 + (10.0 + 4.0) + (60.0 + 6.0)
    assert cell_costs.loc["dimp", "stand_alone"] == 80.0 + (10.0 + 4.0)
    assert cell_costs.loc["imp", "scoring"] == 10.0


def test_marginal_shares_a_checker_that_is_no_row_of_the_grid() -> None:
    cell_costs = costs.accounts(grid(quality_is_requested=False))
    assert cell_costs.loc["imp", "marginal"] == 70.0 + (10.0 + 4.0) / 2 + 6.0
    assert cell_costs.loc["dimp", "marginal"] == 80.0 + (10.0 + 4.0) / 2


def test_all_folds_of_a_checker_are_charged() -> None:
    rows = grid(quality_is_requested=True)
    folds = pd.DataFrame([trial(f"F{k}", 17.0 + k, score=1.0, requested=False) for k in range(3)])
    users = pd.DataFrame([
        trial(name, 67.0, quality_checker="Q", diversity_folds=("F0", "F1", "F2")) for name in ("one", "two")
    ])  # fmt: skip
    every = pd.concat([rows, folds, users], ignore_index=True)
    every["diversity_folds"] = [ids if isinstance(ids, tuple) else () for ids in every["diversity_folds"]]
    cell_costs = costs.accounts(every)
    assert cell_costs.loc["one", "diversity checker"] == 20.0 + 21.0 + 22.0
    assert cell_costs.loc["one", "scoring"] == 4.0 + 3.0
    assert cell_costs.loc["one", "stand_alone"] == 70.0 + 10.0 + 63.0 + 7.0
    assert cell_costs.loc["one", "marginal"] == pytest.approx(70.0 + 4.0 / 4 + (63.0 + 3.0) / 2)
    assert cell_costs.loc["imp", "diversity checker"] == 60.0
    missing = every[every["trial"] != "F1"]
    assert np.isnan(costs.accounts(missing).loc["one", "stand_alone"])


def test_marginal_charges_only_the_scoring_of_a_row_of_the_grid() -> None:
    cell_costs = costs.accounts(grid(quality_is_requested=True))
    assert cell_costs.loc["imp", "marginal"] == 70.0 + 4.0 / 2 + 6.0
    assert cell_costs.loc["dimp", "marginal"] == 80.0 + 4.0 / 2


@pytest.mark.parametrize("quality_is_requested", [True, False])
def test_marginal_costs_add_up_to_the_grid(quality_is_requested: bool) -> None:
    trials = grid(quality_is_requested)
    cell_costs = costs.accounts(trials)
    charged = trials[["seconds_load", "seconds_tokenize", "seconds_train", "seconds_score"]].to_numpy().sum()
    assert cell_costs.loc[trials.loc[trials["requested"], "trial"], "marginal"].sum() == pytest.approx(charged)


def test_marginal_costs_add_up_in_a_larger_grid(build: Build) -> None:
    results = build(fractions=(0.1, 0.5), methods=("ce", "imp", "dimp", "filter"), sources=("generated",))
    # every trial is a checker or is requested; a CE that is no checker would write no scores
    cell_costs = costs.accounts(results.trials)
    ids = results.trials.loc[results.trials["requested"], "trial"]
    phases = [phase.key for phase in (Phase.LOAD, Phase.TOKENIZE, Phase.TRAIN, Phase.SCORE)]
    assert cell_costs.loc[ids, "marginal"].sum() == pytest.approx(results.trials[phases].to_numpy().sum())


def test_a_trial_of_two_variants_is_paid_once() -> None:
    trials = grid(True)
    twice = pd.concat([trials, trials])
    pd.testing.assert_frame_equal(costs.accounts(twice), costs.accounts(trials))
    assert costs.total_seconds(twice) == costs.total_seconds(trials)


def test_the_cost_of_an_unknown_checker_is_unknown() -> None:
    trials = grid(True)
    trials.loc[0, "status"] = "failed"
    cell_costs = costs.accounts(trials)
    assert np.isnan(cell_costs.loc["dimp", "stand_alone"])
    assert np.isnan(cell_costs.loc["dimp", "marginal"])
    assert cell_costs.loc["D", "stand_alone"] == 60.0


def test_any_other_phase_is_charged_and_a_phase_never_timed_is_none() -> None:
    trials = grid(True).assign(seconds_meta_gradient=[np.nan, np.nan, np.nan, 5.0], seconds_classify=np.nan)
    assert costs.accounts(trials).loc["dimp", "own"] == 85.0
    assert Phase.CLASSIFY not in costs.phases(trials)


def test_ratio_is_against_ce_on_the_same_source(build: Build) -> None:
    trials = build(methods=("ce", "dimp"), seeds=(0, 1)).trials
    trials["seconds_train"] = np.where(trials["method"] == "dimp", 30.0, 10.0)
    trials[["seconds_load", "seconds_tokenize"]] = 0.0
    trials["seconds_score"] = 5.0
    cell_costs = costs.with_costs(requested(trials), trials)
    dimp = next(key for key in cell_costs if key.method == "dimp")
    assert costs.ratio(cell_costs, dimp, "stand_alone") == pytest.approx((30 + 10 + 5) / 10)
    assert np.isnan(costs.ratio({dimp: cell_costs[dimp]}, dimp, "stand_alone"))


def test_nothing_finished_costs_nothing() -> None:
    trials = grid(True).assign(status="missing")
    assert costs.accounts(trials).empty
    assert costs.total_seconds(trials) == 0.0


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(5.0, 0.7)], [0]),
        ([(1.0, 0.6), (2.0, 0.7), (3.0, 0.65), (4.0, 0.8)], [0, 1, 3]),
        ([(4.0, 0.8), (1.0, 0.6), (2.0, 0.5)], [1, 0]),
        ([(1.0, 0.6), (1.0, 0.7)], [1]),  # the same cost
        ([(1.0, 0.6), (2.0, 0.6)], [0]),  # the same score
        ([(1.0, 0.6), (1.0, 0.6)], [0, 1]),  # the same point
        ([(1.0, np.nan), (np.nan, 0.9), (3.0, 0.1)], [2]),
    ],
    ids=["none", "one", "dominated", "order", "cost", "score", "equal", "unknown"],
)
def test_pareto_front(points: list[tuple[float, float]], front: list[int]) -> None:
    assert costs.pareto_front([cost for cost, _ in points], [score for _, score in points]) == front
