"""Reads what a report wrote into its folder: the trials with their numbers, the description, the date."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from harness.errors import UserError
from harness.metrics import PRIMARY
from harness.reports.costs import CHECKERS
from harness.reports.load import RENAMED

IDENTITY = ["benchmark", "source", "method", "fraction", "variant", "seed", "trial", "requested", "status"]
PAGE, TRIALS, RUNTIME, EXPERIMENT = "report.html", "trials.csv", "runtime.csv", "experiment.yaml"
#: What to open in a folder, the first of these that it has.
PAGES = (PAGE, "report.md", "README.md", TRIALS)
#: Columns of text; all others hold numbers.
TEXTS = {*IDENTITY, *CHECKERS, "device"} - {"fraction", "seed"}


@dataclass(frozen=True)
class ReportFolder:
    """A folder of results. ``started`` is empty if unknown."""

    path: Path
    description: str
    started: str

    @property
    def page(self) -> str:
        """The file to open, by its name."""
        return next(name for name in PAGES if (self.path / name).is_file())


def is_report(folder: Path) -> bool:
    """Whether ``folder`` holds results."""
    return (folder / TRIALS).is_file() or (folder / PAGE).is_file()


def read_folder(path: Path) -> ReportFolder:
    """The description and date of the results in ``path``; unreadable ones are empty."""
    description = ""
    try:
        experiment = yaml.safe_load((path / EXPERIMENT).read_text(encoding="utf-8"))
        description = " ".join(str(experiment.get("description") or "").split())
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        pass
    started = None
    if (path / "report.md").is_file():
        text = (path / "report.md").read_text(encoding="utf-8", errors="replace")
        started = re.search(r"^- Started: (.*)$", text, re.MULTILINE)
    return ReportFolder(path, description, started[1] if started else "")


def read_trials(folder: Path) -> pd.DataFrame:
    """``Results.trials`` as the report in ``folder`` wrote it, times included where they are known.

    Raises:
        UserError: the folder has no ``trials.csv``, or the file is not one of a report.
    """
    path = folder / TRIALS
    if not path.is_file():
        names = sorted(child.name for child in folder.iterdir()) if folder.is_dir() else []
        content = f"it holds {', '.join(names[:8])}{' and more' if len(names) > 8 else ''}" if names else "it is empty"
        raise UserError(f"no {TRIALS} in {folder}: {content}; expected a folder that `harness run` wrote")
    frame = _read_csv(path)
    expected = [*IDENTITY, *CHECKERS, PRIMARY.column("test")]
    if absent := [name for name in expected if name not in frame]:
        raise UserError(f"{path}: no column {', '.join(absent)}; expected the {TRIALS} of a report")
    runtime = folder / RUNTIME
    if runtime.is_file():
        times = _read_csv(runtime)
        if absent := [name for name in IDENTITY if name not in times]:
            raise UserError(f"{runtime}: no column {', '.join(absent)}; expected the {RUNTIME} of a report")
        frame = frame.merge(times, how="left", on=IDENTITY)
    return _typed(frame, path)


def _read_csv(path: Path) -> pd.DataFrame:
    """All values as texts."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns=RENAMED)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}; expected a CSV file of a report") from None


def _typed(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    columns = {}
    for name in frame:
        try:
            columns[name] = frame[name] if name in TEXTS else pd.to_numeric(frame[name])
        except ValueError as error:
            raise UserError(f"{path}: column {name!r}: {error}; expected numbers") from None
    typed = pd.DataFrame(columns)
    typed["requested"] = typed["requested"] == "True"
    for name in CHECKERS:
        typed[name] = typed[name].where(typed[name] != "", None)
    try:
        return typed.astype({"seed": "int64"})
    except ValueError as error:
        raise UserError(f"{path}: column 'seed': {error}; expected whole numbers") from None
