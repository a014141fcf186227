"""The public names of reslab: found without torch, not shadowed by packages, typed, documented."""

import ast
import importlib
import importlib.util
import inspect
import os
import pkgutil
import pydoc
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import reslab

SOURCE = Path(reslab.__file__)
USE = Path(__file__).with_name("typed_use.py")
MEAN = reslab.Preprocessing.of([120.0, 120.0, 120.0])
ANY_ARRAY = "numpy.ndarray[tuple[Any, ...], numpy.dtype[Any]]"  # in mypy's words
# each public function, and a call of it that is refused with ValueError
REFUSED: dict[str, Callable[[Path], object]] = {
    "benchmark": lambda place: reslab.benchmark(place / "nowhere"),
    "build_resnet": lambda _: reslab.build_resnet(reslab.config_named("resnet7")),
    "check": lambda place: reslab.check(place / "nowhere"),
    "config_named": lambda _: reslab.config_named("resnet7"),
    "detect": lambda place: reslab.detect(place / "nowhere", "image.png"),
    "detection_recipe": lambda _: reslab.detection_recipe("digits-resnet20"),
    "evaluate": lambda place: reslab.evaluate(place / "nowhere"),
    "export": lambda place: reslab.export(place / "nowhere", "caffe", place / "out.pth"),
    "image_set": lambda _: reslab.image_set(np.zeros((2, 28, 28), np.uint8), [0], ["a"]),
    "import_weights": lambda place: reslab.import_weights(place / "a.pth", "resnet18", place),
    "load": lambda place: reslab.load(place / "nowhere"),
    "load_detector": lambda place: reslab.load_detector(place / "nowhere"),
    "plan": lambda _: reslab.plan("digits-resnet20", iterations=0),
    "predict": lambda place: reslab.predict(place / "nowhere", "image.png"),
    "recipe": lambda _: reslab.recipe("digits-resnet7"),
    "report": lambda place: reslab.report(place / "nowhere"),
    "save": lambda place: reslab.save(torch.nn.Flatten(), ["a"], MEAN, place),
    "study": lambda _: reslab.study("degradation", seeds=0),
    "weights": lambda _: reslab.weights("resnet51"),
    "train": lambda place: reslab.train("digits-resnet7", place / "run"),
}


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def public_functions() -> list[str]:
    return [name for name in reslab.__all__ if inspect.isfunction(getattr(reslab, name))]


def test_names_are_listed_without_torch() -> None:
    code = (
        "import reslab, sys; names = dir(reslab); assert 'torch' not in sys.modules; print(names)"
    )
    names = ast.literal_eval(run_python(code).stdout)
    assert names == sorted(reslab.__all__)


def test_importing_costs_almost_nothing() -> None:
    code = """
import time
begun = time.perf_counter()
import reslab
dir(reslab)
print(time.perf_counter() - begun)
"""
    assert min(float(run_python(code).stdout) for _ in range(3)) < 0.15


def test_type_checkers_and_imports_know_the_same_names() -> None:
    (block,) = (
        node
        for node in ast.parse(SOURCE.read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imports = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imports == reslab._MODULES
    assert {"__version__", *imports} == set(reslab.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        reslab.trian  # type: ignore  # noqa: B018


def test_no_package_takes_the_place_of_a_function(tmp_path: Path) -> None:
    no_triton = importlib.util.find_spec("triton") is None  # it is not available for every system
    for module in pkgutil.walk_packages(reslab.__path__, "reslab."):
        if module.name != "reslab.__main__" and not (no_triton and ".gpu." in module.name):
            importlib.import_module(module.name)
    assert set(public_functions()) == set(REFUSED)
    for name, call in REFUSED.items():
        assert inspect.signature(getattr(reslab, name)).parameters
        with pytest.raises(ValueError, match=r"\w+ \w+") as refusal:
            call(tmp_path)
        assert "\n" not in str(refusal.value)


def test_help_is_a_tour_of_every_function() -> None:
    tour = reslab.__doc__
    assert tour is not None
    page = pydoc.plain(pydoc.render_doc(reslab))
    described = [line.strip() for line in page.partition("\nDESCRIPTION\n")[2].splitlines()]
    lines = [line.strip() for line in tour.splitlines()[2:]]
    assert described[: len(lines)] == lines
    for name in public_functions():
        assert re.search(rf"^    {name} +\w+", tour, re.MULTILINE), name


def revealed(checker: list[str], **environment: str) -> list[str]:
    """Run a type checker on the program; return a line for each type that it reveals."""
    done = subprocess.run(checker, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "evealed type" in line]
    assert len(lines) == USE.read_text().count("reveal_type(")
    return lines


def must_be_typed(lines: list[str]) -> None:
    """Assert that no type is unknown, except the shape and type of an array that may be any."""
    lines = [line.replace(ANY_ARRAY, "numpy.ndarray") for line in lines]
    assert not [line for line in lines if re.search(r"\b(Any|Unknown)\b", line)]
    assert not [line for line in lines if "kwargs" in line]


def test_pyrefly_sees_every_type(tmp_path: Path) -> None:
    copy = tmp_path / "use.py"  # outside the project, whose settings would apply
    copy.write_text(USE.read_text())
    (tmp_path / "pyrefly.toml").write_text(f"search-path = [{str(SOURCE.parents[1])!r}]\n")
    python = Path(sys.executable)
    checker = [str(python.with_name("pyrefly")), "check", "--python-interpreter-path", str(python)]
    must_be_typed(revealed([*checker, str(copy)]))


def test_mypy_sees_every_type_in_strict_mode(tmp_path: Path) -> None:
    settings = tmp_path / "mypy.ini"  # errors in reslab itself are pyrefly's affair
    settings.write_text("[mypy]\nstrict = True\n[mypy-reslab.*]\nfollow_imports = silent\n")
    checker = [sys.executable, "-m", "mypy", "--config-file", str(settings)]
    cache = ["--cache-dir", str(tmp_path / "cache")]
    must_be_typed(revealed([*checker, *cache, str(USE)], MYPYPATH=str(SOURCE.parents[1])))
    assert SOURCE.with_name("py.typed").is_file()
