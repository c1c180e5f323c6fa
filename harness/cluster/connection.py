"""Joins a Ray cluster or starts a local Ray, and checks at the start that all nodes can do what a run needs."""

from __future__ import annotations

import gc
import os
import platform
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray._private.services import canonicalize_bootstrap_address, find_node_ids

from harness.cluster import authentication
from harness.cluster.autoscaler import is_autoscaling
from harness.cluster.head_watch import head_watch, open_connection
from harness.cluster.nodes import Cluster, Node, alive_nodes
from harness.cluster.ray_messages import ray_messages
from harness.errors import StoreError, UserError
from harness.store import Store

#: Turns off Ray Tune's own files (CSV, pickles), which the ledger replaces.
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "30",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # trials that start at the same time
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
CHECK_SECONDS = 120.0  # for all nodes to read and write the store; a node's first process imports everything
_on_disconnect = ExitStack()


def connect(address: str | None, home: Path) -> Cluster:
    """Connects to the cluster at ``address`` (or RAY_ADDRESS), or starts a Ray with the cores of this machine.

    Until ``disconnect``, Ray's own messages go to a file in ``home``/logs and not to the console.

    Args:
        address: HOST:PORT, or ``auto`` for the cluster that this machine belongs to.
        home: folder for the log.

    Raises:
        UserError: no cluster there; it wants a token, or another one; other versions of Ray or Python; this machine is
            not a node of it.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    log = home / "logs" / f"ray-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    _on_disconnect.enter_context(ray_messages(log))
    _on_disconnect.enter_context(authentication.restored())
    _on_disconnect.callback(ray.shutdown)
    # before: a reference to one of Ray's objects that is collected during or after the shutdown ends the process
    _on_disconnect.callback(gc.collect)
    address = address or os.environ.get("RAY_ADDRESS") or None
    try:
        if address is None:
            _start()
            cluster = Cluster(None, alive_nodes(), log=log)
        else:
            head = resolve(address)
            recommendation = _join(head, log)
            cluster = Cluster(head, alive_nodes(), is_autoscaling(head), recommendation, log)
        _on_disconnect.enter_context(head_watch(ray.get_runtime_context().gcs_address, log))
    except BaseException:
        disconnect()
        raise
    return cluster


def disconnect() -> None:
    """Disconnects from the cluster, and ends a Ray that ``connect`` started."""
    _on_disconnect.close()


def resolve(address: str) -> str:
    """HOST:PORT of the head that an address means.

    Raises:
        UserError: it is not an address of a cluster's head, or ``auto`` finds none.
    """
    if address.startswith("ray://"):
        raise UserError(
            f"--address {address}: Ray Tune's events do not pass through the Ray Client. Run on a machine of the "
            "cluster with --address auto, or from outside with `ray job submit -- harness run ...`."
        )
    if address.startswith(("http://", "https://")):
        raise UserError(
            f"{address} is the address of the dashboard, for `ray job submit`. Expected HOST:PORT of the head (port "
            "6379 by default) or auto, from --address or RAY_ADDRESS."
        )
    try:
        head = canonicalize_bootstrap_address(address)
    except ConnectionError:
        head = None
    except ValueError as error:
        raise UserError(f"no Ray cluster at {address!r}: expected HOST:PORT or auto ({error})") from None
    if head is None:
        raise UserError(
            f"no Ray cluster at {address!r}: none was started on this machine. Start one with `ray start --head`, join "
            "one with `ray start --address=HOST:PORT`, or leave out --address and RAY_ADDRESS to use only this machine."
        )
    return str(head)


def _start() -> None:
    authentication.protect_local()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        # "local": without an address Ray would join whatever `ray start` has left on this machine
        ray.init(address="local", num_cpus=cores, include_dashboard=False, object_store_memory=128 * 2**20, **QUIET)
    except Exception as error:  # Ray raises bare ones: of a raylet that needs too long on a busy machine, for one
        raise UserError(f"Ray does not start on this machine: {error}") from None


def _join(head: str, log: Path) -> str:
    """Joins the cluster; a recommendation for the user, or an empty string."""
    try:
        open_connection(head)
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster at {head!r}: {error}. Is it running (`ray start --head`), are host and port right (6379 "
            "by default), and does a firewall let this machine through?"
        ) from None
    answer = authentication.agree(head)
    check_versions(head, answer.versions)
    if answer.nodes and not answer.nodes & set(find_node_ids()):
        raise UserError(
            f"this machine is not a node of the Ray cluster at {head}. Join it with `ray start --address={head} "
            "--num-cpus=0`, or run on a node, or send the run there with `ray job submit -- harness run ...`."
        )
    try:
        ray.init(address=head, **QUIET)
    except Exception as error:
        raise UserError(f"the Ray cluster at {head} cannot be joined: {error}. Details: {log}") from None
    return "" if os.environ[authentication.MODE] == "token" else authentication.RECOMMENDATION


def check_versions(head: str, versions: Mapping[str, str] | None) -> None:
    """Compares a cluster's versions of Ray and Python with ours.

    Raises:
        UserError: they differ; those of Python may differ in the last number with
            RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor.
    """
    ours = {"ray_version": ray.__version__, "python_version": platform.python_version()}
    theirs = {key: (versions or ours)[key] for key in ours}
    minor = os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "patch") == "minor"
    same_python = _python(theirs, minor) == _python(ours, minor)
    if theirs["ray_version"] != ours["ray_version"] or not same_python:
        raise UserError(
            f"the Ray cluster at {head} has Ray {theirs['ray_version']} and Python {theirs['python_version']}; here "
            f"are Ray {ours['ray_version']} and Python {ours['python_version']}. Install the same versions everywhere."
        )


def _python(versions: Mapping[str, str], minor: bool) -> list[str]:
    return versions["python_version"].split(".")[: 2 if minor else 3]


# -- the store ---------------------------------------------------------------------------------------------------------


def check_store(store: Store, cluster: Cluster, patience: float = CHECK_SECONDS) -> None:
    """Passes an artifact from the driver to every node and back; a Ray that ``connect`` started needs no check.

    Args:
        store: that trials will use.
        cluster: with the nodes.
        patience: seconds for all nodes together.

    Raises:
        UserError: the driver or a node cannot use the store, or a node sees another folder at the same path.
    """
    if cluster.address is None:
        return
    folder = f"connection-{uuid.uuid4().hex}"
    try:
        try:
            store.put(folder, "driver", value=np.arange(3))
        except Exception as error:  # every file system has its own errors
            raise UserError(f"the store {store.root} cannot be written from here: {_reason(error)}") from None
        problems = _round_trips(store, cluster, folder, patience)
        if problems:
            raise UserError(" ".join(problems) + f" {_advice(store)}")
    finally:
        with suppress(StoreError):  # a store in which files cannot be deleted is good enough
            store.remove_all(folder)


def _round_trips(store: Store, cluster: Cluster, folder: str, patience: float) -> list[str]:
    """A sentence for every node that cannot use the store."""
    task: Any = ray.remote(num_cpus=0, max_retries=0)(pass_back)
    pin = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    pending = {
        task.options(scheduling_strategy=pin(node.id, soft=False)).remote(store.root, folder, node.id): node
        for node in cluster.nodes
    }
    done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=patience)
    problems = {}
    for reference, node in pending.items():
        problem = f"did not answer within {patience:.0f} seconds"
        if reference in done:
            try:
                problem = ray.get(reference) or _unseen(store, folder, node)
            except Exception as error:
                problem = f"failed: {_reason(error)}"
        if problem:
            problems[node.id] = f"node {node.address} {problem}."
    # a node that has left in the meantime is no problem
    return [problems[node.id] for node in alive_nodes() if node.id in problems] if problems else []


def _unseen(store: Store, folder: str, node: Node) -> str:
    return "" if store.get(folder, node.id) else "writes files into the store that the driver does not see"


def pass_back(root: str, folder: str, node: str) -> str:
    """Reads the driver's artifact on a node and writes one for the driver; what is wrong, or an empty string."""
    store = Store(root)
    if store.get(folder, "driver") is None:
        return f"does not see the driver's files in the store {store.root}"
    store.put(folder, node, value=np.arange(3))
    return ""


def _advice(store: Store) -> str:
    if store.local:
        return (
            "On several nodes the store must be one shared folder or a URL: --store s3://bucket/harness, or "
            "HARNESS_STORE."
        )
    return "Every node needs the same harness, and the packages and credentials for this store."


def _reason(error: Exception) -> str:
    """The last line of an error, which in Ray's errors is the cause."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
