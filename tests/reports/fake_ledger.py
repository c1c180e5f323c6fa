"""A ledger in memory, of trials with known scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from harness.ledger.artifacts import History, PlannedTrial, PlanRecord
from harness.ledger.entries import Entry

#: method -> seed -> test accuracy; None for a trial without a result.
Scores = Mapping[str, Mapping[int, float | None]]


class FakeLedger:
    """A ``Reader`` of experiments on one benchmark, the source ``generated``; a trial takes ``seconds``."""

    uri = "sqlite:////fake/mlflow.db"

    def __init__(self, experiments: Mapping[str, Scores], seconds: Mapping[str, float] | None = None) -> None:
        self._plans: dict[str, PlanRecord] = {}
        self._histories: dict[str, History] = {}
        self._entries: dict[str, Entry] = {}
        for name, scores in experiments.items():
            trials = []
            for method, seeds in scores.items():
                for seed, accuracy in seeds.items():
                    id_ = f"{name}-{method}-{seed}"
                    trials.append(
                        PlannedTrial(
                            trial=id_, benchmark="toy", source="generated", method=method, label=method, seed=seed,
                            fraction=None, variants=[], requested=True, quality_checker=None, diversity_checker=None,
                            threads=1,
                        )
                    )  # fmt: skip
                    if accuracy is not None:
                        last = {"epoch": 1.0, "test_accuracy": accuracy, "test_f1": accuracy - 0.1}
                        metrics = {key: value for key, value in last.items() if key != "epoch"}
                        metrics["seconds_train"] = (seconds or {}).get(name, 10.0) + seed
                        self._entries[id_] = Entry(id_, "FINISHED", 0, {"env.device": name}, metrics, epoch=1)
                        self._histories[id_] = History([last])
            self._plans[name] = PlanRecord(name, {}, {"toy": {"labels": ["no", "yes"], "splits": []}}, {}, trials)

    def trials(self, keys: Collection[str] | None = None) -> dict[str, Entry]:
        return self._entries

    def parents(self) -> dict[str, Entry]:
        return {name: Entry(name, "FINISHED", 0, {"harness.experiment": name}) for name in self._plans}

    def fetch(self, wanted: object) -> None:
        pass

    def artifact(self, entry: Entry, path: str) -> bytes | None:
        if path == PlanRecord.FILE:
            return self._plans[entry.run].to_bytes()
        if path == History.FILE:
            return self._histories[entry.run].to_bytes()
        return None
