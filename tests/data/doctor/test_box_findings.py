"""The doctor for boxes: a clean folder, each fault alone, and all faults at once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.boxes.planted_boxes import (
    CAT,
    DOG,
    Document,
    image,
    open_whole,
    plant_coco,
    plant_voc,
    sheet,
)

from reslab.data.boxes.folder import all_parts, read_annotations
from reslab.data.doctor.advice import ADVICE, BOX_ADVICE, IMAGE_ADVICE
from reslab.data.doctor.findings import diagnose_boxes
from reslab.data.doctor.inspect import inspect_annotated

Found = dict[str, list[tuple[tuple[str, ...], str]]]


def check(folder: Path) -> Found:
    parts = all_parts(read_annotations(folder))
    findings = diagnose_boxes(folder, parts, inspect_annotated(parts, lambda line: None))
    return {
        finding.kind: [(case.files, case.note) for case in finding.cases] for finding in findings
    }


def whole(doc: Document) -> None:
    """Add a box, so that every image and class has one."""
    doc["annotations"].append({"id": 4, "image_id": 9, "category_id": 90, "bbox": [1, 1, 5, 5]})


Spoil = Callable[[Document, Path], object]
SPOILT: dict[str, tuple[Spoil, str, str]] = {
    "annotation file": (
        lambda doc, _: doc["annotations"].append({"id": 9}),
        "instances.json", "annotation number 5 has no 'image_id'",
    ),
    "unknown image": (
        lambda doc, _: doc["annotations"].append({**doc["annotations"][0], "image_id": 4}),
        "instances.json", "annotation 1 refers to image 4, which is not listed",
    ),
    "missing image": (lambda _, root: (root / "images/nine.png").unlink(), "images/nine.png", ""),
    "bad image": (
        lambda _, root: (root / "images/nine.png").write_bytes(b"<html>"),
        "images/nine.png", "a web page or SVG, which is not read",
    ),
    "other size": (
        lambda _, root: image(root / "images/nine.png", 8, (30, 40)),
        "images/nine.png", "30 x 40, but annotated as 40 x 30",
    ),
    "unknown class": (
        lambda doc, _: doc["annotations"].append(
            {**doc["annotations"][0], "category_id": 7, "id": 8}
        ),
        "instances.json: annotation 8", "no category has the id 7: three.png",
    ),
    "not numbers": (
        lambda doc, _: doc["annotations"][2].update(bbox=[1, 2, 3, None]),
        "instances.json: annotation 3", "bbox [1, 2, 3, None]: three.png",
    ),
    "swapped corners": (
        lambda doc, _: doc["annotations"][2].update(bbox=[9, 2, 3, -1]),
        "instances.json: annotation 3", "box 9 2 12 1 in an image of 40 x 30: three.png",
    ),
    "box outside": (
        lambda doc, _: doc["annotations"][2].update(bbox=[9, 30, 3, 1]),
        "instances.json: annotation 3", "box 9 30 12 31 in an image of 40 x 30: three.png",
    ),
    "other name": (
        lambda doc, _: doc["images"][2].update(file_name="C:\\set\\nine.png"),
        "instances.json",
        r"1 of 3 images have another name on disk: 'C:\\set\\nine.png' is nine.png",
    ),
    "no size": (
        lambda doc, _: doc["images"][0].pop("width"),
        "instances.json",
        "1 of 3 images have no size in the annotations: read from the files",
    ),
    "no box": (
        lambda doc, _: doc["annotations"].append({"image_id": 3, "category_id": 4}),
        "instances.json", "1 annotation without a box: left out",
    ),
    "not listed": (
        lambda _, root: [image(root / f"images/more/{n}.png", n) for n in (1, 2)],
        "images/more/", "not listed, and not used: 2 images",
    ),
    "classes alike": (
        lambda doc, _: doc["categories"][1].update(name="Toothbrush "),
        "classes",
        "2 classes have names that are equal or nearly so: 'Toothbrush ' and 'toothbrush'",
    ),
    "tiny boxes": (
        lambda doc, _: [
            box.update(bbox=[n, n, 1, 0.5]) for n, box in enumerate(doc["annotations"][2:], 1)
        ],
        "instances.json: annotation 3",
        "2 of 4 boxes have a side below 16 pixels as a detector sees them (shorter side 600, at "
        "most 1000); the smallest is a box 1 1 2 1.5 in an image of 40 x 30",
    ),
    "repeated id": (
        lambda doc, _: doc["annotations"][1].update(id=1),
        "instances.json", "several annotations have one id: 1",
    ),
    "empty box": (
        lambda doc, _: doc["annotations"][2].update(bbox=[9, 2, 0, 1]),
        "instances.json: annotation 3", "box 9 2 9 3 in an image of 40 x 30: three.png",
    ),
    "past the edge": (
        lambda doc, _: doc["annotations"][2].update(bbox=[9, 2, 33, 3]),
        "instances.json: annotation 3", "box 9 2 42 5 in an image of 40 x 30: three.png",
    ),
    "repeated box": (
        lambda doc, _: doc["annotations"].append({**doc["annotations"][0], "id": 8}),
        "instances.json: annotation 8", "box 1 2 4 6 in an image of 40 x 30: three.png",
    ),
    "no boxes": (lambda doc, _: doc["annotations"].pop(), "images/nine.png", ""),
    "class without boxes": (
        lambda doc, _: doc["categories"].append({"id": 5, "name": "eel"}), "eel", "",
    ),
}  # fmt: skip
REFUSED = [kind for kind in SPOILT if BOX_ADVICE[kind].does == "training refuses the folder"]


def plant(folder: Path, *kinds: str) -> Path:
    def spoil(doc: Document) -> None:
        whole(doc)
        for kind in kinds:
            SPOILT[kind][0](doc, folder)

    return plant_coco(folder, spoil)


def test_a_clean_folder_has_no_findings(tmp_path: Path) -> None:
    assert check(plant(tmp_path)) == {}


@pytest.mark.parametrize("kind", SPOILT)
def test_each_fault_is_found_alone(kind: str, tmp_path: Path) -> None:
    _, place, note = SPOILT[kind]
    assert check(plant(tmp_path, kind)) == {kind: [((place,), note)]}


@pytest.mark.parametrize("kind", SPOILT)
def test_training_refuses_what_the_advice_says_it_refuses(kind: str, tmp_path: Path) -> None:
    plant(tmp_path, kind)
    if kind in REFUSED:
        with pytest.raises(ValueError, match=r": | does not exist"):
            open_whole(tmp_path)
    else:
        assert len(open_whole(tmp_path)) == 3


def test_an_invalid_file_name_is_missing(tmp_path: Path) -> None:
    def spoil(doc: Document) -> None:
        doc["images"][2]["file_name"] = "a\0b.png"

    assert check(plant_coco(tmp_path, spoil))["missing image"] == [(("images/a\0b.png",), "")]


def test_copies_within_and_across_splits(tmp_path: Path) -> None:
    sheets = {key: sheet(CAT, DOG) for key in "abcd"}
    plant_voc(tmp_path, sheets, train=["a", "b"], val=["c", "d"])
    home = tmp_path / "JPEGImages"
    assert check(tmp_path) == {}
    shutil.copy(home / "a.jpg", home / "d.jpg")
    both = ("JPEGImages/a.jpg", "JPEGImages/d.jpg")
    assert check(tmp_path) == {"image in both parts": [(both, "")]}
    shutil.copy(home / "c.jpg", home / "d.jpg")
    assert list(check(tmp_path)) == ["repeated image"]


def test_voc_problems_are_named_by_file_and_line(tmp_path: Path) -> None:
    hound = ("hound", (1, 1, 9, 9), "")
    plant_voc(tmp_path, {"a": sheet(CAT, DOG), "b": sheet(CAT, hound), "c": "<annotation>"},
              train=["a", "c"], val=["b"])  # fmt: skip
    assert check(tmp_path) == {
        "annotation file": [(("Annotations/c.xml:1",), "malformed XML: no element found")],
        "unknown class": [
            (("Annotations/b.xml:5",), "no class 'hound'; available: cat, dog: JPEGImages/b.jpg")
        ],
    }


def test_every_kind_is_tested_and_has_advice_once() -> None:
    of_splits = {"image in both parts", "repeated image", "category ids", "one list"}
    of_conventions = {"fractions", "convention", "stored orientation", "turned by EXIF"}
    of_conventions |= {"image too large"}
    of_layouts = {"part not used", "one part", "other files", "folder further down"}
    of_yolo = {"no names", "label file", "not used", "no label file"}
    kinds = {*SPOILT, *of_splits, *of_conventions, *of_layouts, *of_yolo}
    assert kinds == set(BOX_ADVICE)
    assert not set(BOX_ADVICE) & set(IMAGE_ADVICE)


def test_findings_that_spoil_a_run_are_shown_first(tmp_path: Path) -> None:
    kinds = ("annotation file", "missing image", "unknown class", "swapped corners", "empty box")
    plant(tmp_path, *(kind for kind in kinds if kind != "empty box"))
    made = json.loads((tmp_path / "instances.json").read_text())
    made["annotations"][0]["bbox"] = [1, 1, 0, 0]
    (tmp_path / "instances.json").write_text(json.dumps(made))
    found = list(check(tmp_path))
    assert found[:4] == ["annotation file", "missing image", "unknown class", "swapped corners"]
    assert "empty box" in found[4:]
    severities = [advice.severity for advice in ADVICE.values()]
    assert severities == sorted(severities, key=["refused", "spoils", "remark"].index)
