"""The README's Python examples are run, in shorter form, and its commands parse."""

import json
import re
import shlex
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch
from tests.detection.small import detector
from tests.docs.examples import FENCE
from tests.training.walls import TINY, draw

import reslab
from reslab.cli import VERBS, main, verb_name
from reslab.detection.predict import detector_bytes
from reslab.studies.experiments import DEPTHS

TEXT = (Path(__file__).parents[2] / "README.md").read_text()
USE, OWN_PARTS = (fence[2] for fence in FENCE.finditer(TEXT) if fence[1] == "python")
COMMANDS = [
    line.partition("#")[0].strip()
    for fence in FENCE.finditer(TEXT)
    for line in fence[2].splitlines()
    if line.startswith("reslab ")
]
SHORTER = {
    "learning_rate=0.05": "learning_rate=0.05, iterations=4, recompute_bn=1",
    '"own-resnet18", data="photos")': 'small, data="photos", iterations=1)',
    '"learning_rate": 0.002': '"learning_rate": 0.002, "iterations": 2, "recompute_bn": 1',
}


def shortened(code: str) -> str:
    for long, short in SHORTER.items():
        code = code.replace(long, short)
    return code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the images and models that the examples name."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photos", {"brick": 4, "sky": 3})
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "photos/sky/000.jpg").read_bytes())
    short = reslab.recipe("digits-resnet20").with_(iterations=4, recompute_bn=1)
    reslab.train(short, "runs/second", seed=2, on_event=None)
    Path("runs/street").mkdir()
    Path("runs/street/model.safetensors").write_bytes(detector_bytes(detector(sure=20)))
    return tmp_path


def test_what_is_shortened_stands_in_the_readme() -> None:
    assert all(long in USE + OWN_PARTS for long in SHORTER)


@pytest.mark.filterwarnings("ignore:this network takes only 16x16 images")
def test_every_function_is_used_as_the_readme_says(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study takes minutes, so only its arguments are checked."""
    study = create_autospec(reslab.study)
    monkeypatch.setattr(reslab, "study", study)
    names: dict[str, Any] = {
        "images": torch.zeros(5, 3, 16, 16, dtype=torch.uint8),
        "small": reslab.recipe("own-resnet18", data="photos").with_changes(TINY),
    }
    exec(compile(shortened(USE), "<README>", "exec"), names)
    result = json.loads((folder / "runs/first/result.json").read_text())
    printed = capsys.readouterr().out
    assert printed.startswith(f"{result['train_error']} {result['evaluation'][-1]['top1_error']}\n")
    assert printed.count(".jpg") >= 7  # the predictions
    assert (folder / "mistakes/report.html").is_file()
    assert list((folder / "found").glob("*photo*"))
    assert names["scores"].shape == (5, 10)
    study.assert_called_once()
    assert study.call_args.args[0] in DEPTHS
    assert len(names["evaluations"]) == 3


def test_parts_of_your_own_as_the_readme_says(folder: Path) -> None:
    rng = np.random.default_rng(0)
    names: dict[str, Any] = {"reslab": reslab, "names": ["circle", "cross"]}
    for part, count in (("train_", 256), ("", 10)):
        names[f"{part}images"] = rng.integers(0, 256, (count, 16, 16), dtype=np.uint8)
        names[f"{part}labels"] = [number % 2 for number in range(count)]
    exec(compile(shortened(OWN_PARTS), "<README>", "exec"), names)
    recipe = json.loads((folder / "runs/own/recipe.json").read_text())
    assert "256 training and 10 test images" in recipe["deviations"]["data"]
    assert "AdamW" in recipe["deviations"]["optimizer"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_every_command_exist(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, verb, *words = shlex.split(command)
    assert verb in {verb_name(function) for function in VERBS}
    assert main([verb, "--help"]) == 0
    options = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    assert {word for word in words if word.startswith("--")} <= options
