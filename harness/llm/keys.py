"""The API key: read from the environment, shown nowhere."""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import UserError
from harness.llm.settings import Server

HIDDEN = "[key]"
_SHORTEST = 8  # shorter "keys" are placeholders like EMPTY, and ordinary words


class Key:
    """A key that hides itself: printing, formatting and pickling do not give it away.

    Args:
        value: the key, or None where the server needs none.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str | None) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key, for the client alone. A server without keys gets a placeholder, which the client demands."""
        return self._value or "none"

    def scrub(self, text: str) -> str:
        """``text`` with the key replaced: servers repeat it in error messages."""
        return text.replace(self._value, HIDDEN) if self._value and len(self._value) >= _SHORTEST else text

    def __repr__(self) -> str:
        return f"Key({HIDDEN})"

    def __reduce__(self) -> str:
        raise TypeError("a key is not pickled")


def read_key(server: Server, environ: Mapping[str, str]) -> Key:
    """The key of a server.

    Raises:
        UserError: the variable that should hold it is not set or empty.
    """
    variable = server.key_variable
    if variable is None:
        return Key(None)
    value = environ.get(variable, "").strip()
    if not value:
        raise UserError(
            f"the environment variable {variable}, which should hold the API key for {server.base_url}, is not set. "
            f"Set it (export {variable}=...), or name another by --key-env; a local server is chosen by --base-url."
        )
    return Key(value)
