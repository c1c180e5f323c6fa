"""Common to all configurations: a strict base model, reading YAML, and errors that name the key and the fix."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Tag, ValidationError

from harness.errors import UserError, unknown


def _without_nul(path: str) -> str:
    if "\0" in path:
        raise ValueError(f"expected a path without NUL bytes, found {path!r}")
    return path


Positive = Annotated[int, Field(ge=1, le=10**9)]
#: A path in settings.
PathText = Annotated[str, AfterValidator(_without_nul)]
Model = TypeVar("Model", bound=BaseModel)
#: Makes the relative paths in a mapping absolute, given the folder that they are relative to.
Anchor = Callable[[dict[str, Any], Path], dict[str, Any]]

_WHOLE, _NUMBER = "expected a whole number", "expected a number"
_LIST, _GROUP = "expected a list", "expected a mapping of settings"
_EXPECTED = {
    "int_type": _WHOLE, "int_parsing": _WHOLE, "int_from_float": _WHOLE,
    "float_type": _NUMBER, "float_parsing": _NUMBER, "finite_number": _NUMBER,
    "tuple_type": _LIST, "list_type": _LIST,
    "dict_type": _GROUP, "model_type": _GROUP, "model_attributes_type": _GROUP,
    "bool_type": "expected true or false", "bool_parsing": "expected true or false",
    "greater_than": "expected a number above {gt}", "greater_than_equal": "expected at least {ge}",
    "less_than": "expected a number below {lt}", "less_than_equal": "expected at most {le}",
    "string_pattern_mismatch": "expected text that matches {pattern}",
}  # fmt: skip


class FrozenModel(BaseModel):
    """Base of every configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def parse(kind: type[Model], raw: Any, where: str) -> Model:
    """``raw`` validated as a ``kind``.

    Args:
        kind: the model.
        raw: what a file contains.
        where: the file, for messages.

    Raises:
        UserError: it is not valid; names every wrong key, what was found, and the nearest known key.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{where}: " + "\n  ".join(explain(kind, error))) from None


def read_yaml(
    path: Path, anchor: Anchor | None = None, whole: Collection[str] = (), trail: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """The mapping in a YAML file, loaded safely and merged into those of the files that it includes.

    ``include:`` names one or several files, relative to this one. Values of this file replace included values, those of
    later files replace those of earlier ones; mappings are merged key by key. The key ``name`` is not included.

    Args:
        path: the file.
        anchor: makes relative paths absolute, in each file's mapping.
        whole: groups whose entries are not merged: an entry replaces the included one of the same name.
        trail: the files that include this one.

    Raises:
        UserError: a file is missing, is not YAML or not a mapping, or includes itself.
    """
    if path.absolute() in trail:
        raise UserError(f"{path}: it includes itself: {' -> '.join(str(file) for file in (*trail, path.absolute()))}")
    return with_included(_read_mapping(path), path, anchor, whole, (*trail, path.absolute()))


def with_included(
    raw: dict[str, Any], path: Path, anchor: Anchor | None = None, whole: Collection[str] = (),
    trail: tuple[Path, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    """A mapping in the file ``path``, merged into those of the files that its key ``include`` names.

    Arguments and errors are those of ``read_yaml``.
    """
    raw = dict(raw)
    names = raw.pop("include", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: include: expected a file or a list of files, found {names!r}")
    merged: dict[str, Any] = {}
    for name in names:
        included = read_yaml(path.parent / name, anchor, whole, trail)
        included.pop("name", None)
        merged = merge(merged, included, whole)
    return merge(merged, anchor(raw, path.parent) if anchor else raw, whole)


def absolute(path: str, folder: Path) -> str:
    """``path`` made absolute against ``folder``; with a NUL byte it stays as it is, and ``PathText`` rejects it."""
    return path if "\0" in path else str((folder / path).resolve())


def apply_overrides(raw: dict[str, Any], overrides: Iterable[str]) -> None:
    """Set the ``KEY=VALUE`` pairs of the option ``--set`` in a mapping, in place.

    Args:
        raw: the mapping.
        overrides: dotted keys and YAML values, e.g. ``training.epochs=3``.

    Raises:
        UserError: a pair has no key or no ``=``, its value is not valid YAML, or its key is inside a value.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise UserError(f"--set {override!r}: expected key=value, e.g. training.epochs=3")
        try:
            set_key(raw, key.strip(), yaml.safe_load(value), f"--set {override!r}")
        except yaml.YAMLError:
            raise UserError(f"--set {override!r}: {value!r} cannot be read as a YAML value") from None


def set_key(raw: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a dotted key of a mapping in place; missing groups are created.

    Args:
        raw: the mapping.
        key: e.g. ``training.epochs``.
        value: the new value.
        where: the start of an error message.

    Raises:
        UserError: a group in the key is not a mapping.
    """
    *groups, last = key.split(".")
    for group in groups:
        raw = raw.setdefault(group, {})
        if not isinstance(raw, dict):
            raise UserError(f"{where}: {group!r} is not a group of settings")
    raw[last] = value


def merge(base: dict[str, Any], update: dict[str, Any], whole: Collection[str] = ()) -> dict[str, Any]:
    """A new mapping: ``base`` updated with ``update``: mappings are merged key by key, other values are replaced.

    The entries of the groups in ``whole`` are replaced too.
    """
    out = dict(base)
    for key, value in update.items():
        old = out.get(key)
        if not (isinstance(old, dict) and isinstance(value, dict)):
            out[key] = value
        else:
            out[key] = old | value if key in whole else merge(old, value)
    return out


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        neighbors = (file.name for file in path.parent.glob("*.y*ml"))
        raise unknown("file", path.name, neighbors, str(path.parent.absolute())) from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: a NUL in the path, bytes that are not UTF-8
        raise UserError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping of settings, found {type(raw).__name__}")
    return raw


def explain(kind: type[BaseModel], error: ValidationError) -> list[str]:
    """One line for each mistake in the input of a ``kind``, without those that follow from another mistake."""
    details = error.errors()
    lines = []
    for detail in details:
        location = detail["loc"]
        inner = any(other["loc"][: len(location)] == location and other is not detail for other in details)
        if not (detail["type"] == "too_short" and inner):  # pydantic does not count entries that are not valid
            lines.append(_line(kind, detail))
    return list(dict.fromkeys(lines))


def _line(kind: type[BaseModel], detail: Any) -> str:
    location, value = detail["loc"], detail["input"]
    where = _dotted(location)
    if detail["type"] == "extra_forbidden":
        return _extra(kind, location)
    if detail["type"] == "missing":
        return f"{where} is missing"
    start = f"{where}: " if where else ""
    if detail["type"] == "value_error":
        return f"{start}{detail['ctx']['error']}"
    if detail["type"] == "literal_error":
        allowed = [str(option) for t in _types_at(kind, location) if get_origin(t) is Literal for option in get_args(t)]
        return str(unknown("value", str(value), allowed, where))
    if detail["type"] == "too_short":
        return f"{start}expected at least {detail['ctx']['min_length']}, found {len(value)}: {_short(value)}"
    if detail["type"] == "string_type":
        return f"{start}expected text, found {_short(value)}{_quote(value)}"
    expected = _EXPECTED.get(detail["type"])
    if expected is None:
        message = detail["msg"]
        return f"{start}{message[:1].lower()}{message[1:]}, found {_short(value)}"
    return f"{start}{expected.format(**detail.get('ctx', {}))}, found {_short(value)}"


def _extra(kind: type[BaseModel], location: tuple[int | str, ...]) -> str:
    key, owners = str(location[-1]), [t for t in _types_at(kind, location[:-1]) if _is_model(t)]
    for owner in owners:
        for group, field in owner.model_fields.items():
            if any(_is_model(t) and key in t.model_fields for _, t in _members(field.annotation)):
                full = _dotted((*location[:-1], group, key))
                return f"unknown key {_dotted(location)!r}. It belongs to {group!r}: {full}"
    return str(unknown("key", key, {name for owner in owners for name in owner.model_fields}, _dotted(location[:-1])))


def _quote(value: Any) -> str:
    if isinstance(value, bool):
        return ". YAML reads yes, no, on and off as true and false: write them in quotes, e.g. 'yes'"
    return f". Write it in quotes: '{value}'" if isinstance(value, int | float) else ""


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _is_tag(part: int | str) -> bool:
    return isinstance(part, str) and part.startswith("<")


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location if not _is_tag(part))


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _types_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[Any]:
    """The types that are allowed at ``location`` in a ``kind``."""
    current: list[Any] = [kind]
    for part in location:
        current = [below for annotation in current for below in _below(annotation, part)]
    return [member for annotation in current for _, member in _members(annotation)]


def _below(annotation: Any, part: int | str) -> list[Any]:
    """The types that are allowed at the key, index or tag ``part`` of a type."""
    out: list[Any] = []
    for tag, member in _members(annotation):
        if _is_tag(part):
            out += [member] if tag == part else []
        elif _is_model(member):
            out += [member.model_fields[part].annotation] if part in member.model_fields else []
        elif get_origin(member) is dict:
            out.append(get_args(member)[1])
        else:
            out += [argument for argument in get_args(member) if argument is not Ellipsis]
    return out


def _members(annotation: Any, tag: str = "") -> list[tuple[str, Any]]:
    """The members of a union, each with its tag; another type is its own only member."""
    if get_origin(annotation) is Annotated:
        inner, *notes = get_args(annotation)
        return _members(inner, next((note.tag for note in notes if isinstance(note, Tag)), tag))
    if get_origin(annotation) in (Union, UnionType):
        return [member for argument in get_args(annotation) for member in _members(argument, tag)]
    return [(tag, annotation)]
