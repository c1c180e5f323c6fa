"""The report of an experiment among the artifacts of its parent run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.errors import UserError
from harness.files import write_atomically
from harness.ledger.entries import Entry, is_local, local_folder

#: The folder of the report in the artifacts of a parent run.
FOLDER = "report"


def attach_report(parent: Entry, files: Mapping[str, bytes], uri: str, home: Path) -> None:
    """Replace the report of an experiment in the ledger; local artifacts are written without loading MLflow.

    Args:
        parent: the parent run of the experiment.
        files: of the report, by their path in its folder.
        uri: of the ledger.
        home: the local folder, where artifacts are looked for if the ledger was moved.

    Raises:
        UserError: the ledger refuses them, or the folder of its artifacts is not on this machine.
    """
    if not is_local(parent.artifacts):
        from harness.ledger.mlflow_ledger import Ledger

        return Ledger(uri, home).replace_files(parent, FOLDER, files)
    artifacts = local_folder(parent.artifacts, home)
    if artifacts is None:
        raise UserError(f"the folder of its artifacts, {parent.artifacts}, is not on this machine")
    target = artifacts / FOLDER
    try:
        for name, content in files.items():
            write_atomically(target / name, content)
        for path in [path for path in target.rglob("*") if path.is_file()]:
            if path.relative_to(target).as_posix() not in files:
                path.unlink()
    except OSError as error:
        raise UserError(f"its artifacts cannot be written: {error}") from None
