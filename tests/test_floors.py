"""The floors of docs/architecture.md: a file imports from its own folder or from below."""

import ast
import subprocess
import sys
from collections.abc import Container, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import reslab

SOURCE = Path(reslab.__file__).parent
FLOORS = {
    "errors": 0,
    "runtime": 1,
    "models": 2,
    "data": 2,
    "kernels": 2,
    "evaluation": 3,
    "pretrained": 3,
    "training": 4,
    "analysis": 4,
    "detection": 5,
    "deploy": 6,
    "recipes": 7,
    "studies": 8,
    "api": 9,
    "cli": 11,
}


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports name their module in full"
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "reslab" and len(part) > 1}


def test_no_file_imports_from_above_or_beside() -> None:
    wrong = []
    for path in SOURCE.rglob("*.py"):
        importer = room(path)
        if importer in ("__init__", "__main__"):
            continue
        for imported in imported_rooms(ast.parse(path.read_text())) - {importer}:
            if FLOORS[imported] >= FLOORS[importer]:
                wrong.append(f"{path.relative_to(SOURCE)} imports {imported}")
    assert not wrong


def test_every_room_has_a_floor() -> None:
    rooms = {room(path) for path in SOURCE.rglob("*.py")} - {"__init__", "__main__"}
    assert rooms == set(FLOORS)


def module_of(path: Path) -> str:
    return ".".join(("reslab", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def imported_modules(tree: ast.Module, modules: Container[str]) -> Iterator[str]:
    """Yield the package's modules that a file imports at run time, not only for annotations."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules else node.module


def test_no_files_import_each_other() -> None:
    paths = {module_of(path): path for path in SOURCE.rglob("*.py")}
    sorter = TopologicalSorter(
        {
            module: set(imported_modules(ast.parse(path.read_text()), paths)) & paths.keys()
            for module, path in paths.items()
        }
    )
    try:
        order = list(sorter.static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert set(order) == paths.keys()


def test_files_and_functions_are_short() -> None:
    wrong = []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        if text.count("\n") > 330:
            wrong.append(f"{path.relative_to(SOURCE)} has {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                if (lines := node.end_lineno - node.lineno + 1) > 60:
                    wrong.append(f"{node.name} in {path.relative_to(SOURCE)} has {lines} lines")
    assert not wrong


def test_importing_does_nothing() -> None:
    """Imports change no thread setting, generator state or environment, and print nothing.

    They compute nothing either, so RESLAB_CPU can still take effect; `cli` imports no torch.
    """
    code = """
import os, sys
before = dict(os.environ)
import reslab, reslab.cli
assert "torch" not in sys.modules, "the command imports torch before a verb needs it"
import torch
state = torch.random.get_rng_state()
threads, flags = torch.get_num_threads(), torch.backends.cudnn.benchmark
import pkgutil, importlib, importlib.util
no_triton = importlib.util.find_spec("triton") is None  # it is not available for every system
for module in pkgutil.walk_packages(reslab.__path__, "reslab."):
    if module.name != "reslab.__main__" and not (no_triton and ".gpu." in module.name):
        importlib.import_module(module.name)
assert torch.equal(torch.random.get_rng_state(), state)
assert (torch.get_num_threads(), torch.backends.cudnn.benchmark) == (threads, flags)
assert dict(os.environ) == before
assert "matplotlib" not in sys.modules
os.environ["ATEN_CPU_CAPABILITY"] = "default"
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT", "an import computes"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
