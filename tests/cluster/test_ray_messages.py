"""Ray's messages go to a file, ours to the console."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray._private.worker

from harness.cluster.ray_messages import ray_messages

SCRIPT = """
import logging, os, sys
from pathlib import Path
from harness.cluster.ray_messages import ray_messages
with ray_messages(Path(sys.argv[1])):
    os.write(2, b"native\\n")
    print("ours", file=sys.stderr)
    logging.getLogger("anyone").warning("logged")
    os.system("echo from a child >&2")
print("after", file=sys.stderr)
os.write(2, b"native again\\n")
"""


def test_pythons_stderr_stays_on_the_console(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "ray.log"
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(log)], capture_output=True, text=True, check=True)
    assert done.stderr == "ours\nlogged\nafter\nnative again\n"
    assert log.read_text() == "native\nfrom a child\n"


def test_what_ray_prints_about_dead_nodes_goes_to_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with ray_messages(tmp_path / "ray.log"):
        ray._private.worker.print_to_stdstream(
            {"lines": ["Raylet is terminated."], "pid": "raylet", "is_err": False}, ignore_prefix=False
        )
    assert (tmp_path / "ray.log").read_text() == "(raylet) Raylet is terminated.\n"
    assert capfd.readouterr() == ("", "")
    ray._private.worker.print_to_stdstream({"lines": ["later"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    assert "later" in capfd.readouterr().out


def test_an_empty_file_is_removed_and_errors_restore_the_console(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyError), ray_messages(tmp_path / "ray.log"):
        raise KeyError
    os.write(2, b"back\n")
    assert capfd.readouterr().err == "back\n"
    assert list(tmp_path.iterdir()) == []
