"""Boxes in another convention: fractions, corners, and images that EXIF turns."""

import json
import shutil
from pathlib import Path

import pytest

from reslab.api.check import check
from reslab.data.boxes.folder import open_detection

BOXES = Path(__file__).parent / "boxes"


@pytest.mark.parametrize(
    ("name", "kind", "line"),
    [
        ("bbox-normalised", "fractions", "all 14 boxes are numbers from 0 to 1"),
        ("bbox-xyxy", "corners", "10 of 14 boxes leave the image as x y width height"),
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
    assert "corners" not in kinds
    open_detection(folder)
