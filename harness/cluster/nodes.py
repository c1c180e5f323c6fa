"""The nodes of a cluster, and how many trials have room on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import ray

from harness.config.resources import Resources
from harness.errors import UserError

REFRESH_SECONDS = 5.0  # between two looks at the nodes of the cluster
REQUESTED = 16  # trials beyond those that fit, so that an autoscaler sees what to add nodes for


@dataclass(frozen=True)
class Node:
    """A node that is alive.

    Attributes:
        id: in hex digits.
        address: its IP address.
        cpus: CPU cores.
        gpus: GPUs.
        memory_gb: memory that Ray manages, in GB.
    """

    id: str
    address: str
    cpus: float
    gpus: float
    memory_gb: float

    def workers(self, resources: Resources) -> int:
        """Number of workers that fit on the node. A fraction of a GPU is always one of a single GPU."""
        fits = [int(self.cpus // resources.cpus)]
        if resources.gpus:
            fits.append(int(self.gpus) * int(1 / resources.gpus + 1e-9))
        if resources.memory_gb:
            fits.append(int(self.memory_gb / resources.memory_gb + 1e-9))
        return min(fits)


@dataclass(frozen=True)
class Cluster:
    """A running Ray, as it is at the start of a run; nodes may join and leave later.

    Attributes:
        address: HOST:PORT of its head; None for a Ray that ``connect`` started.
        nodes: those that are alive.
        autoscaling: an autoscaler adds nodes on demand.
        recommendation: a line for the user, empty if there is nothing to recommend.
        log: file with Ray's own messages; without any, it is removed at the end.
    """

    address: str | None
    nodes: tuple[Node, ...]
    autoscaling: bool = False
    recommendation: str = ""
    log: Path | None = None

    @property
    def cpus(self) -> float:
        """CPU cores of all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    def slots(self, needs: Collection[Resources], most: int | None = None) -> int:
        """Number of trials that can run at the same time on these nodes; 0 if an autoscaler has to add some.

        A trial with one worker runs on one node; the workers of a group may be spread over several.

        Args:
            needs: of the trials; where they differ, the number is that of the trials that need the least.
            most: no more than this many.

        Raises:
            UserError: no node has room for a trial, and no autoscaler will add one.
        """
        slots = max(self._slots_of(resources) for resources in needs)
        return min(slots, most or slots)

    def _slots_of(self, resources: Resources) -> int:
        slots = _slots(self.nodes, resources)
        if slots < 1 and not self.autoscaling:
            memory = f", {resources.memory_gb:g} GB of memory" if resources.memory_gb else ""
            raise UserError(
                f"a trial needs {resources.workers} x ({resources.cpus} CPUs, {resources.gpus:g} GPUs{memory}), each "
                f"on one node; the cluster has {self.cpus:g} CPUs and {self.gpus:g} GPUs on {len(self.nodes)} "
                f"node{'s' * (len(self.nodes) != 1)}, the largest with {_largest(self.nodes)}. Lower resources in the "
                "experiment, or add nodes."
            )
        return slots


class CurrentSlots:
    """How many trials may run or wait for room now: as many as fit on the nodes that are alive, but at least one.

    Args:
        cluster: as it was at the start.
        needs: of the trials; where they differ, those that need the least count.
        most: no more than this many.
        clock: seconds, monotonic.
    """

    def __init__(
        self, cluster: Cluster, needs: Collection[Resources], most: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._cluster, self._needs, self._most, self._clock = cluster, needs, most, clock
        self._nodes, self._updated = cluster.nodes, clock()

    def __call__(self) -> int:
        """The number now; the cluster is asked again every few seconds."""
        if self._clock() - self._updated > REFRESH_SECONDS:
            self._nodes, self._updated = alive_nodes(), self._clock()
        slots = max(1, *(_slots(self._nodes, resources) for resources in self._needs))
        # a group gives up if its nodes come too late
        if self._cluster.autoscaling and all(resources.workers == 1 for resources in self._needs):
            slots += REQUESTED
        return min(slots, self._most or slots)


def _slots(nodes: tuple[Node, ...], resources: Resources) -> int:
    return sum(node.workers(resources) for node in nodes) // resources.workers


def alive_nodes() -> tuple[Node, ...]:
    """The nodes that are alive now."""
    return tuple(
        Node(
            node["NodeID"], node["NodeManagerAddress"], node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0), node["Resources"].get("memory", 0.0) / 1e9,
        )
        for node in ray.nodes() if node["Alive"]
    )  # fmt: skip


def _largest(nodes: tuple[Node, ...]) -> str:
    node = max(nodes, key=lambda node: (node.gpus, node.cpus))
    return f"{node.cpus:g} CPUs, {node.gpus:g} GPUs and {node.memory_gb:.0f} GB of memory"
