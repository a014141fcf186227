"""VOC annotations as other tools write them: tags, flags, encodings, outlines, names of files."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import pytest
from tests.field.opened import Boxes, boxes_of

from reslab.api.check import check
from reslab.data.boxes.folder import open_detection

BOXES = Path(__file__).parent / "boxes"


def plain(folder: Path) -> Path:
    for name in ("Annotations", "JPEGImages"):
        shutil.copytree(BOXES / "list-ext" / name, folder / name)
    return folder


def rewrite(folder: Path, change: Callable[[str], str], encoding: str = "utf-8") -> Path:
    """Change the text of every XML file of an ordinary folder."""
    for path in (plain(folder) / "Annotations").iterdir():
        path.write_bytes(change(path.read_text()).encode(encoding))
    return folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Boxes:
    return boxes_of(plain(tmp_path_factory.mktemp("plain")))


def plant_voc(folder: Path, name: str) -> Path:
    shutil.copytree(BOXES / "voc-records" / name, folder / "Annotations")
    shutil.copytree(BOXES / "list-ext/JPEGImages", folder / "JPEGImages")
    return folder


@pytest.mark.parametrize("name", ["difficult-word", "polygon", "Annotation", "gbk"])
def test_xml_of_other_tools_means_the_same(name: str, expected: Boxes, tmp_path: Path) -> None:
    boxes = boxes_of(plant_voc(tmp_path / name, name))
    assert [box[:2] for box in boxes] == [box[:2] for box in expected]
    classes = {"cat": "猫", "dog": "狗"} if name == "gbk" else {}
    assert [box[2] for box in boxes] == [classes.get(box[2], box[2]) for box in expected]
    assert open_detection(tmp_path / name).train.notes == ()


def test_text_in_an_undeclared_encoding_is_named(tmp_path: Path) -> None:
    folder = plant_voc(tmp_path, "gbk-undeclared")
    with pytest.raises(ValueError, match=r"^Annotations/000.xml:\d: not UTF-8 text; state its"):
        open_detection(folder)


def test_classes_that_differ_in_case_get_a_remark(tmp_path: Path) -> None:
    (note,) = open_detection(plant_voc(tmp_path, "case")).train.notes
    assert note.startswith("classes: 2 classes have names that are equal or nearly so: ")


def declared(encoding: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        named = text.replace("<name>dog", "<name>Hündin")
        return f'<?xml version="1.0" encoding="{encoding}"?>\n{named}'

    return change


@pytest.mark.parametrize(
    ("named", "written"),
    [
        ("UTF-8", "utf-8-sig"), ("utf-16", "utf-16"), ("utf-16", "utf-8"), ("latin-1", "latin-1"),
        ("windows-1252", "cp1252"), ("gb18030", "gb18030"), ("utf8", "utf-8"),
    ],
)  # fmt: skip
def test_declared_encodings(named: str, written: str, expected: Boxes, tmp_path: Path) -> None:
    boxes = boxes_of(rewrite(tmp_path, declared(named), written))
    names = {"dog": "Hündin", "cat": "cat"}
    assert boxes == [(stem, box, names[name]) for stem, box, name in expected]


@pytest.mark.parametrize(
    ("named", "line"),
    [
        ("nix", "000.xml:1: unknown encoding 'nix'"),
        ("hex", "000.xml:1: unknown encoding 'hex'"),
        ("ascii", "000.xml:1: not ascii text, as its first line states"),
        ("utf-8", "not UTF-8 text; state its encoding in the first line"),
    ],
)
def test_text_that_is_not_in_its_encoding_is_named(named: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=line):
        open_detection(rewrite(tmp_path, declared(named), "latin-1"))


BOX = re.compile(
    r"<bndbox><xmin>(.+?)</xmin><ymin>(.+?)</ymin><xmax>(.+?)</xmax><ymax>(.+?)</ymax></bndbox>"
)


@pytest.mark.parametrize(
    "outline",
    [
        "<polygon><x1>{0}</x1><y1>{1}</y1><x2>{2}</x2><y2>{1}</y2><x3>{0}</x3><y3>{3}</y3></polygon>",
        "<polygon><pt><x>{0}</x><y>{3}</y></pt><pt><x>{2}</x><y>{1}</y></pt></polygon>",
        "<points><x>{2}</x><y>{1}</y><x>{0}</x><y>{3}</y></points>",
        "<BndBox><xMin>{0}</xMin><yMin>{1}</yMin><xMax>{2}.0</xMax><YMAX>{3}</YMAX></BndBox>",
    ],
)
def test_boxes_of_outlines(outline: str, expected: Boxes, tmp_path: Path) -> None:
    def change(text: str) -> str:
        return BOX.sub(lambda match: outline.format(*match.groups()), text)

    assert boxes_of(rewrite(tmp_path, change)) == expected


def test_objects_without_a_box_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = rewrite(tmp_path, lambda text: text.replace("bndbox", "nothing", 2))
    sets = open_detection(folder)
    count = sum(len(truth) for images in (sets.train, sets.test) for truth in images.truths)
    assert sets.train.notes == ("Annotations: 8 annotations without a box: left out",)
    assert count == 14 - 8


@pytest.mark.parametrize(
    "size", ["", "<size/>", "<size><width>0</width></size>",
             "<size><width></width><height>None</height></size>"],
)  # fmt: skip
def test_sizes_that_are_not_annotated(size: str, expected: Boxes, tmp_path: Path) -> None:
    def change(text: str) -> str:
        start, end = text.index("<size>"), text.index("</size>")
        return text[:start] + size + text[end + 7 :]

    folder = rewrite(tmp_path, change)
    assert boxes_of(folder) == expected
    (note,) = open_detection(folder).train.notes
    assert note.startswith("Annotations: 8 of 8 images have no size in the annotations")


@pytest.mark.parametrize(
    ("xml", "image"),
    [
        ("{}.xml", "{}.JPG"),
        ("{}.jpg.xml", "{}.jpg"),
        ("Äpfel-{}.xml", normalize("NFD", "Äpfel-{}.jpg")),
        ("img_{}.xml", "IMG_{}.jpg"),
        ("label_{}.xml", "photo {}.jpg"),  # by <filename>
    ],
)
def test_names_that_fit_one_image_are_found(
    xml: str, image: str, expected: Boxes, tmp_path: Path
) -> None:
    def change(text: str) -> str:
        for number in range(8):
            named = f"D:\\set\\{image.format(f'{number:03}')}"
            text = text.replace(f"<filename>{number:03}.jpg", f"<filename>{named}")
        return text

    rewrite(tmp_path, change)
    for folder, pattern in (("Annotations", xml), ("JPEGImages", image)):
        for path in list((tmp_path / folder).iterdir()):
            path.rename(path.with_name(pattern.format(path.stem)))
    boxes = boxes_of(tmp_path)
    assert [box for _, box, _ in boxes] == [box for _, box, _ in expected]
    kinds = [finding.kind for finding in check(tmp_path).findings]
    assert "missing image" not in kinds
    assert "not listed" not in kinds
