"""An experiment: a grid of trials, their settings and their report."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from harness.config.benchmark import REPLACED_WHOLE, Benchmark, anchor_files
from harness.config.checkers import Checkers, DiversityChecker, QualityChecker
from harness.config.reference import Reference
from harness.config.resources import ExperimentResources
from harness.config.schema import (
    FrozenModel,
    PathText,
    Positive,
    absolute,
    apply_overrides,
    explain,
    merge,
    parse,
    read_yaml,
    set_key,
    with_included,
)
from harness.config.sources import SOURCES, SPLITS, STAGES
from harness.errors import UserError, unknown

#: Stage -> length, where an experiment sets none.
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


def _check_distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values or len(set(values)) != len(values):
        raise ValueError(f"expected distinct values, at least one, found {list(values)}")
    return values


class GridRow(FrozenModel):
    """Methods to run on one source."""

    source: str
    """A name from ``harness.config.sources``."""
    methods: tuple[MethodChoice, ...] = Field(min_length=1)
    seeds: tuple[int, ...] | None = None
    """Seeds of this row alone; default: those of the experiment."""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if seeds is None else _check_distinct(seeds)

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


#: Settings of ``Training`` that came later, with their defaults.
NEWER: dict[str, Any] = {"layers": None, "pooling": "first"}


class Training(FrozenModel):
    """How a classifier is fine-tuned. The same for every method of an experiment."""

    epochs: Positive = 5
    """Passes over the source."""
    steps: Positive | None = None
    """Optimizer steps in place of epochs."""
    batch_size: Positive = 32
    """Rows per optimizer step, over all devices."""
    accumulation: Positive = 1
    """Micro-batches into which a device divides its share of a batch."""
    learning_rate: float = Field(default=5e-5, gt=0.0)
    warmup: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the steps over which the learning rate rises; it then falls linearly to zero."""
    weight_decay: float = Field(default=0.01, ge=0.0)
    gradient_norm: float = Field(default=1.0, gt=0.0)
    """Largest norm of the gradient; a larger gradient is scaled down to it."""
    max_length: Positive = 128
    """Most tokens of a row; longer texts are truncated."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """``bfloat16`` runs the encoder under autocast; loss and weights stay in float32."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    vocabulary: Literal["used", "full"] = "used"
    """``used`` trains only the embeddings of tokens that occur in the trial's rows; the others would only decay."""
    activations: Literal["used", "full"] = "used"
    """``used`` computes neither padding nor, in the last layer, outputs that the classifier does not read; encoders
    other than those of the kinds of BERT, RoBERTa and ELECTRA compute everything."""
    evaluations: Positive | None = None
    """How often the model is evaluated, at even intervals; default: as often as there are epochs."""
    evaluation_batch_size: Positive = 64
    layers: Positive | None = None
    """How many of the encoder's transformer layers are kept, counted from the input; default: all."""
    pooling: Literal["first", "mean"] = "first"
    """What of a row the classification head reads. ``first``: the first token, as BERT's does. ``mean``: the mean over
    its tokens, by a layer that is added, for encoders trained that way, such as all-MiniLM-L6-v2."""

    @model_serializer(mode="wrap")
    def _without_newer_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out defaults, so that they are not part of the ids of trials that are older than these settings."""
        content: dict[str, Any] = handler(self)
        return {key: value for key, value in content.items() if NEWER.get(key, ...) != value}

    @property
    def evaluation_count(self) -> int:
        """Number of evaluations during training."""
        count = self.evaluations or self.epochs
        return count if self.steps is None else min(count, self.steps)


class Length(FrozenModel):
    """The length of a stage; a key that is missing has the value in ``training``."""

    epochs: Positive | None = None
    steps: Positive | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Length:
        if self.epochs is None and self.steps is None:
            raise ValueError("expected epochs, steps, or both")
        return self

    def apply(self, training: Training) -> Training:
        """``training`` with this length in place of its own."""
        if self.steps is None:
            return training.model_copy(update={"epochs": self.epochs, "steps": None})
        return training.model_copy(update={"epochs": self.epochs or training.epochs, "steps": self.steps})


class Report(FrozenModel):
    """Settings of the report."""

    reference: Reference | None = None

    epoch: Literal["last", "best_validation"] = "last"
    """The evaluation that counts as a trial's result. Test results never select it."""


#: A benchmark's name in the catalogue, its YAML file, or the benchmark written inline.
BenchmarkEntry = Annotated[
    Annotated[PathText, Tag("<name>")] | Annotated[Benchmark, Tag("<written out>")],
    Discriminator(lambda value: "<written out>" if isinstance(value, Benchmark | dict) else "<name>"),
]

#: Groups of settings that can be swept.
SWEPT: dict[str, type[FrozenModel]] = {
    "training": Training,
    **{f"stages.{name}": Length for name in STAGES},
    "checkers.quality": QualityChecker,
    "checkers.diversity": DiversityChecker,
}


class Experiment(FrozenModel):
    """A grid of fine-tunes, their settings and their report."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    description: str = ""
    benchmarks: tuple[BenchmarkEntry, ...] = Field(min_length=1)
    """Names from the catalogue, paths of YAML files, or benchmarks written inline."""
    grid: tuple[GridRow, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    quality_fractions: tuple[Fraction, ...] = (1.0,)
    """Shares of ``real_small`` that are used, e.g. to train the quality checker: stratified and nested."""
    encoder: PathText = "google-bert/bert-base-uncased"
    """A hub name, a folder, or ``package:NAME/PATH`` for weights in an installed package."""
    rows: dict[str, Positive] = {}
    """Split -> largest number of its rows (stratified), for a smaller run of the same experiment."""
    training: Training = Training()
    stages: dict[str, Length] = Field(default={}, validate_default=True)
    """Stage -> its length, where it differs from ``training``. The default ``real_small: {steps: 80}`` applies to the
    source ``real_small``, hence to the quality checker, and to the last stage of ``generated_then_real``: with a length
    in epochs, a model on few rows is hardly trained. 80 was selected on validation data
    (experiments/checker_steps.yaml)."""
    checkers: Checkers = Checkers()
    sweep: dict[str, tuple[Any, ...]] = {}
    """Further axes: a dotted setting and its values, e.g. ``training.learning_rate: [2e-5, 5e-5]``, or ``encoder``
    and several encoders."""
    resources: ExperimentResources = ExperimentResources()
    report: Report = Report()

    @field_validator("seeds", "quality_fractions")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return _check_distinct(values)

    @model_validator(mode="before")
    @classmethod
    def _reject_renamed_keys(cls, raw: Any) -> Any:
        checkers = raw.get("checkers") if isinstance(raw, dict) else None
        if isinstance(checkers, dict) and "quality_steps" in checkers:
            raise ValueError("checkers.quality_steps is now stages.real_small.steps: stages: {real_small: {steps: 80}}")
        return raw

    @field_validator("stages", mode="before")
    @classmethod
    def _default_lengths(cls, stages: Any) -> Any:
        return {**DEFAULT_LENGTHS, **stages} if isinstance(stages, dict) else stages

    @model_validator(mode="after")
    def _known_names(self) -> Experiment:
        for key in self.stages:
            if key not in STAGES:
                raise ValueError(str(unknown("stage", key, STAGES, "stages")))
        for key in self.rows:
            if key not in SPLITS:
                raise ValueError(str(unknown("split", key, SPLITS, "rows")))
        for key in self.resources.encoders:
            self.resources.of(key)
        for key, values in self.sweep.items():
            if key == "encoder":
                continue
            section, _, field = key.rpartition(".")
            group = SWEPT.get(section)
            if group is None or field not in group.model_fields:
                known = ["encoder", *(f"{name}.{key}" for name, kind in SWEPT.items() for key in kind.model_fields)]
                raise ValueError(str(unknown("setting", key, known, "sweep")))
            if not values:
                raise ValueError(f"sweep.{key}: expected at least one value, found none")
            for value in values:
                try:
                    group.model_validate({field: value})
                except ValidationError as error:
                    raise ValueError(f"sweep.{explain(group, error)[0].replace(field, key, 1)}") from None
        return self

    def variants(self) -> list[tuple[str, Experiment]]:
        """Name and experiment of every combination of the values in ``sweep``; without it, one with an empty name."""
        out = []
        for values in product(*self.sweep.values()):
            raw = self.model_dump(exclude={"sweep"})
            for key, value in zip(self.sweep, values, strict=True):
                set_key(raw, key, value, f"sweep.{key}")
            label = ", ".join(f"{_short_key(key)}={value}" for key, value in zip(self.sweep, values, strict=True))
            out.append((label, parse(Experiment, raw, "sweep")))
        return out


def _short_key(key: str) -> str:
    """The name of a swept setting in tables: without its group, but with the checker that it belongs to."""
    group, _, name = key.rpartition(".")
    return f"{group.rpartition('.')[2]}.{name}" if group.startswith("checkers.") else name


def load(path: Path, overrides: tuple[str, ...] = ()) -> Experiment:
    """The experiment in a YAML file; relative paths in it are relative to its folder.

    A file may have ``profiles``, a mapping of name -> settings. The override ``profile=NAME`` merges those of one
    profile into the file, before all other overrides.

    Args:
        path: the file.
        overrides: ``key=value`` pairs, with dotted keys and YAML values.

    Raises:
        UserError: the file cannot be read, or a profile or a setting is unknown or not valid.
    """
    raw = read_yaml(path, _anchor_paths)
    profiles = raw.pop("profiles", {})
    chosen: dict[str, Any] = {}
    apply_overrides(chosen, [override for override in overrides if _is_profile(override)])
    if chosen:
        raw = merge(raw, _profile(profiles, chosen["profile"], path))
    apply_overrides(raw, [override for override in overrides if not _is_profile(override)])
    raw.setdefault("name", path.stem)
    return parse(Experiment, _anchor_paths(raw, path.parent), str(path))


def _is_profile(override: str) -> bool:
    return override.partition("=")[0].strip() == "profile"


def _profile(profiles: Any, name: Any, path: Path) -> dict[str, Any]:
    """The settings of a profile."""
    if not isinstance(profiles, dict):
        raise UserError(f"{path}: profiles: expected a mapping of names to settings, found {profiles!r}")
    if name not in profiles:
        raise UserError(f"{path}: {unknown('profile', str(name), profiles)}")
    if not isinstance(profiles[name], dict):
        raise UserError(f"{path}: profiles.{name}: expected a mapping of settings, found {profiles[name]!r}")
    return dict(profiles[name])


def _anchor_paths(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The mapping in an experiment's YAML, with relative paths made absolute against ``folder``."""
    benchmarks = raw.get("benchmarks")
    if isinstance(benchmarks, str | dict):
        raw["benchmarks"] = benchmarks = [benchmarks]
    if isinstance(benchmarks, list):
        raw["benchmarks"] = [_anchor_benchmark(entry, folder) for entry in benchmarks]
    _anchor_prompts(raw.get("grid"), folder)
    _anchor_encoders(raw, folder)
    profiles = raw.get("profiles")
    for profile in profiles.values() if isinstance(profiles, dict) else ():
        if isinstance(profile, dict):
            _anchor_paths(profile, folder)
    return raw


def _anchor_encoders(raw: dict[str, Any], folder: Path) -> None:
    """Make encoders that are folders absolute, in place: workers run elsewhere."""

    def anchored(encoder: Any) -> Any:
        is_folder = isinstance(encoder, str) and "\0" not in encoder and (folder / encoder).is_dir()
        return absolute(encoder, folder) if is_folder else encoder

    groups = [raw.get(key) for key in ("checkers", "sweep", "resources")]
    checkers, sweep, resources = (group if isinstance(group, dict) else {} for group in groups)
    for owner in (raw, *(group for group in checkers.values() if isinstance(group, dict))):
        if "encoder" in owner:
            owner["encoder"] = anchored(owner["encoder"])
    if isinstance(sweep.get("encoder"), list):
        sweep["encoder"] = [anchored(encoder) for encoder in sweep["encoder"]]
    if isinstance(resources.get("encoders"), dict):
        resources["encoders"] = {anchored(encoder): needs for encoder, needs in resources["encoders"].items()}


def _anchor_prompts(grid: Any, folder: Path) -> None:
    """Make the folders ``prompts`` of methods absolute, in place."""
    for row in grid if isinstance(grid, list) else []:
        for method in _as_list(row.get("methods") if isinstance(row, dict) else None):
            if isinstance(method, dict):
                for settings in (method, method.get("settings")):  # the short form, and the long one
                    if isinstance(settings, dict) and isinstance(settings.get("prompts"), str):
                        settings["prompts"] = absolute(settings["prompts"], folder)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _anchor_benchmark(entry: Any, folder: Path) -> Any:
    if isinstance(entry, dict) and "include" in entry:
        return with_included(entry, folder / "benchmarks", anchor_files, REPLACED_WHOLE)
    if isinstance(entry, dict):
        return anchor_files(entry, folder)
    if isinstance(entry, str) and entry.endswith((".yaml", ".yml")):
        return absolute(entry, folder)
    return entry
