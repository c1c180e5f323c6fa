"""How many trials fit on a cluster, and whether its nodes see the store."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.cluster import tune
from harness.cluster.tune import Cluster, check_store, connect
from harness.config.resources import Resources
from harness.errors import UserError
from harness.store import Store


@pytest.mark.parametrize(
    ("cluster", "resources", "slots"),
    [
        ((8, 0, 1), {}, 8),
        ((8, 0, 1), {"cpus": 3}, 2),
        ((8, 0, 1), {"cpus": 2, "workers": 2}, 2),
        ((8, 0, 1), {"concurrent": 3}, 3),
        ((2, 0, 1), {"concurrent": 3}, 2),
        ((16, 2, 1), {"gpus": 1}, 2),
        ((16, 2, 1), {"gpus": 0.5}, 4),
        ((16, 1, 1), {"gpus": 0.1}, 10),  # 1 / 0.1 is a little less than 10 in some roundings
        ((16, 3, 1), {"gpus": 0.3}, 10),
        ((16, 4, 1), {"gpus": 1, "workers": 2}, 2),
        ((3, 4, 1), {"gpus": 1}, 3),
    ],
)
def test_slots(cluster: tuple[float, float, int], resources: dict[str, float], slots: int) -> None:
    assert Cluster(None, *cluster).slots(Resources(**resources)) == slots


@pytest.mark.parametrize("resources", [{"cpus": 3}, {"workers": 3}, {"gpus": 1}])
def test_a_trial_that_does_not_fit_is_refused(resources: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"the cluster has 2 CPUs and 0 GPUs\. Lower resources"):
        Cluster(None, 2, 0, 1).slots(Resources(**resources))


class FakeRay:
    """Two nodes; the second has its own disk."""

    def __init__(self, folders: dict[str, bool]) -> None:
        self.folders, self.calls = folders, []
        strategy = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: (node, soft))
        self.util = SimpleNamespace(scheduling_strategies=strategy)

    def nodes(self) -> list[dict[str, object]]:
        return [{"NodeID": n, "NodeManagerAddress": f"10.0.0.{n}", "Alive": True} for n in self.folders] + [
            {"NodeID": "9", "NodeManagerAddress": "10.0.0.9", "Alive": False}
        ]

    def remote(self, **_: object) -> object:
        def options(scheduling_strategy: tuple[str, bool]) -> object:
            node, soft = scheduling_strategy
            assert not soft, "a soft affinity could ask another node"

            def ask(path: str) -> bool:
                self.calls.append((node, Path(path).exists()))
                return self.folders[node]

            return SimpleNamespace(remote=ask)

        return lambda function: SimpleNamespace(options=options)

    def get(self, value: bool) -> bool:
        return value


def test_a_store_that_a_node_does_not_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay({"1": True, "2": False})
    monkeypatch.setattr(tune, "ray", fake)
    with pytest.raises(UserError, match=r"not visible on node 10\.0\.0\.2.*--store s3://"):
        check_store(Store(str(tmp_path / "store")), Cluster("auto", 4, 0, 2))
    assert fake.calls == [("1", True), ("2", True)], "the dead node is not asked; the token existed here"
    assert list((tmp_path / "store").iterdir()) == [], "the token is gone"


def test_a_store_that_all_nodes_see_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay({"1": True, "2": True})
    monkeypatch.setattr(tune, "ray", fake)
    check_store(Store(str(tmp_path / "store")), Cluster("auto", 4, 0, 2))
    assert len(fake.calls) == 2
    assert list((tmp_path / "store").iterdir()) == []


def test_one_node_or_an_object_store_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay({"1": False})
    monkeypatch.setattr(tune, "ray", fake)
    check_store(Store(str(tmp_path / "store")), Cluster(None, 4, 0, 1))
    check_store(Store("memory://bucket"), Cluster("auto", 4, 0, 2))
    assert fake.calls == []


def test_an_address_without_a_cluster_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no Ray cluster at 'nowhere'"):
        connect("nowhere", tmp_path)
