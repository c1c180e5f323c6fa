"""What is kept of a failed trial's output. No Ray is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cluster import worker_log
from harness.cluster.worker_log import LINES, WorkerLog, describe_death, tail

DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: ImplicitFunc
\tactor_id: 46bbe5766ec671a1ab4938fd01000000
\tpid: 9822
\tnamespace: 46823b30
\tip: 192.0.2.2
"""
#: Ray's texts for an unexpected end of a worker.
WORKER = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
KILLED = (
    WORKER + "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) "
    "the process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called"
)


def errors(folder: Path, *messages: str) -> str:
    """Tune's file of a trial's failures."""
    file = folder / "error.txt"
    file.write_text("".join(f"Failure # {i + 1} (occurred at noon)\n{text}\n" for i, text in enumerate(messages)))
    return str(file)


@pytest.mark.parametrize(
    ("reason", "how"),
    [
        (KILLED, "killed (SIGKILL, perhaps because its node was out of memory) or crashed"),
        (WORKER + "Worker exits unexpectedly. Worker exits with an exit code 4.", "exit code 4"),
        (WORKER + "Worker exits with an exit code 1. The process receives a SIGTERM.", "ended by SIGTERM"),
        (WORKER + "1 worker(s) were killed due to the node running low on memory. x", "its node ran low on memory"),
        ("The actor died because its node has died. Node Id: 12", "its node was lost"),
        ("The actor is dead because its owner has died. Owner Id: 02", "the process that had started it was lost"),
        ("The actor is dead because it was killed by `ray.kill`.", "The actor is dead because it was killed by `ray"),
    ],
)  # fmt: skip
def test_how_a_process_died(reason: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_log, "_local_files", lambda pid: [])
    line, log = describe_death(errors(tmp_path, "an earlier failure, exit code 9", DIED + reason))
    assert how in line
    assert line.endswith(" (process 9822 on 192.0.2.2)")
    assert reason in log
    assert "worker-*-9822.out" in log


def test_a_crash_is_named_by_the_processs_own_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worker-0a-9822.err").write_text("*** SIGSEGV received at time=1 on cpu 1 ***\n")
    monkeypatch.setattr(worker_log, "_local_files", lambda pid: sorted(tmp_path.glob(f"*-{pid}.*")))
    line, log = describe_death(errors(tmp_path, DIED + KILLED))
    assert line.startswith("crashed with SIGSEGV (")
    assert "SIGSEGV received" in log


def test_a_death_without_a_reason() -> None:
    for file in (None, "/no/such/file"):
        assert describe_death(file) == ("unknown reason", "Ray gives no reason.\n")


def test_the_log_has_what_was_printed_since_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = tmp_path / "worker-1.out", tmp_path / "worker-1.err"
    out.write_text("of an earlier trial\n")
    err.write_text("")
    monkeypatch.setattr(worker_log, "_files", lambda: [out, err])
    monkeypatch.setattr(worker_log, "_node", lambda: "node7 (192.0.2.7)")
    log = WorkerLog()
    with out.open("a") as file:
        file.write("epoch 1\nepoch 2\n")
    text = log.end()
    assert "on node7 (192.0.2.7)" in text
    assert str(err) in text
    assert "-- end of stdout --\nepoch 1\nepoch 2\n" in text
    assert "-- nothing on stderr --" in text
    assert "earlier" not in text


def test_the_tail_of_a_file_is_short(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("".join(f"line {i}\n" for i in range(10_000)))
    lines = tail(file).splitlines()
    assert (len(lines), lines[-1]) == (LINES, "line 9999")
    file.write_text("x" * 100_000)
    assert len(tail(file)) == worker_log.BYTES
    assert tail(file, start=99_990) == "x" * 10
    assert tail(file, start=200_000) == tail(file), "a file that was rotated"
    assert tail(tmp_path / "missing") == ""
