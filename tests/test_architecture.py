"""The rules of the house: who may import whom, how long a file may be, what must be said."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = {path: ".".join(("harness", *path.relative_to(ROOT).with_suffix("").parts)) for path in FILES}
every_file = pytest.mark.parametrize("path", FILES, ids=[NAMES[path] for path in FILES])

#: From the ground up. A module imports modules of its own layer and of those below, never of those above.
LAYERS = (
    ("errors", "seeds", "paths", "files", "phases", "metrics"),
    ("store",),
    ("registry", "config"),
    ("encoders",),
    ("data",),
    ("llm",),
    ("methods",),
    ("checkers", "generation"),
    ("planning",),
    ("training",),
    ("ledger",),
    ("cluster", "reports"),
    ("recorder",),
    ("driver", "archive"),
    ("weigh",),
    ("testing", "cli"),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
#: What may not be loaded by whom, directly or through others.
HEAVY = ("torch", "transformers", "ray", "mlflow")
LIGHT = (
    "config",
    "data",
    "methods",
    "checkers",
    "planning",
    "reports",
    "store",
    "encoders",
    "registry",
    "llm",
    "generation",
)


def imports(path: Path, module_level: bool = False) -> Iterator[str]:
    """Dotted names of what a file imports; with ``module_level`` without what functions import when called."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }  # fmt: skip
    inside = {
        id(inner) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in typing_only or (module_level and id(node) in inside):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "harness":
                yield from (f"harness.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module


def room(name: str) -> str:
    """``harness.data.split`` -> ``data``."""
    return [*name.split("."), ""][1]


def top(name: str) -> str:
    return name.split(".")[0]


def test_every_room_has_a_place():
    assert {room(name) for name in NAMES.values()} - {"__init__"} == set(LEVEL)


@every_file
def test_imports_go_downwards(path):
    own = room(NAMES[path])
    if own == "__init__":
        assert not [name for name in imports(path) if top(name) == "harness"]
        return
    above = {
        name for name in imports(path)
        if top(name) == "harness" and room(name) in LEVEL and LEVEL[room(name)] > LEVEL[own]
    }  # fmt: skip
    assert not above


@every_file
def test_ray_and_mlflow_stay_in_their_rooms(path):
    packages = {top(name) for name in imports(path)}
    if room(NAMES[path]) != "cluster":
        assert "ray" not in packages
    if NAMES[path] not in ("harness.ledger.mlflow_ledger", "harness.ledger.mlflow_reader"):
        assert "mlflow" not in packages


def modules(name: str) -> list[str]:
    """The modules of ours that importing ``name`` runs: itself, or the package it is a name of, and their parents."""
    known = set(NAMES.values()) | {value.removesuffix(".__init__") for value in NAMES.values()}
    while name and name not in known:
        name = name.rpartition(".")[0]
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def loaded(start: str) -> dict[str, str]:
    """Everything that is loaded when a module is imported, with the module of ours that loads it."""
    files = {value.removesuffix(".__init__"): path for path, value in NAMES.items()}
    waiting, reached = [start], {start: ""}
    while waiting:
        current = waiting.pop()
        for name in imports(files[current], module_level=True) if current in files else ():
            for module in modules(name) if top(name) == "harness" else [top(name)]:
                if module not in reached:
                    reached[module] = current
                    waiting.append(module)
    return reached


@every_file
def test_planning_and_reports_load_no_torch_ray_or_mlflow_even_through_others(path):
    name = NAMES[path].removesuffix(".__init__")
    if room(name) in LIGHT or name in (
        "harness.cli.app",
        "harness.cli.views",
        "harness.ledger.entries",
        "harness.driver",
    ):
        reached = loaded(name)
        assert not {package: reached[package] for package in HEAVY if package in reached}


def test_no_module_imports_itself_through_others():
    files = {value.removesuffix(".__init__"): path for path, value in NAMES.items()}
    edges = {
        name: {m for i in imports(path, module_level=True) if top(i) == "harness" for m in modules(i)[-1:]} - {name}
        for name, path in files.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in edges.get(name, ()):
                visit(other, (*trail, name))
            done.add(name)

    for name in edges:
        visit(name, ())


COMMANDS = {
    "help": (["--help"], ()),
    "list": (["list", "methods"], ()),
    "benchmarks": (["list", "benchmarks"], ("datasets", "sklearn", "scipy")),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_light_commands_load_no_heavy_package(command):
    words, more = COMMANDS[command]
    code = f"import sys; sys.argv = ['harness', *{words!r}]\nfrom harness.cli.app import app\n"
    code += "try:\n    app()\nexcept SystemExit:\n    pass\n"
    code += f"print([name for name in {(*HEAVY, *more)!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"


#: What a method may import besides the contract: one that trains nothing, but asks somebody else, needs more.
CONTRACT = {
    "harness.methods.base",
    "harness.methods.lookahead",
    "harness.methods.predictor",
    "harness.methods.protocols",
    "harness.errors",
}
BESIDES = {
    "harness.methods.base": {
        "harness.config.benchmark", "harness.config.experiment", "harness.config.schema", "harness.data.split",
    },
    "harness.methods.lookahead": {"harness.config.experiment"},
    "harness.methods.predictor": {"harness.config.benchmark", "harness.data.split"},
    "harness.methods.protocols": {"harness.data.split"},
    "harness.methods.dimp": {"harness.config.experiment"},
    "harness.methods.hu": {"harness.config.experiment"},
    "harness.methods.sungen": {"harness.config.experiment"},
    "harness.methods.mix": {"harness.config.sources"},
    "harness.methods.ratio": {"harness.config.sources", "harness.data.density_ratio"},
    "harness.methods.llm_few_shot": {
        "harness.config.benchmark", "harness.config.schema", "harness.data.split", "harness.store",
        "harness.llm.classify", "harness.llm.prompts", "harness.llm.settings",
    },
}  # fmt: skip


@every_file
def test_methods_know_the_contract_and_nothing_else(path):
    name = NAMES[path]
    if name.startswith("harness.methods.") and not name.endswith("__init__"):
        ours = {module for module in imports(path) if top(module) == "harness"}
        assert ours <= CONTRACT | BESIDES.get(name, set())
        if not name.endswith(".base"):
            assert len(path.read_text().splitlines()) < 110


def test_the_loop_does_not_know_any_method_by_name():
    from harness.methods import methods

    strings = {
        node.value for node in ast.walk(ast.parse((ROOT / "training" / "loop.py").read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }  # fmt: skip
    assert not strings & set(methods.entries)


@every_file
def test_files_are_short_finished_and_documented(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    for word in ("TODO", "FIXME", "XXX"):
        assert word not in text
    tree = ast.parse(text)
    assert not text.strip() or ast.get_docstring(tree), "a module says what it is for"
    silent = [
        node.name for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_") and not ast.get_docstring(node)
    ]  # fmt: skip
    assert not silent


@every_file
def test_nothing_is_unsafe_by_convenience(path):
    """No pickles read, no remote code, no YAML objects, no shell."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert "pickle" not in {top(name) for name in imports(path)}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            assert (node.arg, node.value.value) not in {
                ("trust_remote_code", True), ("allow_pickle", True), ("shell", True)
            }  # fmt: skip
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("yaml", "load"), ("yaml", "unsafe_load"), ("torch", "load")}
