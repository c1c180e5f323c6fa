"""An experiment: a grid of trials, their settings, and the report wanted from them."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from harness.config.benchmark import Benchmark, anchor_files
from harness.config.schema import (
    FrozenModel,
    PathText,
    Positive,
    absolute,
    apply_overrides,
    explain,
    parse,
    read_yaml,
    set_key,
)
from harness.config.sources import SOURCES, SPLITS, STAGES
from harness.errors import unknown

DEFAULT_LENGTHS = {"real_small": {"steps": 80}}

Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


class MethodChoice(FrozenModel):
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


class GridRow(FrozenModel):
    """Methods to run on one source."""

    source: str
    """A name from ``harness.config.sources``."""
    methods: tuple[MethodChoice, ...] = Field(min_length=1)

    @field_validator("source")
    @classmethod
    def _known_source(cls, name: str) -> str:
        if name not in SOURCES:
            raise ValueError(str(unknown("source", name, SOURCES)))
        return name

    @field_validator("methods", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value


class Training(FrozenModel):
    """How a classifier is fine-tuned. The same for every method of an experiment."""

    epochs: Positive = 5
    """Passes over the source, and how often the model is evaluated."""
    steps: Positive | None = None
    """Optimizer steps in place of epochs; evaluated ``epochs`` times at even distances."""
    batch_size: Positive = 32
    """Rows of one optimizer step, over all devices."""
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

    @property
    def evaluations(self) -> int:
        """How often the model is evaluated."""
        return self.epochs if self.steps is None else min(self.epochs, self.steps)


class Length(FrozenModel):
    """How long a stage trains; what is not given is that of ``training``."""

    epochs: Positive | None = None
    steps: Positive | None = None

    @model_validator(mode="after")
    def _something(self) -> Length:
        if self.epochs is None and self.steps is None:
            raise ValueError("expected epochs, steps, or both")
        return self

    def apply(self, training: Training) -> Training:
        """``training`` with this length."""
        if self.steps is None:
            return training.model_copy(update={"epochs": self.epochs, "steps": None})
        return training.model_copy(update={"epochs": self.epochs or training.epochs, "steps": self.steps})


class Resources(FrozenModel):
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


class Report(FrozenModel):
    """What the report shows."""

    epoch: Literal["last", "best_validation"] = "last"
    """Which epoch a trial's result is. The test split never selects anything."""


#: A benchmark's name or file, or the benchmark itself.
BenchmarkEntry = Annotated[
    Annotated[PathText, Tag("<name>")] | Annotated[Benchmark, Tag("<written out>")],
    Discriminator(lambda value: "<written out>" if isinstance(value, Benchmark | dict) else "<name>"),
]

#: Groups of settings that can be swept.
SWEPT: dict[str, type[FrozenModel]] = {"training": Training, **{f"stages.{name}": Length for name in STAGES}}


class Experiment(FrozenModel):
    """A grid of fine-tunes and the report wanted from it."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    description: str = ""
    benchmarks: tuple[BenchmarkEntry, ...] = Field(min_length=1)
    """Names from the catalogue, paths of YAML files, or benchmarks written inline."""
    grid: tuple[GridRow, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    quality_fractions: tuple[Fraction, ...] = (1.0,)
    """Shares of ``real_small`` that train the quality checker: stratified, nested."""
    encoder: PathText = "google-bert/bert-base-uncased"
    """A hub name, a folder, or ``package:NAME/PATH`` for weights inside an installed package."""
    rows: dict[str, Positive] = {}
    """At most so many rows of a split (stratified): a smaller run of the same experiment."""
    training: Training = Training()
    stages: dict[str, Length] = Field(default={}, validate_default=True)
    """Length of training on some splits alone, e.g. ``real_small: {steps: 80}``, which is the default: it holds for
    the source ``real_small``, hence for the quality checker, and for the last stage of ``generated_then_real``. By
    epochs, a small set stays nearly untrained; 80 was chosen on validation data (experiments/checker_steps.yaml)."""
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

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and "checkers" in raw:
            raise ValueError("checkers.quality_steps is now stages.real_small.steps: stages: {real_small: {steps: 80}}")
        return raw

    @field_validator("stages", mode="before")
    @classmethod
    def _default_lengths(cls, stages: Any) -> Any:
        return {**DEFAULT_LENGTHS, **stages} if isinstance(stages, dict) else stages

    @model_validator(mode="after")
    def _checks(self) -> Experiment:
        for key in self.stages:
            if key not in STAGES:
                raise ValueError(str(unknown("stage", key, STAGES, "stages")))
        for key in self.rows:
            if key not in SPLITS:
                raise ValueError(str(unknown("split", key, SPLITS, "rows")))
        for key, values in self.sweep.items():
            section, _, field = key.rpartition(".")
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
                set_key(raw, key, value, f"sweep.{key}")
            label = ", ".join(
                f"{key.rpartition('.')[2]}={value}" for key, value in zip(self.sweep, values, strict=True)
            )
            out.append((label, parse(Experiment, raw, "sweep")))
        return out


def load(path: Path, overrides: tuple[str, ...] = ()) -> Experiment:
    """The experiment in a YAML file, with ``key=value`` overrides (dotted keys, YAML values) applied.

    Files that the experiment names relatively are relative to its own folder.
    """
    raw = read_yaml(path, _anchor_paths)
    apply_overrides(raw, overrides)
    raw.setdefault("name", path.stem)
    return parse(Experiment, _anchor_paths(raw, path.parent), str(path))


def _anchor_paths(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """An experiment's raw YAML with its relative paths made absolute against ``folder``."""
    benchmarks = raw.get("benchmarks")
    if isinstance(benchmarks, str | dict):
        raw["benchmarks"] = benchmarks = [benchmarks]
    if isinstance(benchmarks, list):
        raw["benchmarks"] = [_anchor(entry, folder) for entry in benchmarks]
    _anchor_prompts(raw.get("grid"), folder)
    return raw


def _anchor_prompts(grid: Any, folder: Path) -> None:
    for row in grid if isinstance(grid, list) else []:
        for method in _list(row.get("methods") if isinstance(row, dict) else None):
            if isinstance(method, dict):
                for settings in (method, method.get("settings")):  # the short form, and the long one
                    if isinstance(settings, dict) and isinstance(settings.get("prompts"), str):
                        settings["prompts"] = absolute(settings["prompts"], folder)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _anchor(entry: Any, folder: Path) -> Any:
    if isinstance(entry, dict):
        return anchor_files(entry, folder)
    if isinstance(entry, str) and entry.endswith((".yaml", ".yml")):
        return absolute(entry, folder)
    return entry
