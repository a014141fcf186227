"""A data set as a run would use it: counts of both parts, or training's refusal."""

from pathlib import Path

import pytest
from tests.field.annotated import BOX_FAULTS, plant_coco, plant_labelme
from tests.field.small_images import image, images

from reslab.api.check import check
from reslab.api.training_data import (
    TrainingPart,
    open_boxes,
    open_images,
    refusal_of_bad_files,
    refusal_of_boxes,
)

LAYOUT = [("images", "instances.json")]


def test_undivided_images_are_counted_as_a_run_splits_them(tmp_path: Path) -> None:
    images(tmp_path / "cat", 5)
    images(tmp_path / "dog", 10)
    (tmp_path / "dog" / "notes.txt").write_text("notes")
    opened = open_images(tmp_path)
    assert opened.refusal == ""
    assert opened.divided
    assert opened.parts == {
        "train": TrainingPart(12, {"cat": 4, "dog": 8}),
        "validation": TrainingPart(3, {"cat": 1, "dog": 2}),
    }
    assert opened.notes == ("1 file left out: 1 .txt",)
    images(tmp_path / "eel", 1)
    assert open_images(tmp_path).refusal.startswith("class 'eel' has one image, but a split")


def test_a_class_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    images(tmp_path / "cat", 2)
    images(tmp_path / "dog", 2)
    assert refusal_of_bad_files(tmp_path, {"cat/0.png"}) == ""
    for number in range(2):
        (tmp_path / "cat" / f"{number}.png").write_bytes(b"")
    line = refusal_of_bad_files(tmp_path, {"cat/0.png", "cat/1.png"})
    assert line.startswith("no image of class 'cat' can be decoded (for example cat/")
    found = {finding.kind: finding for finding in check(tmp_path, size=8).findings}
    assert found["not trainable"].cases[0].note == line
    assert len(found["empty"].cases) == 2


def test_boxes_are_counted_and_refused(tmp_path: Path) -> None:
    plant_coco(LAYOUT, BOX_FAULTS["none"], tmp_path)
    opened, annotations = open_boxes(tmp_path)
    assert annotations is not None
    assert (opened.refusal, opened.divided) == ("", True)
    assert [part.images for part in opened.parts.values()] == [5, 1]
    assert sum(sum(part.classes.values()) for part in opened.parts.values()) == 6
    plant_coco(LAYOUT, BOX_FAULTS["swapped corners"], tmp_path)
    opened, annotations = open_boxes(tmp_path)
    assert annotations is not None
    assert opened.refusal.startswith("instances.json: annotation 1: swapped corners (box")


def test_boxes_in_another_format_are_refused_in_the_words_of_a_detector(tmp_path: Path) -> None:
    plant_labelme(tmp_path)
    (line,) = refusal_of_boxes(tmp_path)
    assert "a.json has boxes in the format of labelme" in line
    assert line in [case.note for finding in check(tmp_path).findings for case in finding.cases]
    images(tmp_path / "empty" / "cat", 1)
    assert refusal_of_boxes(tmp_path / "empty") == []


@pytest.mark.parametrize(("width", "height", "shape"), [(412, 8, "long as high"), (8, 412, "high")])
def test_a_strip_spoils_a_run(tmp_path: Path, width: int, height: int, shape: str) -> None:
    for name in ("cat", "dog"):
        images(tmp_path / name, 3)
    image(tmp_path / "cat" / "strip.png", width, height)
    (found,) = [
        finding for finding in check(tmp_path, size=8).findings if finding.kind == "too thin"
    ]
    assert found.advice.severity == "spoils"
    assert f"{width} x {height} pixels is 52 times as {shape}" in found.cases[0].note
