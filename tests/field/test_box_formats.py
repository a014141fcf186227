"""Boxes in YOLO format are read, and boxes in formats that are not read are named."""

import json
from pathlib import Path

import pytest
from PIL import Image

import reslab
from reslab.api.check import FolderCheck, check
from reslab.api.pack import pack
from reslab.data.boxes.folder import open_detection
from reslab.data.datasets import Splits
from reslab.data.folder import read_folder

YOLO_ROWS = "0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.5 0.5\n"  # 15 10 25 20 and 0 0 20 15, of 40 x 30
PARTS = {"train": ("a", "b", "c", "d"), "val": ("e", "f")}


def save_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (ord(path.stem[0]), 80, 160)).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def lay_out(root: Path, images: str, labels: str) -> Path:
    """Write six images and their labels; `{}` in the folders stands for the part."""
    for part, names in PARTS.items():
        for name in names:
            save_image(root / images.format(part) / f"{name}.png")
            text(root / labels.format(part) / f"{name}.txt", YOLO_ROWS)
    return root


def checked(folder: Path) -> FolderCheck:
    return check(folder, size=32, on_event=None)


def test_ultralytics(tmp_path: Path) -> None:
    lay_out(tmp_path, "images/{}", "labels/{}")
    text(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    result = checked(tmp_path)
    assert result.count("refused", "spoils") == 0
    assert result.contents == (
        "4 train images with 8 boxes of 2 classes, 2 validation images with 4 boxes of 2 classes"
    )
    sets = open_detection(tmp_path)
    boxes = [[15, 7.5, 25, 22.5], [0, 0, 20, 15]]
    assert [truth.boxes.tolist() for truth in sets.train.truths] == [boxes] * 4


def test_darknet(tmp_path: Path) -> None:
    lay_out(tmp_path, "obj_train_data", "obj_train_data")
    text(tmp_path / "obj.names", "cat\ndog\n")
    result = checked(tmp_path)
    assert result.count("refused", "spoils") == 0
    assert result.contents.startswith("6 images with 12 boxes of 2 classes")


@pytest.mark.parametrize("fault", ["2 0.5 0.5 0.2 0.2", "0 20 15 10 15", "0 0.5 0.5 0.2"])
def test_check_refuses_rows_in_the_words_of_training(tmp_path: Path, fault: str) -> None:
    lay_out(tmp_path, "images/{}", "labels/{}")
    text(tmp_path / "classes.txt", "cat\ndog\n")
    text(tmp_path / "labels/train/c.txt", f"{YOLO_ROWS}{fault}\n")
    with pytest.raises(ValueError, match=r"labels/train/c\.txt:3: ") as caught:
        open_detection(tmp_path)
    result = checked(tmp_path)
    assert result.count("refused") == 1
    refused = [found for found in result.findings if found.advice.severity == "refused"]
    (case,) = refused[0].cases
    assert str(caught.value) in (case.note, f"{case.files[0]}: {case.note}")


LABELME = json.dumps({"version": "5.4", "shapes": [], "imagePath": "a.png"})
VIA = json.dumps({"a.png1": {"filename": "a.png", "size": 1, "regions": []}})
CREATEML = json.dumps([
    {"image": "a.png", "annotations": [{"label": "cat", "coordinates": {"x": 20, "y": 15}}]}
])  # fmt: skip
CVAT = '<?xml version="1.0"?><annotations><version>1.1</version><image id="0"/></annotations>'


@pytest.mark.parametrize(
    ("images", "file", "content", "kind"),
    [
        (".", "a.json", LABELME, "labelme"),
        (".", "via_region_data.json", VIA, "VIA"),
        ("images", "annotations.xml", CVAT, "CVAT"),
        ("train", "train/_annotations.createml.json", CREATEML, "CreateML"),
    ],
)
def test_other_formats_are_named_by_every_verb(
    tmp_path: Path, images: str, file: str, content: str, kind: str
) -> None:
    for name in "abc":
        save_image(tmp_path / images / f"{name}.png")
    text(tmp_path / file, content)
    line = f"{file} has boxes in the format of {kind}, which is not read: "
    with pytest.raises(ValueError, match="has no classes: ") as no_classes:
        read_folder(tmp_path)
    with pytest.raises(ValueError, match="no boxes that can be read") as no_boxes:
        open_detection(tmp_path)
    with pytest.raises(ValueError, match="has no classes: ") as not_packed:
        pack(tmp_path, tmp_path.parent / "packed")
    assert not (tmp_path.parent / "packed").exists()
    assert line in str(no_classes.value)
    assert line in str(no_boxes.value)
    assert line in str(not_packed.value)
    refused = {
        found.kind: [case.note for case in found.cases]
        for found in checked(tmp_path).findings
        if found.advice.severity == "refused"
    }
    assert refused == {
        "not trainable": [str(no_boxes.value)],
        "other boxes": [str(no_classes.value)],
    }


@pytest.mark.parametrize(("file", "content"), [("boxes.xml", CVAT), ("via.json", VIA)])
def test_boxes_of_other_formats_in_parts_are_not_packed(
    tmp_path: Path, file: str, content: str
) -> None:
    """Each part has one folder, which is not a class."""
    for name in "abcd":
        part = "train" if name < "c" else "val"
        save_image(tmp_path / part / ("images" if name < "c" else "imgs") / f"{name}.png")
        text(tmp_path / part / file, content)
    with pytest.raises(ValueError, match=rf"{file} has boxes in the format of "):
        pack(tmp_path, tmp_path.parent / "packed")


def test_tables_of_boxes_are_named(tmp_path: Path) -> None:
    save_image(tmp_path / "images/a.png")
    rows = "a.png,40,30,cat,1,2,20,15\na.png,40,30,dog,5,6,30,25\n"
    text(tmp_path / "labels.csv", f"filename,width,height,class,xmin,ymin,xmax,ymax\n{rows}")
    with pytest.raises(ValueError, match=r"labels\.csv has boxes in the format of a table"):
        open_detection(tmp_path)
    notes = [case.note for found in checked(tmp_path).findings for case in found.cases]
    assert any("labels.csv has boxes in the format of a table" in note for note in notes)


def test_class_folders_beside_notes_of_a_tool_are_images_to_classify(tmp_path: Path) -> None:
    for name in "abcd":
        save_image(tmp_path / ("cat" if name < "c" else "dog") / f"{name}.png")
    text(tmp_path / "cat/a.json", LABELME)
    images = read_folder(tmp_path)
    assert not isinstance(images, Splits)
    assert images.ids == ("cat", "dog")
    assert reslab.check(tmp_path, size=32, on_event=None).count("refused") == 0
