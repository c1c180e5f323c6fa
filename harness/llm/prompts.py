"""The prompts: Jinja templates in files, which a folder of the user's may replace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment

from harness.errors import UserError, unknown

FOLDER = Path(__file__).parent / "templates"
NAMES = ("system", "attributes", "rows", "classify")


class Prompts:
    """Templates by name: ``system``, ``attributes`` (step one), ``rows`` (step two), ``classify``.

    Args:
        folder: files ``NAME.txt`` in it replace ours; None for ours.
        texts: name -> text that replaces either.

    Raises:
        UserError: there is no such folder, a file in it has another name, or a template is not valid.
    """

    def __init__(self, folder: Path | None = None, texts: Mapping[str, str] | None = None) -> None:
        self.sources = {name: (FOLDER / f"{name}.txt").read_text(encoding="utf-8") for name in NAMES}
        self._origin = {name: str(FOLDER / f"{name}.txt") for name in NAMES}
        if folder is not None:
            self._replace(folder)
        for name, text in (texts or {}).items():
            if name not in NAMES:
                raise unknown("prompt", name, NAMES, "templates")
            self.sources[name], self._origin[name] = text, f"the template {name!r}"
        environment = SandboxedEnvironment(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
        )
        self._templates = {}
        for name, source in self.sources.items():
            try:
                self._templates[name] = environment.from_string(source)
            except TemplateSyntaxError as error:
                raise UserError(f"{self._origin[name]}, line {error.lineno}: {error.message}") from None

    def _replace(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"--prompts {folder}: there is no such folder. Ours to copy from: {FOLDER}")
        found = sorted(folder.glob("*.txt"))
        if not found:
            raise UserError(f"--prompts {folder}: no template in it; expected one of {', '.join(NAMES)} as NAME.txt.")
        for path in found:
            if path.stem not in NAMES:
                raise unknown("prompt", path.stem, NAMES, str(folder))
            try:
                self.sources[path.stem] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from None
            self._origin[path.stem] = str(path)

    def render(self, name: str, **values: Any) -> str:
        """A prompt filled in, blank ends removed.

        Raises:
            UserError: the template uses a value that there is not, or fails otherwise.
        """
        try:
            return self._templates[name].render(**values).strip()
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            known = ", ".join(sorted(values))
            raise UserError(f"{self._origin[name]}: {error}. Values to use in it: {known}.") from None
