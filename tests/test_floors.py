"""The floors of the house: imports point strictly down. Reads them with `ast`; nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "diffsearch"

FLOOR = {
    **dict.fromkeys(["registry", "errors", "files"], 0),
    **dict.fromkeys(["space", "records"], 1),
    **dict.fromkeys(["diffusion", "models", "data", "search"], 2),
    **dict.fromkeys(["training", "scoring", "store"], 3),
    "trial": 4,
    **dict.fromkeys(["study", "report", "exported"], 5),
    **dict.fromkeys(["api", "demo"], 6),
    "cli": 7,
    "__init__": 8,
    "__main__": 8,
}
# Below one floor nothing may look at its neighbours, but for these: words that have no other home.
SAME_FLOOR = {("records", "space"), ("errors", "registry"), ("registry", "errors"), ("files", "errors")}
# What belongs to one module alone.
ONLY = {
    "ray": {"study/runner.py"},
    "mlflow": {"study/tracking.py"},
    "torch_fidelity": {"scoring/features.py"},
    "gradio": {"demo/page.py"},
}
# Facades whose imports are deferred into functions, so that `import diffsearch` stays light.
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imports(module: str) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of everything that a module imports, also inside functions and for type checkers."""
    tree = ast.parse((PACKAGE / module).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import"
            yield node.module or "", node.lineno
            if node.module == "diffsearch":
                yield from ((f"diffsearch.{alias.name}", node.lineno) for alias in node.names)


def room(dotted: str) -> str | None:
    """`diffsearch.store.lease` → store; None for other packages and for the package itself."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "diffsearch" and len(parts) > 1 else None


def own_room(module: str) -> str:
    return module.split("/")[0].removesuffix(".py")


def test_every_room_has_a_floor():
    assert {own_room(module) for module in MODULES} - {"__init__", "__main__"} <= set(FLOOR)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    here = own_room(module)
    for name, line in imports(module):
        there = room(name)
        if there is None or there == here or there not in FLOOR:
            continue
        allowed = FLOOR[there] < FLOOR[here] or (here, there) in SAME_FLOOR
        assert allowed, f"{module}:{line}: {here} (floor {FLOOR[here]}) imports {name} (floor {FLOOR[there]})"


@pytest.mark.parametrize("package", ONLY)
def test_one_module_alone_imports(package):
    importers = {module for module in MODULES for name, _ in imports(module) if name.split(".")[0] == package}
    assert importers == ONLY[package]


def test_only_the_command_line_prints():
    for module in MODULES:
        if own_room(module) == "cli":
            continue
        for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
            printed = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            assert not printed, f"{module}:{node.lineno}: prints"


def test_no_module_catches_everything_in_silence():
    for module in MODULES:
        for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{module}:{node.lineno}"


def test_the_search_knows_no_files_and_no_ray():
    """Pure: what it is told and what it answers; only data, of its floor, touches files."""
    for module in MODULES:
        if own_room(module) in ("search", "diffusion", "models"):
            names = {name.split(".")[0] for name, _ in imports(module)}
            assert not names & {"pathlib", "os", "tempfile", "shutil", "ray"}, module
