"""Pascal VOC: corners, flags, layouts, unions, and the error message for each fault."""

import re
from pathlib import Path

import pytest
from tests.data.boxes.planted_boxes import CAT, DOG, open_whole, plant_voc, sheet

from reslab.data.boxes.folder import is_detection, open_detection
from reslab.data.boxes.voc import VOC_CLASSES
from reslab.data.boxes.voc_xml import XmlAnnotation


def test_corners_count_from_one_and_include_the_last(tmp_path: Path) -> None:
    images = open_whole(plant_voc(tmp_path, {"a": sheet(DOG, CAT), "b": sheet()}))
    assert images.classes == images.ids == ("cat", "dog")
    assert images.files == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]
    assert images.keys == ["a", "b"]
    first, second = images.truths
    assert first.boxes.tolist() == [[2, 3, 10, 12], [0, 0, 40, 30]]
    assert first.labels.tolist() == [1, 0]
    assert first.difficult.tolist() == [True, False]
    assert first.truncated is not None
    assert first.truncated.tolist() == [True, False]
    assert first.crowd.tolist() == [False, False]
    assert len(second) == 0
    assert images.image(0).shape == (30, 40, 3)


def test_boxes_of_parts_do_not_replace_the_box_of_the_object() -> None:
    part = "<part><name>head</name><bndbox><xmin>5</xmin><ymin>6</ymin></bndbox></part>"
    read = XmlAnnotation(sheet(("person", (1, 2, 3.5, 4), part)).encode(), "a.xml")
    assert [parsed.name for parsed in read.objects] == ["person"]
    assert read.objects[0].corners == {"xmin": 1, "ymin": 2, "xmax": 3.5, "ymax": 4}
    assert read.size == {"width": 40, "height": 30}


def test_a_missing_size_is_read_from_the_image(tmp_path: Path) -> None:
    plant_voc(tmp_path, {"a": sheet(CAT, size=(0, 0))})
    assert open_whole(tmp_path).sizes == [(40, 30)]


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """Create both years in one folder, as their archives unpack."""
    home = tmp_path / "VOCdevkit"
    plant_voc(
        home / "VOC2007",
        {"000001": sheet(DOG), "000002": sheet(CAT), "000003": sheet(CAT, DOG)},
        train=["000001"], val=["000002"], trainval=["000001", "000002"], test=["000003"],
    )  # fmt: skip
    plant_voc(
        home / "VOC2012",
        {"2008_000001": sheet(CAT), "2008_000002": sheet(DOG)},
        train=["2008_000001"], val=["2008_000002"], trainval=["2008_000001", "2008_000002"],
        test=["2008_000009"],
    )  # fmt: skip
    return tmp_path


@pytest.mark.parametrize(
    ("years", "train", "test"),
    [
        ("07", ["000001", "000002"], ["000003"]),
        ("12", ["2008_000001"], ["2008_000002"]),
        ("07+12", ["000001", "000002", "2008_000001", "2008_000002"], ["000003"]),
        ("", ["000001", "000002", "2008_000001", "2008_000002"], ["000003"]),
    ],
)
def test_unions_of_years(devkit: Path, years: str, train: list[str], test: list[str]) -> None:
    for folder in (devkit, devkit / "VOCdevkit"):
        sets = open_detection(folder, years=years)
        assert (sets.train.keys, sets.test.keys) == (train, test)
        assert sets.train.classes == sets.test.classes == VOC_CLASSES
        assert sets.train.classes[sets.test.truths[0].labels[0]] in ("cat", "dog")
        sets.train.image(len(sets.train) - 1)


def test_one_year_alone(devkit: Path) -> None:
    home = devkit / "VOCdevkit" / "VOC2007"
    assert open_detection(home).test.keys == ["000003"]
    assert open_whole(home).keys == ["000003"]
    (home / "ImageSets/Main/test.txt").unlink()
    assert open_detection(home).test.keys == ["000002"]
    with pytest.raises(ValueError, match=r"07\+12 needs VOC2012/, which is missing"):
        open_detection(home, years="07+12")
    with pytest.raises(ValueError, match="needs the annotations of VOC2007 test"):
        open_detection(devkit, years="07+12")
    with pytest.raises(ValueError, match="no union of VOC years '7'; "):
        open_detection(devkit, years="7")


def test_the_classes_are_vocs_twenty_in_order() -> None:
    assert len(VOC_CLASSES) == 20
    assert sorted(VOC_CLASSES) == list(VOC_CLASSES)


def test_an_own_folder_with_lists(tmp_path: Path) -> None:
    plant_voc(
        tmp_path, {"a": sheet(CAT, DOG), "b": sheet(DOG), "c": sheet()}, train=["a", "c"], val=["b"]
    )
    sets = open_detection(tmp_path)
    assert (sets.train.keys, sets.test.keys) == (["a", "c"], ["b"])
    assert sets.test.truths[0].labels.tolist() == [1]


def test_a_class_that_is_not_trained_on_is_refused(tmp_path: Path) -> None:
    hound = ("dogg", (1, 1, 9, 9), "")
    plant_voc(tmp_path, {"a": sheet(CAT, DOG), "b": sheet(hound)}, train=["a"], val=["b"])
    line = "^Annotations/b.xml:3: no class 'dogg'; did you mean 'dog'[?]$"
    with pytest.raises(ValueError, match=line):
        open_detection(tmp_path)


GOOD = sheet(CAT, DOG)
FAULTS = {
    "malformed": (GOOD.replace("</name>", "", 1), "a.xml:4: malformed XML: mismatched tag"),
    "cut short": (GOOD[:100], "a.xml:3: malformed XML"),
    "empty": ("", "a.xml:1: malformed XML: no element found"),
    "a web page": ("<html><body>404</body></html>", "a.xml:1: the root element is <html>, not"),
    "no name": (GOOD.replace("<name>dog</name>", ""), "a.xml:5: the object has no <name>"),
    "no corner": (GOOD.replace("<xmax>40</xmax>", ""), "a.xml:3: the object has no <xmax>"),
    "words": (
        GOOD.replace("<xmax>40<", "<xmax>forty<"),
        "a.xml:4: <xmax> has the invalid value 'forty'",
    ),
    "not a number": (
        GOOD.replace("<xmax>40<", "<xmax>nan<"),
        "a.xml:4: <xmax> has the invalid value 'nan'",
    ),
    "huge": (
        GOOD.replace("<xmax>40<", "<xmax>1e300<"),
        "a.xml:4: <xmax> has the invalid value '1e300'",
    ),
    "swapped": (sheet(CAT, ("dog", (10, 4, 3, 12), "")), "a.xml:5: swapped corners (box 9 3 3 12"),
    "outside": (sheet(("dog", (41, 4, 45, 12), "")), "a.xml:3: box outside (box 40 3 45 12"),
    "entities": (
        f'<!DOCTYPE x [<!ENTITY y "z">]>{GOOD}',
        "a.xml:1: entity declarations are not allowed",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_gives_a_one_line_error_with_file_and_line(name: str, tmp_path: Path) -> None:
    text, line = FAULTS[name]
    plant_voc(tmp_path, {"a": text})
    with pytest.raises(ValueError, match="^Annotations/" + re.escape(line)) as caught:
        open_whole(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    plant_voc(tmp_path, {"a": GOOD, "b": GOOD}, train=["a"], val=["b", "c"])
    with pytest.raises(ValueError, match=r"^Annotations/c.xml: no such file"):
        open_detection(tmp_path)
    (tmp_path / "ImageSets/Main/val.txt").write_text("b -1\n\n")
    assert open_detection(tmp_path).test.keys == ["b"]
    (tmp_path / "JPEGImages/b.jpg").unlink()
    with pytest.raises(ValueError, match=r"JPEGImages/b.jpg does not exist"):
        open_detection(tmp_path)


def test_other_folders_have_no_annotated_boxes(tmp_path: Path) -> None:
    assert not is_detection(tmp_path)
    with pytest.raises(ValueError, match="has no annotated boxes: COCO has"):
        open_detection(tmp_path)
    with pytest.raises(ValueError, match="gone does not exist"):
        open_detection(tmp_path / "gone")
