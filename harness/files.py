"""Files written in one step."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file in one step: readers see the old content or the new, never a part of it.

    The content goes to a temporary file in the same folder, is flushed to the disk (fsync), and replaces ``path``. The
    folder is created if needed; the file is readable for everyone (mode 644).

    Args:
        path: the file.
        content: its new content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
