"""Whether a cluster adds nodes by itself."""

from __future__ import annotations

import json
from typing import Any

from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.autoscaler.v2.sdk import get_cluster_status

READ_ONLY = "node_"  # how Ray names the type of a node that no autoscaler started


def is_autoscaling(head: str) -> bool:
    """True if an autoscaler (of Ray's cluster launcher or of KubeRay, version 1 or 2) manages the cluster at ``head``.

    ``ray start --head`` runs Ray's autoscaler as well, but only to show the state of the cluster: each node is then of
    a type of its own, named by its id.
    """
    client = GcsClient(address=head)
    raw = client.internal_kv_get(b"__autoscaling_status", namespace=None)  # version 1
    if raw and any(map(_is_managed, _node_types(json.loads(raw)))):
        return True
    status = get_cluster_status(head)
    if status.stats.autoscaler_version in (None, "0"):  # no autoscaler of version 2 reports
        return False
    return any(_is_managed(node.ray_node_type_name) for node in [*status.active_nodes, *status.idle_nodes])


def _node_types(status: dict[str, Any]) -> set[str]:
    report = status.get("autoscaler_report") or {}
    types = set((report.get("node_type_mapping") or {}).values())  # active_nodes may lack a head that runs no trials
    return types.union(report.get("active_nodes") or {}, report.get("pending_launches") or {})


def _is_managed(node_type: str) -> bool:
    return bool(node_type) and not node_type.startswith(READ_ONLY)
