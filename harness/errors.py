"""Errors shown to users: what was found, where, what was expected, how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave us. The command line prints it without a traceback, exit code 2."""


class TrialError(Exception):
    """A trial that cannot give a result (a NaN loss, say). It is recorded; the other trials go on."""


class RunStoppedError(Exception):
    """A run that ended because `harness stop` asked for it. The command line prints it, exit code 130."""


class StoreError(UserError):
    """A store that cannot be used: a full disk, no connection, refused permission, a damaged file.

    The place has failed, not the trial: other trials would fail there too.
    """


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> UserError:
    """The error for an unknown name, with the nearest known one.

    Args:
        kind: what the name should have been, e.g. ``"method"``.
        name: what was found.
        known: the names that would have been right.
        where: the file or key in which it stands.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    place = f" in {where}" if where else ""
    return UserError(f"unknown {kind} {name!r}{place}.{hint} Known: {', '.join(names) or 'none'}.")
