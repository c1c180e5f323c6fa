"""What is kept of a failed trial: the end of what its process printed, or how the process died."""

from __future__ import annotations

import os
import re
import socket
import sys
from contextlib import suppress
from pathlib import Path

import ray

#: The end of each of the two streams that is kept.
LINES, BYTES = 200, 32_000


class WorkerLog:
    """The output of this process since the object was made, read from the files into which Ray directs it.

    Nothing is redirected: Ray's files stay as they are, and output of native code and child processes is in them too.
    Outside a Ray worker there are no such files, and nothing is read.
    """

    def __init__(self) -> None:
        self._starts = {path: path.stat().st_size for path in _files() if path.is_file()}

    def end(self) -> str:
        """Where the process ran, the names of Ray's files, and the last lines of both streams."""
        sys.stdout.flush()
        sys.stderr.flush()
        lines = [f"process {os.getpid()} on {_node()}"]
        lines += [f"Ray's log: {path}" for path in self._starts]
        for path, start in self._starts.items():
            kind = {".out": "stdout", ".err": "stderr"}.get(path.suffix, path.name)
            text = tail(path, start)
            lines += ["", f"-- end of {kind} --", text] if text else ["", f"-- nothing on {kind} --"]
        return "\n".join(lines) + "\n"


def tail(path: Path, start: int = 0) -> str:
    """The last lines of a file after a position in it; all of the file's end if it has become shorter."""
    with suppress(OSError), path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(start if start <= size else 0, size - BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-LINES:])
    return ""


def describe_death(error_file: str | None) -> tuple[str, str]:
    """How a trial's process died: in a line, and as a log with Ray's whole message.

    The log ends with the output of the process if it ran on this machine.

    Args:
        error_file: the file in which Tune keeps what Ray said of every failure of the trial; the last one counts.
    """
    message = ""
    with suppress(OSError):
        _, _, last = Path(error_file or "").read_text(errors="replace").rpartition("Failure # ")
        message = last.partition("\n")[2].strip()
    pid, node = (re.search(rf"^\s*{name}: (\S+)", message, re.MULTILINE) for name in ("pid", "ip"))
    lines = [message or "Ray gives no reason."]
    if pid:
        lines += ["", f"Ray's log on that node: worker-*-{pid[1]}.out and .err in the folder logs of Ray's session"]
        for path in _local_files(pid[1]):
            lines += ["", f"-- end of {path} --", tail(path)]
    log = "\n".join(lines) + "\n"
    place = f" (process {pid[1]} on {node[1]})" if pid and node else ""
    return f"{_cause(message, log)}{place}", log


def _cause(message: str, log: str) -> str:
    """The reason in Ray's message, or in the end of the process's output, in one line."""
    if "low on memory" in message or "OUT_OF_MEMORY" in message:
        return "ended by Ray because its node ran low on memory"
    if "node has died" in message or "preempted" in message:
        return "its node was lost"
    if "owner has died" in message:  # the processes of a group belong to the one that started them
        return "the process that had started it was lost"
    if crash := re.search(r"\*\*\* (SIG\w+) received", log):
        return f"crashed with {crash[1]}"
    if code := re.search(r"exit code (\d+)", message):
        return "ended by SIGTERM" if "a SIGTERM" in message else f"exit code {code[1]}"
    if "connection error" in message:
        return "killed (SIGKILL, perhaps because its node was out of memory) or crashed"
    return message.splitlines()[-1][:200] if message else "unknown reason"


def _local_files(pid: str) -> list[Path]:
    """Ray's files of a process of this machine; none if it ran elsewhere."""
    node = ray._private.worker._global_node
    return sorted(Path(node.get_session_dir_path(), "logs").glob(f"worker-*-{pid}.*")) if node else []


def _files() -> list[Path]:
    """The files into which Ray directs stdout and stderr of this process."""
    worker = ray._private.worker.global_worker
    return [Path(path) for path in (worker.get_out_file_path(), worker.get_err_file_path()) if path]


def _node() -> str:
    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"
