"""The floors of docs/architecture.md: a file imports from its own folder or from below."""

import ast
import subprocess
import sys
from pathlib import Path

import reslab

SOURCE = Path(reslab.__file__).parent
FLOORS = {
    "errors": 0,
    "runtime": 1,
    "models": 2,
    "data": 2,
    "evaluation": 3,
    "training": 4,
    "analysis": 4,
    "detection": 5,
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
        here = room(path)
        if here in ("__init__", "__main__"):
            continue
        for other in imported_rooms(ast.parse(path.read_text())) - {here}:
            if FLOORS[other] >= FLOORS[here]:
                wrong.append(f"{path.relative_to(SOURCE)} imports {other}")
    assert not wrong


def test_every_room_has_a_floor() -> None:
    rooms = {room(path) for path in SOURCE.rglob("*.py")} - {"__init__", "__main__"}
    assert rooms == set(FLOORS)


def test_importing_does_nothing() -> None:
    """No thread setting, generator state, environment or output changes, and no torch for `cli`.

    And nothing is computed, so that RESLAB_CPU can still be obeyed.
    """
    code = """
import os, sys
before = dict(os.environ)
import reslab, reslab.cli
assert "torch" not in sys.modules, "the command imports torch before a verb needs it"
import torch
state = torch.random.get_rng_state()
threads, flags = torch.get_num_threads(), torch.backends.cudnn.benchmark
import pkgutil, importlib
for module in pkgutil.walk_packages(reslab.__path__, "reslab."):
    if module.name != "reslab.__main__":
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
