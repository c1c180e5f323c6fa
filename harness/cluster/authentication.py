"""Ray's token authentication: whether a cluster wants a token, and where ours comes from.

Ray 2.60 reads RAY_AUTH_MODE (``token`` or ``disabled``), and the token from RAY_AUTH_TOKEN, else from the file that
RAY_AUTH_TOKEN_PATH names, else from ``~/.ray/auth_token``. Without RAY_AUTH_MODE its parts disagree: ``ray start
--head`` demands a token if one is there, ``ray start --address`` and ``ray.init(HOST:PORT)`` never send it, and a local
``ray.init()`` writes ``~/.ray/auth_token``, so that the next ``ray start --head`` demands it. A driver that sends a
token to a cluster without authentication is no better off: it refuses the calls of the cluster's workers. Hence both
sides have to agree, and this module finds out what the cluster does before the driver joins it.
"""

from __future__ import annotations

import os
import queue
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ray._common.usage.usage_lib import get_cluster_metadata
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from harness.errors import UserError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
PATIENCE = 15.0  # seconds until a server that does not answer counts as none; Ray's own limit is 40
COPY = (
    "Copy ~/.ray/auth_token of the head node to this machine, or set RAY_AUTH_TOKEN to what `ray get-auth-token` "
    "prints there."
)
RECOMMENDATION = (
    "The Ray cluster accepts connections without a token: anyone on its network can run code there. To change that, "
    "run `ray get-auth-token --generate`, copy ~/.ray/auth_token to all nodes, and start them with RAY_AUTH_MODE=token."
)


@dataclass(frozen=True)
class Answer:
    """What a cluster said.

    Attributes:
        refused: it wants a token, or another one.
        versions: ``ray_version`` and ``python_version`` of the cluster; empty if it does not tell.
        nodes: ids of its living nodes, in hex digits.
    """

    refused: bool = False
    versions: Mapping[str, str] | None = None
    nodes: frozenset[str] = frozenset()


@contextmanager
def restored() -> Iterator[None]:
    """Restores the settings of authentication at the end."""
    before = {name: os.environ.get(name) for name in (MODE, TOKEN, TOKEN_PATH)}
    try:
        yield
    finally:
        use(**before)


def use(**variables: str | None) -> None:
    """Sets environment variables (None removes one) and lets Ray read them again."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def protect_local() -> None:
    """Gives a Ray that this process starts a token of its own, which is written nowhere.

    What the user has set counts; a token file does not: a Ray for one run neither needs nor writes it.
    """
    if os.environ.get(MODE, "token") == "token" and not (os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH)):
        use(**{MODE: "token", TOKEN: secrets.token_hex(32)})


def agree(address: str) -> Answer:
    """Turns token authentication on or off in this process, as the cluster at ``address`` has it.

    Raises:
        UserError: no cluster answers; it wants a token and there is none; or it refuses the token.
    """
    mode = os.environ.get(MODE)
    use(**{MODE: "disabled"})
    answer = ask(address)
    if not answer.refused:
        return answer
    if mode is not None and mode != "token":
        raise UserError(
            f"the Ray cluster at {address} wants a token, but RAY_AUTH_MODE={mode} is set here. Unset it, or set it to "
            "token."
        )
    source = token_source()
    if source is None:
        raise UserError(f"the Ray cluster at {address} wants a token, and none was found here. {COPY}")
    use(**{MODE: "token"})
    answer = ask(address)
    if answer.refused:
        raise UserError(f"the Ray cluster at {address} refuses the token of {source}. {COPY}")
    return answer


def token_source() -> str | None:
    """Where Ray will read the token; None if there is none.

    Raises:
        UserError: RAY_AUTH_TOKEN_PATH names a file that is empty or cannot be read (Ray would abort the process).
    """
    if os.environ.get(TOKEN):
        return TOKEN
    if path := os.environ.get(TOKEN_PATH):
        if not _has_text(Path(path)):
            raise UserError(f"RAY_AUTH_TOKEN_PATH={path}: expected a file with a token, found none that can be read")
        return f"{path} (RAY_AUTH_TOKEN_PATH)"
    default = Path.home() / ".ray" / "auth_token"
    return str(default) if _has_text(default) else None


def ask(address: str, patience: float = PATIENCE) -> Answer:
    """Asks the head of a cluster who it is.

    Args:
        address: HOST:PORT of its GCS.
        patience: seconds to wait.

    Raises:
        UserError: what listens there is not the head of a Ray cluster.
    """
    answers: queue.Queue[Answer | Exception] = queue.Queue()

    def wait() -> None:
        try:
            answers.put(_ask(address))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=wait, daemon=True).start()
    try:
        answer = answers.get(timeout=patience)
    except queue.Empty:
        answer = TimeoutError(f"no answer within {patience:.0f} seconds")
    if isinstance(answer, Exception):
        raise UserError(
            f"no Ray cluster at {address!r}: something else listens there ({_first_line(answer)}). --address takes the "
            "port that `ray start --head` prints, 6379 by default; the Ray Client's port (10001) needs ray:// before "
            "it, and the dashboard's (8265) is for `ray job submit`."
        )
    return answer


def _ask(address: str) -> Answer:
    try:
        client = GcsClient(address=address)
        versions = get_cluster_metadata(client)
        return Answer(versions=versions, nodes=frozenset(id_.hex() for id_ in client.get_all_node_info()))
    except AuthenticationError:
        return Answer(refused=True)


def _has_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
