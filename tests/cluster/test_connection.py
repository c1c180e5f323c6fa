"""What is said when a cluster cannot be joined, and when its nodes do not share the store. No Ray is started."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._raylet import AuthenticationMode, get_authentication_mode

from harness.cluster import authentication, connection
from harness.cluster.authentication import MODE, TOKEN, TOKEN_PATH, Answer
from harness.cluster.connection import check_store, check_versions, connect, pass_back
from harness.cluster.nodes import Cluster, Node
from harness.errors import UserError
from harness.store import Store

HEAD = "10.0.0.1:6379"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder without a token, and none in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (MODE, TOKEN, TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)


# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("nowhere", r"no Ray cluster at 'nowhere': expected HOST:PORT or auto"),
        ("http://127.0.0.1:8265", r"address of the dashboard, for `ray job submit`\. Expected HOST:PORT"),
        ("ray://head:10001", r"--address auto, .* `ray job submit -- harness run \.\.\.`"),
        ("127.0.0.1:1", r"no Ray cluster at '.*:1': .*Connection refused.* Is it running"),
        ("127.0.0.1:99999", r"no Ray cluster at '.*:99999'"),
    ],
)
def test_an_address_without_a_cluster_is_a_user_error(address: str, error: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=error):
        connect(address, tmp_path)
    assert MODE not in os.environ
    assert list((tmp_path / "logs").iterdir()) == []


def test_auto_without_a_cluster_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "canonicalize_bootstrap_address", lambda address: None)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(UserError, match=r"none was started on this machine\. Start one .* leave out --address"):
        connect(None, tmp_path)


def test_a_port_with_something_else_behind_it() -> None:
    expected = r"something else listens there \(no answer within 0 seconds\).*8265"
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(UserError, match=expected):
        authentication.ask(f"127.0.0.1:{server.getsockname()[1]}", patience=0.3)


def test_other_versions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"ray_version": ray.__version__, "python_version": platform.python_version()}
    check_versions(HEAD, ours)
    check_versions(HEAD, None)
    with pytest.raises(UserError, match=rf"has Ray 2\.59\.0 and .* Ray {ray.__version__} and Python .* same versions"):
        check_versions(HEAD, ours | {"ray_version": "2.59.0"})
    patch = ours | {"python_version": ".".join([*ours["python_version"].split(".")[:2], "99"])}
    with pytest.raises(UserError, match=r"Python \d+\.\d+\.99; here"):
        check_versions(HEAD, patch)
    monkeypatch.setenv("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "minor")
    check_versions(HEAD, patch)


def test_a_machine_that_is_not_a_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(connection, "open_connection", lambda address: None)
    monkeypatch.setattr(authentication, "ask", lambda head: Answer(nodes=frozenset({"a", "b"})))
    monkeypatch.setattr(connection, "find_node_ids", lambda: ["c"])
    with pytest.raises(
        UserError, match=rf"not a node of the Ray cluster at {HEAD}\. Join it with `ray start --address"
    ):
        connect(HEAD, tmp_path)


# -- tokens ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Sets the token that the cluster wants (None: it wants none); answers as Ray does."""

    def serve(wanted: str | None) -> None:
        def ask(address: str) -> Answer:
            if wanted is None or os.environ[MODE] == "disabled":
                return Answer(refused=wanted is not None)
            return Answer(refused=os.environ.get(TOKEN, "") != wanted)

        monkeypatch.setattr(authentication, "ask", ask)

    return serve


def test_a_cluster_without_tokens_gets_none_even_if_there_is_one(head: Callable[[str | None], None]) -> None:
    head(None)
    with authentication.restored():
        os.environ[TOKEN] = "secret"
        assert not authentication.agree(HEAD).refused
        assert get_authentication_mode() == AuthenticationMode.DISABLED
    assert TOKEN not in os.environ


def test_the_token_is_used_where_the_cluster_wants_it(head: Callable[[str | None], None]) -> None:
    head("secret")
    with authentication.restored():
        os.environ[TOKEN] = "secret"
        assert not authentication.agree(HEAD).refused
        assert get_authentication_mode() == AuthenticationMode.TOKEN
    assert get_authentication_mode() == AuthenticationMode.DISABLED
    assert MODE not in os.environ


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({}, r"wants a token, and none was found here\. Copy ~/\.ray/auth_token of the head"),
        ({TOKEN: "wrong"}, r"refuses the token of RAY_AUTH_TOKEN\. Copy"),
        ({MODE: "disabled", TOKEN: "secret"}, r"wants a token, but RAY_AUTH_MODE=disabled is set here\. Unset it"),
        ({TOKEN_PATH: "missing"}, r"RAY_AUTH_TOKEN_PATH=missing: expected a file with a token"),
    ],
)
def test_errors_say_what_is_wrong_with_the_token(
    variables: dict[str, str], error: str, head: Callable[[str | None], None]
) -> None:
    head("secret")
    with authentication.restored():
        os.environ.update(variables)
        with pytest.raises(UserError, match=error):
            authentication.agree(HEAD)


def test_where_the_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert authentication.token_source() is None
    default = tmp_path / ".ray" / "auth_token"
    default.parent.mkdir()
    default.write_text("one")
    assert authentication.token_source() == str(default)
    (tmp_path / "other").write_text("two")
    monkeypatch.setenv(TOKEN_PATH, str(tmp_path / "other"))
    assert authentication.token_source() == f"{tmp_path / 'other'} (RAY_AUTH_TOKEN_PATH)"
    monkeypatch.setenv(TOKEN, "three")
    assert authentication.token_source() == TOKEN


@pytest.mark.parametrize("variables", [{MODE: "disabled"}, {TOKEN: "mine"}, {TOKEN_PATH: "/mine"}])
def test_a_local_ray_has_a_token_of_its_own_unless_the_user_has_set_one(variables: dict[str, str]) -> None:
    with authentication.restored():
        authentication.protect_local()
        assert os.environ[MODE] == "token"
        assert len(os.environ[TOKEN]) == 64
    with authentication.restored():
        os.environ.update(variables)
        authentication.protect_local()
        assert {name: os.environ[name] for name in (MODE, TOKEN, TOKEN_PATH) if name in os.environ} == variables


# -- the store -------------------------------------------------------------------------------------------------------


class FakeRay:
    """Nodes with disks of their own: what each finds at the path of the store."""

    def __init__(self, roots: dict[str, str | Exception | None]) -> None:
        self.roots = roots
        self.asked: list[str] = []
        strategy = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda id_, soft: (id_, soft))
        self.util = SimpleNamespace(scheduling_strategies=strategy)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": n, "NodeManagerAddress": f"10.0.0.{n}", "Alive": n != "9", "Resources": {}} for n in "1239"]

    def remote(self, **_: object) -> Any:
        def options(scheduling_strategy: tuple[str, bool]) -> Any:
            id_, soft = scheduling_strategy
            assert not soft, "a soft affinity could ask another node"

            def call(root: str, folder: str, node: str) -> tuple[str, object]:
                self.asked.append(id_)
                there = self.roots[id_]
                return node, pass_back(there, folder, node) if isinstance(there, str) else there

            return SimpleNamespace(remote=call)

        return lambda function: SimpleNamespace(options=options)

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        assert num_returns == len(references)
        return [r for r in references if r[1] is not None], [r for r in references if r[1] is None]

    def get(self, reference: tuple[str, object]) -> object:
        if isinstance(reference[1], Exception):
            raise reference[1]
        return reference[1]


def check(roots: dict[str, str | Exception | None], store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Checks a store; the nodes that were asked."""
    fake = FakeRay(roots)
    monkeypatch.setattr(connection, "ray", fake)
    monkeypatch.setattr("harness.cluster.nodes.ray", fake)
    nodes = tuple(Node(id_, f"10.0.0.{id_}", 1, 0, 1) for id_ in roots)
    try:
        check_store(store, Cluster(HEAD, nodes), patience=7)
    finally:
        left = list(Path(store.root).iterdir()) if store.local else []
        assert left == [], "what was written for the check is removed"
    return fake.asked


def test_a_store_that_all_nodes_share_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path / "store")
    assert check({"1": root, "2": root}, Store(root), monkeypatch) == ["1", "2"]
    shared = "memory://shared"
    assert check({"1": shared, "2": shared}, Store(shared), monkeypatch) == ["1", "2"]


def test_another_folder_at_the_same_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, elsewhere = str(tmp_path / "store"), str(tmp_path / "disk_of_the_other_node")
    with pytest.raises(
        UserError, match=r"^node 10\.0\.0\.2 does not see the driver's files .* --store s3://"
    ) as caught:
        check({"1": root, "2": elsewhere}, Store(root), monkeypatch)
    assert "10.0.0.1" not in str(caught.value)


def test_the_errors_of_nodes_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("RayTaskError in pass_back\nModuleNotFoundError: No module named 's3fs'")
    with pytest.raises(UserError) as caught:
        check({"1": "memory://shared", "2": error, "3": None, "9": None}, Store("memory://shared"), monkeypatch)
    assert str(caught.value) == (
        "node 10.0.0.2 failed: ModuleNotFoundError: No module named 's3fs'. node 10.0.0.3 did not answer within 7 "
        "seconds. Every node needs the same harness, and the packages and credentials for this store."
    ), "the node that has left in the meantime is no problem"


def test_a_store_that_the_driver_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/store cannot be written from here: .*Not a directory"):
        check_store(Store(str(tmp_path / "file" / "store")), Cluster(HEAD, ()))


def test_a_local_ray_needs_no_check(tmp_path: Path) -> None:
    check_store(Store(str(tmp_path / "store")), Cluster(None, ()))
    assert not (tmp_path / "store").exists()
