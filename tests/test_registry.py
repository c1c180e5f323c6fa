from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest

from harness import registry
from harness.errors import UserError
from harness.methods import Method, MethodSettings, methods
from harness.registry import Registry

CLASS = """
from harness.methods import Method, MethodSettings

class {cls}(Method[MethodSettings]):
    name = {name!r}

    def weights(self, step):
        return step.logits.new_ones(step.labels.shape)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a package of methods from ``file=text`` and gives its registry."""

    def make(**files):
        folder = tmp_path / "some_methods"
        folder.mkdir()
        (folder / "__init__.py").touch()
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        return Registry("method", Method, "some_methods", "no.such.group")

    yield make
    for name in [name for name in sys.modules if name.startswith("some_methods")]:
        del sys.modules[name]


def entry_points(monkeypatch, **values):
    points = [EntryPoint(name, value, "harness.methods") for name, value in values.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])


class Extra(Method[MethodSettings]):
    """What a user's package would bring."""

    name = "extra"

    def weights(self, step):
        return step.logits.new_ones(step.labels.shape)


class Impostor(Extra):
    """A second method with the name of a first."""

    name = "focal"


def test_every_module_is_found_and_bases_are_not(package):
    entries = package(
        zebra=CLASS.format(cls="Zebra", name="zebra"),
        ant=CLASS.format(cls="Ant", name="ant") + "\nclass NoName(Method[MethodSettings]):\n    pass\n\nx = 3\n",
        empty="",
    ).entries
    assert list(entries) == ["ant", "zebra"]
    assert entries["ant"].__name__ == "Ant"


def test_a_method_imported_by_another_module_is_the_same_method(package):
    entries = package(a=CLASS.format(cls="A", name="a"), b="from some_methods.a import A\n").entries
    assert list(entries) == ["a"]


def test_two_methods_of_one_name_are_refused(package):
    discovery = package(a=CLASS.format(cls="A", name="same"), b=CLASS.format(cls="B", name="same"))
    with pytest.raises(UserError) as caught:
        _ = discovery.entries
    assert str(caught.value) == "two methods are called 'same': some_methods.a and some_methods.b"


def test_entry_points_bring_methods(monkeypatch):
    entry_points(monkeypatch, anything=f"{__name__}:Extra")
    discovery = Registry("method", Method, "harness.methods", "harness.methods")
    assert discovery.get("extra") is Extra
    assert {*methods.entries, "extra"} == set(discovery.entries)


def test_an_entry_point_may_not_take_a_name(monkeypatch):
    entry_points(monkeypatch, anything=f"{__name__}:Impostor")
    with pytest.raises(UserError, match=rf"two methods are called 'focal': harness.methods.focal and {__name__}"):
        _ = Registry("method", Method, "harness.methods", "harness.methods").entries


def test_an_entry_point_must_be_a_method(monkeypatch):
    entry_points(monkeypatch, wrong="pathlib:Path")
    with pytest.raises(UserError) as caught:
        _ = Registry("method", Method, "harness.methods", "harness.methods").entries
    assert str(caught.value) == "entry point 'wrong' = 'pathlib:Path': expected a Method class"


def test_an_unknown_name_suggests_the_nearest(package):
    discovery = package(a=CLASS.format(cls="A", name="alpha"), b=CLASS.format(cls="B", name="beta"))
    with pytest.raises(UserError) as caught:
        discovery.get("alhpa", "grid.0")
    assert str(caught.value) == "unknown method 'alhpa' in grid.0. Did you mean 'alpha'? Known: alpha, beta."
    with pytest.raises(UserError) as caught:
        discovery.get("zzz")
    assert str(caught.value) == "unknown method 'zzz'. Known: alpha, beta."


def test_settings_are_the_type_argument():
    assert methods.get("focal").settings_type().__name__ == "FocalSettings"
    assert Extra.settings_type() is MethodSettings
    assert Impostor.settings_type() is MethodSettings
