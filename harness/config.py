"""An experiment and its parts: typed, frozen, unknown keys refused.

The YAML of an experiment is read here and nowhere else. Every field has a default that behaves, except those
that say what is to be compared.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from harness.errors import UserError, unknown
from harness.explain import explain
from harness.rows import Columns, CorruptedPart, PoolPart, Positive, SplitOrigin
from harness.rows import RowSource as RowSource
from harness.rows import Strict as Strict

SPLITS = ("real_small", "generated", "real_large", "noisy", "validation", "test")
TRAINING_SPLITS = SPLITS[:4]
#: source -> the splits whose rows a trial trains on
SOURCES: dict[str, tuple[str, ...]] = {name: (name,) for name in TRAINING_SPLITS} | {
    "both": ("real_small", "generated")
}

Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Model = TypeVar("Model", bound=BaseModel)


class Benchmark(Strict):
    """A classification task: label names, one or two text columns, and its splits."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    description: str = ""
    licence: str = ""
    origin: str = ""
    """Where the data comes from, for people."""
    labels: tuple[str, ...] = Field(min_length=2)
    """The label names, in the order of the class indices."""
    text: Columns = "text"
    label: str = "label"
    pools: dict[str, RowSource] = {}
    splits: dict[str, SplitOrigin]
    digests: dict[str, str] = {}
    """Expected digest of splits (a prefix is enough): a changed file is refused."""
    near_duplicate: float | None = Field(default=0.8, gt=0.0, le=1.0)
    """Jaccard similarity of word bigrams from which two rows of a pool count as near-duplicates."""
    limits: dict[str, Positive] = {}
    """At most so many rows of a split, stratified; set by an experiment's ``rows``."""

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) != len(labels):
            raise ValueError(f"label names must be distinct, got {list(labels)}")
        return labels

    @model_validator(mode="after")
    def _known_names(self) -> Benchmark:
        for key in (*self.splits, *self.limits, *self.digests):
            if key not in SPLITS:
                raise ValueError(str(unknown("split", key, SPLITS)))
        for name in ("real_small", "validation", "test"):
            if name not in self.splits:
                raise ValueError(f"the split {name!r} is missing; found {sorted(self.splits)}")
        rests: dict[str, str] = {}
        for name, part in self.splits.items():
            if isinstance(part, PoolPart):
                if part.pool not in self.pools:
                    raise ValueError(str(unknown("pool", part.pool, self.pools, f"splits.{name}")))
                if part.rows is None and rests.setdefault(part.pool, name) != name:
                    raise ValueError(f"{rests[part.pool]} and {name} both take the rest of pool {part.pool!r}")
            elif isinstance(part, CorruptedPart):
                self._check_corrupted(name, part)
        return self

    def _check_corrupted(self, name: str, part: CorruptedPart) -> None:
        if name not in TRAINING_SPLITS:
            raise ValueError(f"splits.{name}: rows may be spoiled for training only, not for evaluation")
        if isinstance(self.splits.get(part.of, part), CorruptedPart):
            found = "is spoiled itself" if part.of in self.splits else "is not there"
            raise ValueError(f"splits.{name}: takes the rows of {part.of}, which {found}")
        for label in {*part.confusion, *(other for targets in part.confusion.values() for other in targets)}:
            if label not in self.labels:
                raise ValueError(str(unknown("label", label, self.labels, f"splits.{name}.confusion")))


class MethodChoice(Strict):
    """A method's name and its settings, e.g. ``{name: focal, gamma: 1}``."""

    name: str
    settings: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict):
            return value
        if "name" not in value:
            raise ValueError(f"a method needs a name, e.g. {{name: focal, gamma: 1}}; found {value!r}")
        settings = value.get("settings", {})
        if not isinstance(settings, dict):
            raise ValueError(f"settings: expected a mapping of settings, found {settings!r}")
        rest = {key: item for key, item in value.items() if key not in ("name", "settings")}
        return {"name": value["name"], "settings": {**settings, **rest}}


class GridRow(Strict):
    """Methods to run on one source."""

    source: Literal["real_small", "generated", "real_large", "noisy", "both"]
    methods: tuple[MethodChoice, ...] = Field(min_length=1)

    @field_validator("methods", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Training(Strict):
    """How a classifier is fine-tuned. The same for every method of an experiment."""

    epochs: Positive = 5
    """Passes over the source, and how often the model is evaluated."""
    steps: Positive | None = None
    """Optimiser steps in place of epochs; evaluated ``epochs`` times at even distances."""
    batch_size: Positive = 32
    """Rows of one optimiser step, over all devices."""
    accumulation: Positive = 1
    """In how many slices a device computes its share of a batch."""
    learning_rate: float = Field(default=5e-5, gt=0.0)
    warmup: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the steps over which the learning rate rises; it then falls linearly to zero."""
    weight_decay: float = Field(default=0.01, ge=0.0)
    gradient_norm: float = Field(default=1.0, gt=0.0)
    """Gradients are scaled down to this norm."""
    max_length: Positive = 128
    """Tokens after which a text is cut."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """``bfloat16`` runs the encoder under autocast; loss and weights stay in float32."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    evaluation_batch_size: Positive = 64


class Checkers(Strict):
    """How checkers are trained, where that differs from the rest."""

    quality_steps: Positive = 80
    """Optimiser steps of CE on ``real_small``: by epochs, a small set stays nearly untrained; chosen on validation
    data (experiments/checker_steps.yaml)."""


class Resources(Strict):
    """What one trial takes. Threads and workers are part of a trial's identity: they change the bits."""

    cpus: Positive = 1
    """CPU cores, and threads, of each worker."""
    gpus: float = Field(default=0.0, ge=0.0)
    """GPUs of each worker; a fraction shares one, which spoils runtimes."""
    workers: Positive = 1
    """Devices a trial trains on; two or more run as a DDP worker group."""
    concurrent: Positive | None = None
    """At most so many trials at once; default: as many as fit."""
    memory_gb: float | None = Field(default=None, gt=0.0)
    """Memory that Ray reserves for each worker."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial is started again after its process died."""

    @model_validator(mode="after")
    def _whole_devices(self) -> Resources:
        if self.gpus > 1.0:
            raise ValueError(f"gpus is per worker and at most 1, got {self.gpus}; use workers for more devices")
        if self.workers > 1 and self.gpus not in (0.0, 1.0):
            raise ValueError(f"a worker group needs whole devices, got gpus={self.gpus}")
        return self


class Report(Strict):
    """What the report shows."""

    epoch: Literal["last", "best_validation"] = "last"
    """Which epoch a trial's result is. The test split never selects anything."""


#: A benchmark's name or file, or the benchmark itself.
BenchmarkEntry = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[Benchmark, Tag("<written out>")],
    Discriminator(lambda value: "<written out>" if isinstance(value, Benchmark | dict) else "<name>"),
]

#: Groups of settings that can be swept.
SWEPT: dict[str, type[Strict]] = {"training": Training, "checkers": Checkers}


class Experiment(Strict):
    """A grid of fine-tunes and the report wanted from it."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    description: str = ""
    benchmarks: tuple[BenchmarkEntry, ...] = Field(min_length=1)
    """Names from the catalogue, paths of YAML files, or benchmarks written inline."""
    grid: tuple[GridRow, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    quality_fractions: tuple[Fraction, ...] = (1.0,)
    """Shares of ``real_small`` that train the quality checker: stratified, nested."""
    encoder: str = "google-bert/bert-base-uncased"
    """A hub name, a folder, or ``package:NAME/PATH`` for weights inside an installed package."""
    rows: dict[str, Positive] = {}
    """At most so many rows of a split (stratified): a smaller run of the same experiment."""
    training: Training = Training()
    checkers: Checkers = Checkers()
    sweep: dict[str, tuple[Any, ...]] = {}
    """More axes: a dotted setting and its values, e.g. ``training.learning_rate: [2e-5, 5e-5]``."""
    resources: Resources = Resources()
    report: Report = Report()

    @field_validator("seeds", "quality_fractions")
    @classmethod
    def _no_repeats(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values or len(set(values)) != len(values):
            raise ValueError(f"expected distinct values, at least one, got {list(values)}")
        return values

    @model_validator(mode="after")
    def _checks(self) -> Experiment:
        for key in self.rows:
            if key not in SPLITS:
                raise ValueError(str(unknown("split", key, SPLITS, "rows")))
        for key, values in self.sweep.items():
            section, _, field = key.partition(".")
            part = SWEPT.get(section)
            if part is None or field not in part.model_fields:
                known = [f"{name}.{key}" for name, kind in SWEPT.items() for key in kind.model_fields]
                raise ValueError(str(unknown("setting", key, known, "sweep")))
            if not values:
                raise ValueError(f"sweep.{key} has no values")
            for value in values:
                try:
                    part.model_validate({field: value})
                except ValidationError as error:
                    raise ValueError(f"sweep.{explain(part, error)[0].replace(field, key, 1)}") from None
        return self

    def variants(self) -> list[tuple[str, Experiment]]:
        """The experiment once for each combination of ``sweep``, with a name for the combination."""
        out = []
        for values in product(*self.sweep.values()):
            raw = self.model_dump(exclude={"sweep"})
            for key, value in zip(self.sweep, values, strict=True):
                section, field = key.split(".")
                raw[section][field] = value
            label = ", ".join(f"{key.split('.')[1]}={value}" for key, value in zip(self.sweep, values, strict=True))
            out.append((label, parse(Experiment, raw, "sweep")))
        return out


def parse(kind: type[Model], raw: Any, where: str) -> Model:
    """``raw`` as a ``kind``, or a ``UserError`` that names the key, what was found and the nearest right key."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{where}: " + "\n  ".join(explain(kind, error))) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, loaded safely, or a ``UserError``."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = unknown("file", path.name, (p.name for p in path.parent.glob("*.y*ml")), str(path.parent))
        raise near from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping of settings, found {type(raw).__name__}")
    return raw


def load(path: Path, overrides: tuple[str, ...] = ()) -> Experiment:
    """The experiment in a YAML file, with ``key=value`` overrides (dotted keys, YAML values) applied.

    Files that the experiment names relatively are relative to its own folder.
    """
    raw = read_yaml(path)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise UserError(f"--set {override!r}: expected key=value, e.g. training.epochs=3")
        try:
            _put(raw, key.strip().split("."), yaml.safe_load(value), override)
        except yaml.YAMLError:
            raise UserError(f"--set {override!r}: {value!r} cannot be read as a YAML value") from None
    raw.setdefault("name", path.stem)
    benchmarks = raw.get("benchmarks")
    if isinstance(benchmarks, str | dict):
        raw["benchmarks"] = benchmarks = [benchmarks]
    if isinstance(benchmarks, list):
        raw["benchmarks"] = [_anchor(entry, path.parent) for entry in benchmarks]
    _anchor_prompts(raw.get("grid"), path.parent)
    return parse(Experiment, raw, str(path))


def _anchor_prompts(grid: Any, folder: Path) -> None:
    for row in grid if isinstance(grid, list) else []:
        for method in (row.get("methods") if isinstance(row, dict) else None) or []:
            if isinstance(method, dict):
                for settings in (method, method.get("settings")):  # the short form, and the long one
                    if isinstance(settings, dict) and isinstance(settings.get("prompts"), str):
                        settings["prompts"] = str((folder / settings["prompts"]).resolve())


def anchor_files(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A benchmark's raw YAML with its relative ``file:`` paths made absolute against ``folder``."""
    out = dict(raw)
    for group in ("pools", "splits"):
        entries = out.get(group)
        if isinstance(entries, dict):
            out[group] = {
                name: {**spec, "file": str((folder / spec["file"]).resolve())}
                if isinstance(spec, dict) and isinstance(spec.get("file"), str) and "://" not in spec["file"]
                else spec
                for name, spec in entries.items()
            }
    return out


def _anchor(entry: Any, folder: Path) -> Any:
    if isinstance(entry, dict):
        return anchor_files(entry, folder)
    if isinstance(entry, str) and entry.endswith((".yaml", ".yml")):
        return str((folder / entry).resolve())
    return entry


def _put(raw: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        raw = raw.setdefault(key, {})
        if not isinstance(raw, dict):
            raise UserError(f"--set {override!r}: {key!r} is not a group of settings")
    raw[keys[-1]] = value
