"""Which clusters add nodes by themselves, by what Ray 2.60 reports of them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cluster import autoscaler
from harness.cluster.autoscaler import is_autoscaling

SHOWN = {"active_nodes": {"node_20d1": 1}, "pending_launches": {}, "node_type_mapping": {"20d1": "node_20d1"}}
HEAD_ALONE = {"active_nodes": {}, "pending_launches": {}, "node_type_mapping": {"ffff": "ray.head.default"}}


@pytest.mark.parametrize(
    ("report", "version", "types", "expected"),
    [
        (SHOWN, "0", ["node_20d1"], False),  # `ray start --head`
        (HEAD_ALONE, "0", ["node_ffff"], True),  # `ray start --head --autoscaling-config`, before any other node
        ({"active_nodes": {"ray.head.default": 1, "workers": 2}}, "0", [], True),
        (None, "0", ["workers"], False),  # KubeRay names the groups of a cluster of fixed size as well
        (None, "7", ["headgroup", "workers"], True),
        (None, "7", ["node_20d1"], False),  # version 2, only to show the state
    ],
)
def test_is_autoscaling(
    report: dict[str, Any] | None, version: str, types: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = None if report is None else json.dumps({"autoscaler_report": report}).encode()
    client = SimpleNamespace(internal_kv_get=lambda key, namespace: raw)
    nodes = [SimpleNamespace(ray_node_type_name=name) for name in types]
    status = SimpleNamespace(stats=SimpleNamespace(autoscaler_version=version), active_nodes=nodes, idle_nodes=[])
    monkeypatch.setattr(autoscaler, "GcsClient", lambda address: client)
    monkeypatch.setattr(autoscaler, "get_cluster_status", lambda head: status)
    assert is_autoscaling("head:6379") is expected
