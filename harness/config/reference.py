"""Published results, to be shown beside those of an experiment."""

from __future__ import annotations

from pydantic import model_validator

from harness.config.schema import FrozenModel
from harness.config.sources import SOURCES
from harness.errors import unknown
from harness.metrics import SCORES


class Reference(FrozenModel):
    """Published results, shown beside those of an experiment."""

    title: str
    """Where they come from, e.g. ``Kuo et al. 2025``."""
    note: str = ""
    """What differs, e.g. the encoder; shown below the table."""
    scores: dict[str, dict[str, dict[str, dict[str, float]]]]
    """Benchmark -> source -> method, as tables name it -> metric (``accuracy``, ``f1``) -> percent."""

    @model_validator(mode="after")
    def _known_names(self) -> Reference:
        known = [metric.key for metric in SCORES]
        for benchmark, sources in self.scores.items():
            for source, methods in sources.items():
                where = f"scores.{benchmark}"
                if source not in SOURCES:
                    raise ValueError(str(unknown("source", source, SOURCES, where)))
                for method, values in methods.items():
                    for metric in values:
                        if metric not in known:
                            where = f"scores.{benchmark}.{source}.{method}"
                            raise ValueError(str(unknown("metric", metric, known, where)))
        return self
