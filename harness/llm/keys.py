"""The API key: read from the environment, never shown or written."""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import UserError
from harness.llm.settings import Server

HIDDEN = "[key]"
_SHORTEST = 8  # shorter "keys" are placeholders like EMPTY, and ordinary words


class Key:
    """An API key that printing, formatting and pickling do not reveal.

    Args:
        value: the key, or None if the server needs none.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str | None) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key, for the client only; a placeholder if there is none, because the client requires a value."""
        return self._value or "none"

    def scrub(self, text: str) -> str:
        """Removes the key from a text: some servers repeat it in error messages."""
        return text.replace(self._value, HIDDEN) if self._value and len(self._value) >= _SHORTEST else text

    def __repr__(self) -> str:
        return f"Key({HIDDEN})"

    def __reduce__(self) -> str:
        raise TypeError("an API key must not be pickled")


def read_key(server: Server, environ: Mapping[str, str]) -> Key:
    """Reads the key of a server from the environment.

    Raises:
        UserError: the server's variable is not set or empty.
    """
    variable = server.key_variable
    if variable is None:
        return Key(None)
    value = environ.get(variable, "").strip()
    if not value:
        raise UserError(
            f"the environment variable {variable}, which should contain the API key for {server.base_url}, is not "
            f"set. Set it (export {variable}=...), or name another in server.key_env. "
            "For a local server, set server.base_url."
        )
    return Key(value)
