"""The doctor and the training agree on every arrangement of a folder.

Where training refuses, `check` exits with 1 and quotes it; where `check` exits with 0, training
starts; both have the same classes and counts; every image is read or named.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.field.arrangements import Arrangement, arrangements
from tests.field.small_images import SIDE

from reslab.cli import main
from reslab.data.boxes.sets import DetectionSet, DetectionSplits
from reslab.data.class_names import fold
from reslab.data.datasets import EncodedImages
from reslab.data.folder import open_folder
from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.loader import BadFileLimit
from reslab.detection.loader import replace_by_next
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.setup import open_training_data
from reslab.models.model_file import load_model
from reslab.recipes import open_recipe
from reslab.runtime.device import SingleProcess
from reslab.training.setup import inputs_at

ALL = list(arrangements())
SETTINGS = (
    "model=resnet20", "augmentation.size=32", "augmentation.shorter_side=[32,32]",
    "pictures.resize=32", "batch_size=2", "augmentation.colour=0", "iterations=1", "recompute_bn=1",
    "eval_every=1", "checkpoint_every=1",
)  # fmt: skip
Document = dict[str, Any]


def train_images(folder: Path, run: Path) -> int:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return main(["train", "own-resnet18", "--data", str(folder), "--out", str(run), *settings])


def open_boxes(folder: Path) -> DetectionSplits:
    """Open images with boxes as a run does, and read the first image of each part."""
    inputs = inputs_at(folder)
    recipe = open_recipe("own-detection-resnet18-c4", inputs)
    assert isinstance(recipe, DetectionRecipe)
    sets, _ = open_training_data(recipe, inputs)
    for images in (sets.train, sets.test):
        replace_by_next(images.scaled_image, BadFileLimit(len(images), 1, print, SingleProcess()))(
            0
        )
    return sets


def quotes(found: Document, sentence: str) -> bool:
    refused = [finding for finding in found["findings"] if finding["severity"] == "refused"]
    cases = [case for finding in refused for case in finding["cases"]]
    return any(sentence in (case["note"], f"{case['files'][0]}: {case['note']}") for case in cases)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    return root


@pytest.mark.parametrize("case", [it for it in ALL if not it.boxes], ids=lambda it: it.name)
def test_images(case: Arrangement, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case.plant(folder)
    status = main(["check", str(folder), "--size", str(SIDE), "--json"])
    found = json.loads(capsys.readouterr().out)
    run = folder.parent / "run"
    trained = train_images(folder, run)
    refusal = capsys.readouterr().err.splitlines()[-1].removeprefix("reslab: ")
    agree(found, status, trained, refusal, folder, capsys)
    if trained == 0:
        sets = open_folder(folder)
        assert counts_of(found) in expected_counts(sets.train, sets.test)
        assert load_model(run).classes == sets.train.classes
        read = read_files(sets.train, folder) | read_files(sets.test, folder)
        all_images_are_read_or_named(folder, read, found)


@pytest.mark.parametrize("case", [it for it in ALL if it.boxes], ids=lambda it: it.name)
def test_boxes(case: Arrangement, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case.plant(folder)
    status = main(["check", str(folder), "--json"])
    found = json.loads(capsys.readouterr().out)
    try:
        sets = open_boxes(folder)
    except ValueError as error:
        agree(found, status, 2, str(error), folder, capsys)
        return
    agree(found, status, 0, "", folder, capsys)
    parts = list(found["parts"].values())
    shown = [(part["pictures"], part["boxes"]) for part in parts]
    counts = [(len(images), sum(map(len, images.truths))) for images in (sets.train, sets.test)]
    assert shown in (counts, [tuple(map(sum, zip(*counts, strict=True)))])
    assert {tuple(part["classes"]) for part in parts} == {sets.train.classes}
    read = read_files(sets.train, folder) | read_files(sets.test, folder)
    all_images_are_read_or_named(folder, read, found)


def agree(
    found: Document,
    status: int,
    trained: int,
    refusal: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Assert that `check` and training have the same verdict."""
    refused = any(finding["severity"] == "refused" for finding in found["findings"])
    assert status == (found["spoils"] > 0)
    if trained == 2:
        assert refused
        assert quotes(found, refusal), refusal
        assert main(["check", str(folder)]) == 1
        assert refusal in capsys.readouterr().out
    else:
        assert not refused
    if status == 0:
        assert trained == 0


def all_images_are_read_or_named(folder: Path, read: set[str], found: Document) -> None:
    named = names_in(found)
    silent = [
        file
        for file in images_in(folder)
        if file not in read and not any(name in named for name in names_of(file))
    ]
    assert not silent or f"{len(silent)} image" in named


def counts_of(found: Document) -> dict[str, Counter[str]]:
    return {name: Counter(part["classes"]) for name, part in found["parts"].items()}


def expected_counts(train: EncodedImages, test: EncodedImages) -> list[dict[str, Counter[str]]]:
    """Return the counts of parts, or of undivided images, which may be in a folder `train`."""
    whole = counted(train) + counted(test)
    parts = {"train": counted(train), "validation": counted(test)}
    return [parts, {"whole": whole}, {"train": whole}]


def counted(images: EncodedImages) -> Counter[str]:
    return Counter(images.ids[label] for label in images.labels.tolist())


def images_in(folder: Path) -> list[str]:
    """Return all images in a folder that are not hidden, relative to it."""
    files = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [os.path.relpath(os.path.join(place, name), folder) for name in names]
    return [file for file in files if file.lower().endswith((*IMAGE_SUFFIXES, ".jxl"))]


def read_files(images: EncodedImages | DetectionSet, folder: Path) -> set[str]:
    assert hasattr(images.read, "root")
    return {os.path.relpath(f"{images.read.root}/{file}", folder) for file in images.files}


def names_in(found: Document) -> str:
    """Return the text of all cases: the names of files, and notes."""
    cases = [case for finding in found["findings"] for case in finding["cases"]]
    return " ".join(fold(word) for case in cases for word in (*case["files"], case["note"]))


def names_of(file: str) -> list[str]:
    """Return a file's own path, and the names of the folders that it is in."""
    return [fold(name) for name in (file, *file.split("/")[:-1])]
