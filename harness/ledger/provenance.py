"""The provenance of results: command, commit, versions, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from harness import __version__

PACKAGES = ("ray", "torch", "transformers", "datasets", "mlflow", "pandas", "numpy", "scikit-learn")


def provenance(description: str, command: str) -> dict[str, str]:
    """What is needed to repeat a run, as tags of its parent run.

    Args:
        description: of the experiment.
        command: how the run was started.
    """
    commit, dirty = _commit()
    return {
        "command": command,
        "commit": commit,
        "dirty": str(dirty).lower(),
        "description": description,
        "hardware": f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
        "version.harness": __version__,
        "version.python": platform.python_version(),
        **{f"version.{name}": version(name) for name in PACKAGES},
    }


def _commit() -> tuple[str, bool]:
    """The commit of this code, and whether there are uncommitted changes; ("", False) outside a git checkout."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        process = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
        return process.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "", False
