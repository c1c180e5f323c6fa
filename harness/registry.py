"""Plugin discovery: classes in a package's modules and in entry points."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cached_property
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from harness.errors import UserError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Discovered classes by their ``name``.

    Args:
        kind: what is registered, for error messages, e.g. ``"method"``.
        base: the class that entries derive from.
        package: every module of this package is imported and searched.
        group: entry points of this group are loaded as well, so that users' packages can add their own.
    """

    def __init__(self, kind: str, base: type[T], package: str, group: str) -> None:
        self.kind, self._base, self._package, self._group = kind, base, package, group

    @cached_property
    def entries(self) -> dict[str, type[T]]:
        """Every entry by its name, sorted.

        Raises:
            UserError: two entries have the same name, or an entry point does not give a suitable class.
        """
        package = importlib.import_module(self._package)
        entries: dict[str, type[T]] = {}
        for module in pkgutil.iter_modules(package.__path__):
            for item in vars(importlib.import_module(f"{self._package}.{module.name}")).values():
                if self._fits(item):
                    self._add(entries, item)
        for point in entry_points(group=self._group):
            item = point.load()
            if not self._fits(item):
                raise UserError(f"entry point {point.name!r} = {point.value!r}: expected a {self._base.__name__} class")
            self._add(entries, item)
        return dict(sorted(entries.items()))

    def get(self, name: str, where: str = "") -> type[T]:
        """The entry called ``name``.

        Raises:
            UserError: there is none; with the nearest name, and ``where`` it was used.
        """
        if name not in self.entries:
            raise unknown(self.kind, name, self.entries, where)
        return self.entries[name]

    def _fits(self, item: object) -> bool:
        return isinstance(item, type) and issubclass(item, self._base) and isinstance(getattr(item, "name", None), str)

    def _add(self, entries: dict[str, type[T]], item: type[T]) -> None:
        name: str = item.name  # type: ignore[attr-defined]
        if entries.setdefault(name, item) is not item:
            raise UserError(f"two {self.kind}s are called {name!r}: {entries[name].__module__} and {item.__module__}")
