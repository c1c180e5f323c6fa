"""The cost of a method, on two accounts.

Stand-alone: the trial and all of its checkers, as if this method were run alone.
Marginal: each checker is charged once in the grid. A checker that is also a requested trial costs only its scoring; the
cost of any other is shared equally by the trials that use it. The marginal costs sum to the cost of the whole grid.

Neither account charges evaluation, device warm-up and checkpoints, which belong to the run, not to the method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness.phases import Phase
from harness.reports.grid import Cells, Key, baseline_of, by_seed, finished

#: Column with the ids of the checkers of all folds, which together are a diversity checker.
FOLDS = "diversity_folds"
#: column with the checker's id -> column with its seconds
CHECKERS = {"quality_checker": "quality checker", "diversity_checker": "diversity checker"}
NOT_CHARGED = (Phase.EVALUATE, Phase.WARM_UP, Phase.CHECKPOINT)


def phases(trials: pd.DataFrame) -> list[Phase]:
    """The phases timed in at least one trial."""
    return [phase for phase in Phase if phase.key in trials and trials[phase.key].notna().any()]


def own_phases(trials: pd.DataFrame) -> list[Phase]:
    """Phases charged to the trial itself; scoring is charged to the trials that use the scores."""
    return [phase for phase in phases(trials) if phase not in (*NOT_CHARGED, Phase.SCORE)]


def accounts(trials: pd.DataFrame) -> pd.DataFrame:
    """The cost of every finished trial, in seconds, indexed by trial id.

    Columns: ``own``; ``quality checker`` and ``diversity checker`` (the checker's own seconds); ``scoring`` (by all
    of its checkers); ``stand_alone`` (the sum of these); ``marginal``. A cost is NaN if that of a checker is unknown.
    """
    done = _once(trials).set_index("trial")
    own = done[[phase.key for phase in own_phases(trials)]].sum(axis=1, min_count=1)
    score = done[Phase.SCORE.key].fillna(0.0) if Phase.SCORE.key in done else own * 0.0
    users = _users(done)
    # the marginal cost of a checker for each trial that uses it
    share = (score + own.where(~done["requested"].astype(bool), 0.0)) / users.reindex(done.index)
    out = pd.DataFrame({"own": own})
    ids = {role: _checker_ids(done, role) for role in CHECKERS}
    for role, name in CHECKERS.items():
        out[name] = _checker_cost(ids[role], own)
    out["scoring"] = sum(_checker_cost(ids[role], score) for role in CHECKERS)
    out["stand_alone"] = out[["own", *CHECKERS.values(), "scoring"]].sum(axis=1, skipna=False)
    out["marginal"] = own + sum(_checker_cost(ids[role], share) for role in CHECKERS)
    return out


def with_costs(cells: Cells, trials: pd.DataFrame) -> Cells:
    """The cells with the columns of ``accounts`` added; NaN for trials that have not finished."""
    costs = accounts(trials)
    return {key: rows.merge(costs, left_on="trial", right_index=True, how="left") for key, rows in cells.items()}


def ratio(costs: Cells, key: Key, account: str) -> float:
    """Cost over that of CE on the same source, both averaged over their common seeds."""
    base = baseline_of(key, costs)
    if base is None:
        return float("nan")
    pairs = pd.concat([by_seed(costs[key], account), by_seed(costs[base], account)], axis=1, join="inner")
    return float(pairs.iloc[:, 0].mean() / pairs.iloc[:, 1].mean()) if len(pairs) else float("nan")


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """The positions of the points on the Pareto front, by ascending cost.

    A point is on the front if no other costs at most as much and scores at least as high, one of the two strictly.
    Equal points are on it together. Points with a NaN are never on it.
    """
    known = [i for i in range(len(costs)) if not math.isnan(costs[i] + scores[i])]
    front: list[int] = []
    for i in sorted(known, key=lambda i: (costs[i], -scores[i])):
        equal = bool(front) and (costs[i], scores[i]) == (costs[front[-1]], scores[front[-1]])
        if not front or scores[i] > scores[front[-1]] or equal:
            front.append(i)
    return front


def total_seconds(trials: pd.DataFrame) -> float:
    """All phases of all finished trials, each trial once."""
    return float(_once(trials)[[phase.key for phase in phases(trials)]].to_numpy(dtype=float, na_value=0.0).sum())


def _once(trials: pd.DataFrame) -> pd.DataFrame:
    """The finished trials, each once even if it belongs to several variants."""
    return finished(trials).drop_duplicates("trial")


def _users(done: pd.DataFrame) -> pd.Series[int]:
    """Number of finished, requested trials that use each checker's scores."""
    users = done[done["requested"].astype(bool)]
    ids: pd.Series[Any] = pd.concat([_checker_ids(users, role).explode().dropna() for role in CHECKERS])
    return ids.value_counts()


def _checker_ids(trials: pd.DataFrame, role: str) -> pd.Series[Any]:
    """The ids of the checkers that have a role for each trial, as tuples."""
    single = [() if pd.isna(id_) else (id_,) for id_ in trials[role]]
    folds = trials[FOLDS] if role == "diversity_checker" and FOLDS in trials else [()] * len(trials)
    return pd.Series([(*one, *more) for one, more in zip(single, folds, strict=True)], trials.index, dtype=object)


def _checker_cost(ids: pd.Series[Any], cost: pd.Series[float]) -> pd.Series[float]:
    """The sum of ``cost`` over the checkers in ``ids``: zero without a checker, NaN with an unknown one."""
    known = cost.to_dict()
    return ids.map(lambda checkers: float(sum(known.get(id_, float("nan")) for id_ in checkers))).astype(float)
