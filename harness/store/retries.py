"""Repeats calls to a store that fail for a moment: a broken connection, an overloaded server."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds before the second call, the third, ...: about 40 in all, the restart of a server.
WAITS = (0.5, 2.0, 8.0, 30.0)
#: Too slow, in conflict with another request, too many requests; and every server error (500 and above).
RETRYABLE_STATUS = (408, 409, 429)
#: Operating system errors that the same call would meet again.
PERMANENT = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EMSGSIZE,
    errno.ENAMETOOLONG, errno.ENOTEMPTY,
}  # fmt: skip
PERMANENT_ERRORS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
#: Packages whose exceptions mean a failed connection, unless they carry an HTTP status or are about credentials.
NETWORK_PACKAGES = {"aiohttp", "azure", "botocore", "google", "http", "requests", "urllib3"}


def retried(call: Callable[[], T]) -> T:
    """The result of ``call``, which is repeated after temporary errors. Other errors, and the last one, are raised."""
    for wait in WAITS:
        try:
            return call()
        except Exception as error:
            if not is_temporary(error):
                raise
        time.sleep(wait)
    return call()


def is_temporary(error: Exception) -> bool:
    """True if the same call may succeed a little later: not for missing files, refused permission or a full disk."""
    if isinstance(error, PERMANENT_ERRORS):
        return False
    status = http_status(error)
    if status is not None:
        return status >= 500 or status in RETRYABLE_STATUS
    if isinstance(error, OSError):
        return error.errno not in PERMANENT and not str(error).startswith("Forbidden")  # so gcsfs says it
    kind = type(error)
    return kind.__module__.partition(".")[0] in NETWORK_PACKAGES and "Credential" not in kind.__name__


def http_status(error: Exception) -> int | None:
    """The HTTP status in an exception of aiohttp, gcsfs, azure or botocore, or in its cause."""
    for source in (error, error.__cause__):
        response = getattr(source, "response", None)
        metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        attributes = (getattr(source, name, None) for name in ("status", "status_code", "code"))
        for value in (metadata.get("HTTPStatusCode"), *attributes):
            if str(value).isdigit():
                return int(str(value))
    return None
