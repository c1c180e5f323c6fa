"""Templates of pages."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.reports import formatting

if TYPE_CHECKING:  # the index of all reports draws nothing
    from harness.reports.figures.style import Drawing


def environment() -> Environment:
    """The environment of all pages: HTML is escaped, an undefined name is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=lambda name: bool(name and name.endswith(".html.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": formatting.markdown, "data_url": _data_url}
    return environment


def _data_url(drawing: Drawing) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(drawing.svg).decode("ascii")
