"""How many trials have room on the nodes of a cluster, at the start and later."""

from __future__ import annotations

import pytest

from harness.cluster import nodes as nodes_module
from harness.cluster.nodes import REFRESH_SECONDS, REQUESTED, Cluster, CurrentSlots, Node
from harness.config.resources import Resources
from harness.errors import UserError


def make_nodes(*sizes: tuple[float, float]) -> tuple[Node, ...]:
    """Nodes with these CPUs and GPUs, and 8 GB of memory each."""
    return tuple(Node(f"{i}", f"10.0.0.{i}", cpus, gpus, 8.0) for i, (cpus, gpus) in enumerate(sizes))


@pytest.mark.parametrize(
    ("sizes", "resources", "slots"),
    [
        ([(8, 0)], {}, 8),
        ([(8, 0)], {"cpus": 3}, 2),
        ([(8, 0)], {"cpus": 2, "workers": 2}, 2),
        ([(8, 0)], {"concurrent": 3}, 3),
        ([(2, 0)], {"concurrent": 3}, 2),
        ([(16, 2)], {"gpus": 1}, 2),
        ([(16, 2)], {"gpus": 0.5}, 4),
        ([(16, 1)], {"gpus": 0.1}, 10),  # 1 / 0.1 is a little less than 10 in some roundings
        ([(16, 3)], {"gpus": 0.3}, 9),  # three on each GPU: a trial does not use parts of two
        ([(16, 4)], {"gpus": 1, "workers": 2}, 2),
        ([(3, 4)], {"gpus": 1}, 3),
        ([(8, 0)], {"memory_gb": 3.0}, 2),
        ([(3, 0), (3, 0)], {"cpus": 2}, 2),  # 6 cores, but the third trial would need one of each node
        ([(0, 0), (4, 2)], {"gpus": 1}, 2),  # a head that runs no trials
        ([(1, 0), (1, 0)], {"workers": 2}, 1),  # a group may be spread
    ],
)
def test_slots(sizes: list[tuple[float, float]], resources: dict[str, float], slots: int) -> None:
    needs = Resources(**resources)
    assert Cluster("head:6379", make_nodes(*sizes)).slots({needs}, needs.most) == slots


def test_slots_of_trials_with_different_needs_are_those_of_the_smallest() -> None:
    cluster = Cluster("head:6379", make_nodes((8, 2)))
    assert cluster.slots({Resources(gpus=1), Resources(gpus=0.25), Resources(cpus=4)}) == 8
    with pytest.raises(UserError, match="Lower resources"):
        cluster.slots({Resources(gpus=0.25), Resources(cpus=16)})


def test_trials_that_need_a_machine_alone_come_one_by_one() -> None:
    needs = Resources(alone=True)
    assert Cluster("head:6379", make_nodes((8, 0))).slots({needs}, needs.most) == 1
    needs = Resources(alone=True, gpus=1)
    assert Cluster("head:6379", make_nodes((8, 4))).slots({needs}, needs.most) == 4


@pytest.mark.parametrize("resources", [{"cpus": 2}, {"workers": 3}, {"gpus": 1}, {"memory_gb": 9}])
def test_a_trial_that_fits_on_no_node_is_refused_unless_an_autoscaler_adds_some(resources: dict[str, float]) -> None:
    nodes = make_nodes((1, 0), (1, 0))
    expected = r"the cluster has 2 CPUs and 0 GPUs on 2 nodes, the largest with 1 CPUs, .* Lower resources"
    with pytest.raises(UserError, match=expected):
        Cluster("head:6379", nodes).slots({Resources(**resources)})
    assert Cluster("head:6379", nodes, autoscaling=True).slots({Resources(**resources)}) == 0


def test_slots_follow_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    now, alive = [0.0], [make_nodes((2, 0))]
    monkeypatch.setattr(nodes_module, "alive_nodes", lambda: alive[0])
    cluster, clock = Cluster("head:6379", alive[0]), lambda: now[0]
    needs = {Resources()}
    slots, limited = CurrentSlots(cluster, needs, None, clock), CurrentSlots(cluster, needs, 3, clock)
    assert (slots(), limited()) == (2, 2)
    alive[0] = make_nodes((2, 0), (4, 0))
    assert slots() == 2, "the cluster is not asked at every step of Tune"
    now[0] += REFRESH_SECONDS + 1
    assert (slots(), limited()) == (6, 3)
    alive[0] = make_nodes((0, 0))
    now[0] += REFRESH_SECONDS + 1
    assert slots() == 1, "one trial waits for a node"


def test_an_autoscaler_sees_trials_that_wait() -> None:
    cluster = Cluster("head:6379", make_nodes((0, 0)), autoscaling=True)
    assert CurrentSlots(cluster, {Resources()})() == 1 + REQUESTED
    assert CurrentSlots(cluster, {Resources()}, 4)() == 4
    assert CurrentSlots(cluster, {Resources(workers=2)})() == 1
