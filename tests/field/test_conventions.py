"""Boxes in another convention: fractions, corners, and images that EXIF turns."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from reslab.api.check import check
from reslab.data.boxes.annotations import Annotations, Objects
from reslab.data.boxes.conventions import wrong_convention
from reslab.data.boxes.folder import open_detection

BOXES = Path(__file__).parent / "boxes"


@pytest.mark.parametrize(
    ("name", "kind", "line"),
    [
        ("bbox-normalised", "fractions", "all 14 boxes are numbers from 0 to 1"),
        ("bbox-xyxy", "convention", "10 of 14 boxes do not fit the image as x y width height"),
    ],
)
def test_check_and_training_say_the_same_sentence(name: str, kind: str, line: str) -> None:
    findings = {finding.kind: finding.cases for finding in check(BOXES / name).findings}
    (case,) = findings.pop(kind)
    assert line in case.note
    assert "past the edge" not in findings  # one fault is reported once
    with pytest.raises(ValueError, match=line) as error:
        open_detection(BOXES / name)
    assert str(error.value) == f"{case.files[0]}: {case.note}"


def test_images_annotated_as_stored_are_named() -> None:
    found = {finding.kind: finding for finding in check(BOXES / "exif6-stored").findings}
    assert found["stored orientation"].advice.severity == "spoils"
    assert "other size" not in found
    found = {finding.kind: finding for finding in check(BOXES / "exif3-stored").findings}
    assert found["turned by EXIF"].advice.severity == "remark"
    assert {case.note for case in found["turned by EXIF"].cases} == {"EXIF orientation 3"}


def test_a_few_boxes_past_the_edge_are_no_corners(tmp_path: Path) -> None:
    folder = shutil.copytree(BOXES / "bbox-xyxy", tmp_path / "boxes")
    document = json.loads((folder / "instances.json").read_text())
    for entry in document["annotations"]:
        x0, y0, x1, y1 = entry["bbox"]
        entry["bbox"] = [x0, y0, x1 - x0, y1 - y0]
    document["annotations"][0]["bbox"] = [100, 10, 120, 20]
    (folder / "instances.json").write_text(json.dumps(document))
    kinds = [finding.kind for finding in check(folder).findings]
    assert "past the edge" in kinds
    assert "convention" not in kinds
    open_detection(folder)


Box = list[float]
SIZE = (640, 480)


def annotated(
    boxes: list[Box], layout: str, sizes: Sequence[tuple[int, int]] = (SIZE,)
) -> Annotations:
    """Return annotations of boxes as they are written in a layout, each in an image of its own."""
    objects = Objects(
        images=list(range(len(boxes))), names=["cat"] * len(boxes), places=[1] * len(boxes)
    )
    for a, b, c, d in boxes:
        objects.boxes.append((a, b, a + c, b + d) if layout == "COCO" else (a - 1, b - 1, c, d))
    part = Annotations(
        layout, "train", Path("."), lambda row: "file: annotation 1", objects=objects
    )
    part.sizes = [sizes[row % len(sizes)] for row in range(len(boxes))]
    return part


def random_boxes(count: int, seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return whole boxes anywhere in an image, xyxy."""
    rng = np.random.default_rng(seed)
    sides = (rng.uniform(0.05, 0.6, (count, 2)) * size).round()
    corner = (rng.uniform(0, 1, (count, 2)) * (size - sides)).round()
    return np.hstack([corner, corner + sides])


def as_written(xyxy: np.ndarray, way: str) -> list[Box]:
    corner, end = xyxy[:, :2], xyxy[:, 2:]
    side = end - corner
    size = np.array(SIZE)
    numbers = {
        "corners": xyxy,
        "sizes": np.hstack([corner, side]),
        "centres": np.hstack([corner + side / 2, side]),
        "fractions": np.hstack([corner / size, end / size]),
        "fractions of sizes": np.hstack([corner / size, side / size]),
        "percentages": 100 * np.hstack([corner / size, end / size]),
        "percentages of sizes": 100 * np.hstack([corner / size, side / size]),
    }
    return numbers[way].tolist()


@pytest.mark.parametrize(
    ("layout", "way", "kind", "words"),
    [
        ("COCO", "sizes", "", ""),
        ("COCO", "corners", "convention", "x y width height, but as corners x0 y0 x1 y1"),
        ("COCO", "centres", "convention", "but as centres cx cy width height: write cx-width/2"),
        ("COCO", "fractions of sizes", "fractions", "fractions of the image"),
        ("COCO", "percentages of sizes", "fractions", "percentages of the image"),
        ("VOC", "corners", "", ""),
        ("VOC", "sizes", "convention", "corners x0 y0 x1 y1, but as x y width height"),
        ("VOC", "centres", "convention", "corners x0 y0 x1 y1, but as centres"),
        ("VOC", "fractions", "fractions", "fractions of the image"),
        ("VOC", "percentages", "fractions", "percentages of the image"),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_the_convention_is_recognised(
    layout: str, way: str, kind: str, words: str, seed: int
) -> None:
    problem = wrong_convention(annotated(as_written(random_boxes(40, seed), way), layout))
    assert (problem.kind if problem else "") == kind
    assert problem is None or words in problem.note


@pytest.mark.parametrize("layout", ["COCO", "VOC"])
def test_ordinary_boxes_are_never_refused(layout: str) -> None:
    way = "sizes" if layout == "COCO" else "corners"
    for seed in range(100):
        count = 1 + seed % 30
        size = (150, 120) if seed % 3 else (60, 90)
        boxes = random_boxes(count, seed, size)
        boxes[:, 2:] += 3 * (seed % 4 == 0)  # drawn past the edge
        boxes *= 1 + 0.01 * (seed % 2)  # rescaled: fractions of a pixel
        assert wrong_convention(annotated(as_written(boxes, way), layout, [size])) is None, seed
