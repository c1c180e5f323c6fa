"""What `harness list` prints: methods, benchmarks, sources.

Separate from ``views``, whose imports (planning, data) would make these commands start more slowly.
"""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.config.schema import FrozenModel
from harness.errors import UserError
from harness.paths import Paths


def methods(out: Console) -> None:
    """Prints the methods, what they need and their settings."""
    from harness.methods import methods as registry

    table = Table("method", "weight", "needs", "settings", title="Methods")
    for name, kind in registry.entries.items():
        fields = kind.settings_type().model_fields
        settings = ", ".join(
            f"{field} (required)" if info.is_required() else f"{field}={info.default}"
            for field, info in fields.items()
            if not isinstance(info.default, dict | FrozenModel)
        )
        first = (kind.__doc__ or "").strip().splitlines()[0]
        table.add_row(name, escape(first), ", ".join(sorted(kind.needs)) or "nothing", escape(settings))
    out.print(table)


def benchmarks(paths: Paths, count: bool, out: Console) -> None:
    """Prints the benchmarks of the catalogue; with ``count`` the rows of those that can be read here."""
    from harness.data.benchmarks import catalogue, outline, resolve, summary

    for name in catalogue():
        spec = resolve(name)
        out.print(f"[bold]{name}[/bold]  {escape(spec.description.strip())}", soft_wrap=True)
        out.print(f"  labels: {', '.join(spec.labels)}; license: {spec.license}; origin: {spec.origin}", soft_wrap=True)
        if not count:
            table = Table("split", "rows from", "digest")
            for split, origin in outline(spec).items():
                table.add_row(split, escape(origin), spec.digests.get(split, "")[:12])
            out.print(table)
            continue
        try:
            rows = summary(spec, paths.cache)
        except UserError as error:
            out.print(f"  not readable here: {error}", style="yellow", markup=False, soft_wrap=True)
            continue
        table = Table("split", "rows", "labels", "digest")
        for row in rows:
            counts = ", ".join(f"{label} {n}" for label, n in row.counts.items())
            table.add_row(row.split, str(row.rows), counts, row.digest[:12])
        out.print(table)


def sources(out: Console) -> None:
    """Prints the sources, their stages, and the splits whose rows a method weighs."""
    from harness.config.sources import SOURCES

    table = Table("source", "stages", "weighed rows", "what it is", title="Sources")
    for source in SOURCES.values():
        stages = ", then ".join(" + ".join(stage.splits) for stage in source.stages)
        table.add_row(source.name, stages, " + ".join(source.weighed), source.title)
    out.print(table)
