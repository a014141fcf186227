"""Annotations as other tools write them: names of files, numbers, missing sizes and boxes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from PIL import Image
from tests.field.opened import boxes_of

from reslab.api.check import check
from reslab.data.boxes.folder import evaluation_part, open_detection, read_annotations
from reslab.data.boxes.sets import DetectionSet
from reslab.detection.setup import mean_colour

BOXES = Path(__file__).parent / "boxes"
IMAGES = BOXES / "bbox-normalised" / "images"  # of all these annotation files
Document = dict[str, Any]


def plant(folder: Path, name: str, change: Callable[[Document], object] = lambda doc: None) -> Path:
    """Create a folder from an annotation file, `change` it, and copy its images."""
    document = json.loads((BOXES / "coco-records" / f"{name}.json").read_text())
    change(document)
    (folder / "instances.json").write_text(json.dumps(document))
    shutil.copytree(IMAGES, folder / "images")
    return folder


def rename_images(folder: Path, new_name: Callable[[str], str]) -> None:
    for path in list((folder / "images").iterdir()):
        path.rename(folder / "images" / new_name(path.name))


def whole(folder: Path) -> DetectionSet:
    sets = open_detection(folder)
    rows = [*sets.train.keys, *sets.test.keys]
    assert len(rows) == 8
    return sets.train


def plain(document: Document) -> None:
    """Make the file of case `no-size` an ordinary one."""
    for image in document["images"]:
        image |= {"width": 160, "height": 120}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, list[float], str]]:
    boxes = boxes_of(plant(tmp_path_factory.mktemp("plain"), "no-size", plain))
    assert len(boxes) == 14
    assert ("000", [7, 35, 55, 72], "cat") in boxes
    return boxes


@pytest.mark.parametrize(
    ("name", "remark"),
    [
        ("no-size", "no size"),
        ("size-minus1", "no size"),
        ("size-float", ""),
        ("size-str", ""),
        ("float-ids", ""),
        ("category-id-str", ""),
        ("image-id-mixed", ""),
        ("bbox-str", ""),
        ("bbox-empty", ""),
        ("no-bbox-polygon", ""),
        ("ls-storage-path", "other name"),
        ("absolute", "other name"),
        ("other-prefix", "other name"),
    ],
)
def test_records_of_other_tools_mean_the_same(
    name: str, remark: str, expected: list[tuple[str, list[float], str]], tmp_path: Path
) -> None:
    folder = plant(tmp_path, name)
    assert boxes_of(folder) == expected
    found = {finding.kind: finding for finding in check(folder).findings}
    assert all(finding.advice.severity == "remark" for finding in found.values())
    assert remark == "" or remark in found
    notes = open_detection(folder).train.notes
    assert len(notes) == (remark != "")


def rewrite(change: Callable[[str], str]) -> Callable[[Document], None]:
    def rewritten(document: Document) -> None:
        plain(document)
        for image in document["images"]:
            image["file_name"] = change(image["file_name"])

    return rewritten


@pytest.mark.parametrize(
    ("annotated", "on_disk"),
    [
        (lambda name: f"images\\{name}", str),
        (lambda name: f"C:\\Users\\me\\set\\images\\{name}", str),
        (lambda name: f"/content/drive/{name}", str),
        (lambda name: f"s3://bucket/photos/{name}", str),
        (lambda name: f"https://host/data/{name}?raw=1", str),
        (lambda name: f"/data/local-files/?d=set/{name}", str),
        (lambda name: f" {name} ", str),
        (lambda name: f"my%20photo%20{name}", lambda name: f"my photo {name}"),
        (str, str.upper),
        (str, lambda name: name.replace(".jpg", ".JPG")),
        (lambda name: name.replace("jpg", "png"), str),
        (lambda name: name.removesuffix(".jpg"), str),
        (lambda name: f"Äpfel-{name}", lambda name: normalize("NFD", f"Äpfel-{name}")),
        (lambda name: normalize("NFD", f"é{name}"), lambda name: f"é{name}"),
    ],
)
def test_names_that_fit_one_image_are_found(
    annotated: Callable[[str], str],
    on_disk: Callable[[str], str],
    expected: list[tuple[str, list[float], str]],
    tmp_path: Path,
) -> None:
    folder = plant(tmp_path, "no-size", rewrite(annotated))
    rename_images(folder, on_disk)
    boxes = boxes_of(folder)
    assert [box for _, box, _ in boxes] == [box for _, box, _ in expected]
    (note,) = open_detection(folder).train.notes
    assert note.startswith("instances.json: 8 of 8 images have another name on disk: ")


def test_thumbnails_of_the_system_fit_no_name(tmp_path: Path) -> None:
    folder = plant(tmp_path, "no-size", rewrite(lambda name: f"/data/{name}"))
    for name in ("@eaDir", "__MACOSX", ".thumbnails"):
        shutil.copytree(folder / "images", folder / name)
        shutil.copytree(folder / "images", folder / "images" / name)
    (note,) = whole(folder).notes
    assert "8 of 8 images have another name on disk" in note


def test_the_nearest_folder_decides_between_equal_names(tmp_path: Path) -> None:
    folder = plant(tmp_path, "no-size", rewrite(lambda name: f"/data/new/{name}"))
    (folder / "images").rename(folder / "new")
    shutil.copytree(folder / "new", folder / "old")
    assert {Path(file).parent.name for file in whole(folder).files} == {"new"}


@pytest.mark.parametrize("names", [("new", "old"), ("train", "val")])
def test_the_same_names_in_two_folders_are_ambiguous(
    names: tuple[str, str], tmp_path: Path
) -> None:
    folder = plant(tmp_path, "no-size", plain)
    (folder / "images").rename(folder / names[0])
    shutil.copytree(folder / names[0], folder / names[1])
    line = f"2 images fit this name: {names[0]}/000.jpg, {names[1]}/000.jpg"
    with pytest.raises(ValueError, match=line):
        open_detection(folder)


def test_names_that_fit_several_images_or_none_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = plant(tmp_path, "no-size", rewrite(lambda name: f"/data/{name}"))
    (folder / "images").rename(folder / "new")
    shutil.copytree(folder / "new", folder / "old")
    line = "2 images fit this name: new/000.jpg, old/000.jpg; `reslab check FOLDER` lists 7 more"
    with pytest.raises(ValueError, match=line):
        open_detection(folder)
    shutil.rmtree(folder / "old")
    (folder / "new").rename(folder / "images")
    rename_images(folder, lambda name: f"x{name}")
    with pytest.raises(ValueError, match=r"has 8 images, such as x000\.jpg"):
        open_detection(folder)


@pytest.mark.parametrize("prefix", ["", "/content/set/", "train/"])
def test_an_image_missing_in_training_is_not_that_of_validation(
    prefix: str, tmp_path: Path
) -> None:
    folder = plant(tmp_path, "no-size", rewrite(lambda name: prefix + name))
    (folder / "images").rename(folder / "train")
    shutil.copytree(folder / "train", folder / "val")
    (folder / "annotations").mkdir()
    (folder / "instances.json").rename(folder / "annotations/instances_train.json")
    validation = json.loads((BOXES / "coco-records/no-size.json").read_text())
    (folder / "annotations/instances_val.json").write_text(json.dumps(validation))
    assert len(open_detection(folder).train) == 8
    (folder / "train/000.jpg").unlink()
    with pytest.raises(ValueError, match=r"000\.jpg does not exist"):
        open_detection(folder)


def test_images_in_several_folders_are_found(tmp_path: Path) -> None:
    folder = plant(tmp_path, "no-size", plain)
    for number in range(8):
        place = folder / "images" / "ab"[number % 2]
        place.mkdir(exist_ok=True)
        (folder / f"images/00{number}.jpg").rename(place / f"00{number}.jpg")
    assert {Path(file).parent.name for file in whole(folder).files} == {"a", "b"}


def test_two_names_for_one_image_are_refused(tmp_path: Path) -> None:
    def twice(document: Document) -> None:
        plain(document)
        document["images"][0]["file_name"] = "a/000.jpg"
        document["images"][1]["file_name"] = "b/000.jpg"

    with pytest.raises(ValueError, match=r"000\.jpg fits several names in the annotations"):
        open_detection(plant(tmp_path, "no-size", twice))


@pytest.mark.parametrize(
    ("name", "line", "cases"),
    [
        ("cat-null", "annotation number 1 has an invalid 'category_id': None", 1),
        ("dup-image-id", "two images have the id ", None),
    ],
)
def test_a_fault_is_reported_once_without_its_consequences(
    name: str, line: str, cases: int | None, tmp_path: Path
) -> None:
    folder = plant(tmp_path, name)
    with pytest.raises(ValueError, match=line):
        open_detection(folder)
    kinds = {finding.kind: finding.cases for finding in check(folder).findings}
    assert "unknown image" not in kinds
    assert cases is None or len(kinds["annotation file"]) == cases


def drop(record: str, key: str) -> Callable[[Document], None]:
    def dropped(document: Document) -> None:
        plain(document)
        document[record][0].pop(key)

    return dropped


@pytest.mark.parametrize(
    ("record", "key"),
    [("images", "file_name"), ("images", "id"), ("categories", "id"), ("categories", "name")],
)
def test_the_annotations_of_a_refused_record_are_no_further_faults(
    record: str, key: str, tmp_path: Path
) -> None:
    folder = plant(tmp_path, "no-size", drop(record, key))
    with pytest.raises(ValueError, match=f"number 1 has no '{key}'$"):
        open_detection(folder)


def test_ids_that_differ_only_in_type_are_not_mixed_up(tmp_path: Path) -> None:
    def both(document: Document) -> None:
        plain(document)
        document["images"][1]["id"] = "1"  # beside the number 1
        document["annotations"] = [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": "1", "category_id": "2", "bbox": [5, 6, 7, 8]},
            {"id": 3, "image_id": "3", "category_id": 2.0, "bbox": [9, 9, 9, 9]},
        ]

    boxes = boxes_of(plant(tmp_path, "no-size", both))
    assert boxes == [
        ("000", [1, 2, 4, 6], "cat"),
        ("001", [5, 6, 12, 14], "dog"),
        ("002", [9, 9, 18, 18], "dog"),
    ]


@pytest.mark.parametrize(
    ("outline", "box"),
    [
        ([[10, 20, 30, 20, 30, 50]], [10, 20, 30, 50]),
        ([[10, 20, 30, 20, 30, 50], [60, 10, 70, 15]], [10, 10, 70, 50]),
        ([10, 20, 30, 20, 30, 50], [10, 20, 30, 50]),
        ([["10.5", "20", "30", "20", "30", "50"]], [10.5, 20, 30, 50]),
        # a mask: rows 1 to 2 of columns 1 to 3
        ({"size": [120, 160], "counts": [121, 2, 118, 2, 118, 2]}, [1, 1, 4, 3]),
        # three rectangles, compressed by pycocotools
        (
            {"size": [120, 160], "counts": r"i32f3000am1V1YQN0000000jT4\OjkK00000lT;"},
            [1, 1, 64, 120],
        ),
    ],
)
def test_the_box_of_an_outline(outline: object, box: list[float], tmp_path: Path) -> None:
    def outlined(document: Document) -> None:
        plain(document)
        entry = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": outline}
        document["annotations"] = [entry, {**entry, "bbox": [1, 1, 1, 1]}]

    boxes = boxes_of(plant(tmp_path, "no-size", outlined))
    assert sorted(b for _, b, _ in boxes) == sorted([box, [1, 1, 2, 2]])


@pytest.mark.parametrize("box", [None, [], {}, [None] * 4, [float("nan")] * 4])
def test_annotations_without_a_box_are_left_out_and_counted(box: object, tmp_path: Path) -> None:
    def emptied(document: Document) -> None:
        plain(document)
        for entry in document["annotations"][:3]:
            entry |= {"bbox": box, "segmentation": []}

    folder = plant(tmp_path, "no-size", emptied)
    sets = open_detection(folder)
    assert sum(len(truth) for images in (sets.train, sets.test) for truth in images.truths) == 11
    assert sets.train.notes == ("instances.json: 3 annotations without a box: left out",)


@pytest.mark.parametrize("box", ["[10, 20, 30, 40]", "10 20 30 40", ["10", 20.0, "30.0", 40]])
def test_boxes_written_as_text(box: object, tmp_path: Path) -> None:
    def written(document: Document) -> None:
        plain(document)
        document["annotations"][0]["bbox"] = box

    assert ("000", [10, 20, 40, 60], "cat") in boxes_of(plant(tmp_path, "no-size", written))


@pytest.mark.parametrize("size", [None, "", 0, -1, "0", float("nan")])
def test_a_size_without_a_value_is_read_from_the_image(size: object, tmp_path: Path) -> None:
    def emptied(document: Document) -> None:
        plain(document)
        document["images"][3]["width"] = size

    folder = plant(tmp_path, "no-size", emptied)
    assert evaluation_part(read_annotations(folder)).sizes == [(160, 120)] * 8
    note = "instances.json: 1 of 8 images have no size in the annotations: read from the files"
    assert open_detection(folder).train.notes == (note,)


def test_an_image_whose_size_is_nowhere_is_only_a_damaged_image(tmp_path: Path) -> None:
    folder = plant(tmp_path, "no-size")
    (folder / "images/002.jpg").write_bytes(b"damaged")
    (folder / "images/003.jpg").unlink()
    kinds = {finding.kind: len(finding.cases) for finding in check(folder).findings}
    assert kinds == {"missing image": 1, "bad image": 1, "no size": 1}


def test_flags_written_as_text(tmp_path: Path) -> None:
    def flagged(document: Document) -> None:
        plain(document)
        for number, flag in enumerate(("0", "1", False, True, "true", None)):
            document["annotations"][number]["iscrowd"] = flag

    sets = open_detection(plant(tmp_path, "no-size", flagged))
    truths = [truth for images in (sets.train, sets.test) for truth in images.truths]
    assert sum(int(truth.crowd.sum()) for truth in truths) == 3


@pytest.mark.parametrize(
    ("name", "kind", "note"),
    [
        ("unlisted", "not listed", "not listed, and not used: 4 images"),
        ("same-name-twice", "classes alike", "2 classes have names that are equal or nearly so: "),
        ("case-names", "classes alike", "2 classes have names that are equal or nearly so: "),
    ],
)
def test_what_deserves_a_remark(name: str, kind: str, note: str, tmp_path: Path) -> None:
    folder = plant(tmp_path, name)
    if name == "unlisted":
        for number in range(500, 504):
            shutil.copy(folder / "images/000.jpg", folder / f"images/{number}.jpg")
    found = {finding.kind: finding for finding in check(folder).findings}
    assert found[kind].advice.severity == "remark"
    assert found[kind].cases[0].note.startswith(note)
    (line,) = open_detection(folder).train.notes
    assert note in line


@pytest.mark.parametrize(
    ("name", "kind", "note"),
    [
        ("tiny", "tiny boxes", "14 of 14 boxes have a side below 16 pixels as a detector sees"),
        ("dup-ann-id", "repeated id", "several annotations have one id: 1"),
    ],
)
def test_what_only_the_check_remarks(name: str, kind: str, note: str, tmp_path: Path) -> None:
    folder = plant(tmp_path, name)
    (finding,) = [finding for finding in check(folder).findings if finding.kind == kind]
    assert finding.advice.severity == "remark"
    assert [case.note.startswith(note) for case in finding.cases] == [True]
    assert open_detection(folder).train.notes == ()


def test_an_image_that_is_too_large_gets_its_own_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plant(tmp_path, "no-size", plain)
    monkeypatch.setattr("reslab.data.decode.MAX_PIXELS", 160 * 120 - 1)
    monkeypatch.setattr("reslab.data.decode.scale", lambda *image: None)
    kinds = {finding.kind: finding for finding in check(folder).findings}
    assert "tiles" in kinds["image too large"].advice.fix
    assert len(kinds["image too large"].cases) == 8
    assert "bad image" not in kinds


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_exif_rotations_are_noticed_in_every_format(suffix: str, tmp_path: Path) -> None:
    def renamed(document: Document) -> None:
        plain(document)
        document["images"] = document["images"][:2]
        for image in document["images"]:
            image["file_name"] = image["file_name"].replace("jpg", suffix)
        document["annotations"] = document["annotations"][:1]
        document["annotations"].append({**document["annotations"][0], "image_id": 2})

    folder = plant(tmp_path, "no-size", renamed)
    for number, turn in ((0, 3), (1, 6)):
        exif = Image.Exif()
        exif[0x0112] = turn
        with Image.open(folder / f"images/00{number}.jpg") as image:
            image.save(folder / f"images/00{number}.{suffix}", exif=exif)
    found = {finding.kind: finding.cases for finding in check(folder).findings}
    assert [case.files for case in found["turned by EXIF"]] == [(f"images/000.{suffix}",)]
    assert [case.files for case in found["stored orientation"]] == [(f"images/001.{suffix}",)]


def test_the_reason_why_no_image_can_be_used_is_its_size(tmp_path: Path) -> None:
    folder = shutil.copytree(BOXES / "exif6-stored", tmp_path / "boxes")
    line = "120 x 160 pixels, but annotated as 160 x 120, its size before the EXIF rotation"
    with pytest.raises(ValueError, match=f"no image of train can be used: .*{line}"):
        mean_colour(open_detection(folder).train)
