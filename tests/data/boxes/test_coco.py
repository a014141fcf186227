"""COCO instances: reading them, and the error message for each fault."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.data.boxes.planted_boxes import Document, document, image, open_whole, plant_coco

from reslab.data.boxes.folder import open_detection


def test_boxes_labels_crowds_and_areas(tmp_path: Path) -> None:
    images = open_whole(plant_coco(tmp_path / "mine"))
    assert images.name == "mine"
    assert images.classes == ("car", "toothbrush")
    assert images.ids == ("4", "90")
    assert images.files == ["five.png", "three.png", "nine.png"]
    assert images.keys == [5, 3, 9]
    assert images.sizes == [(40, 30)] * 3
    five, three, nine = images.truths
    assert five.boxes.tolist() == [[0, 0, 40, 30]]
    assert five.crowd.tolist() == [True]
    assert three.boxes.tolist() == [[1, 2, 4, 6], [10.5, 5, 30.5, 25.25]]
    assert three.labels.tolist() == [1, 0]
    assert three.crowd.tolist() == three.difficult.tolist() == [False, False]
    assert three.areas is not None
    assert three.areas.tolist() == [7.5, 405.0]
    assert (three.boxes.dtype, three.labels.dtype) == (torch.float32, torch.int64)
    assert nine.boxes.shape == (0, 4)
    assert images.image(2).shape == (30, 40, 3)


@pytest.mark.parametrize("images", ["train2017", "images/train2017", "images"])
def test_the_official_layout(tmp_path: Path, images: str) -> None:
    plant_coco(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "instances.json").rename(tmp_path / "annotations/instances_train2017.json")
    other = {**document(), "annotations": [], "images": document()["images"][:1]}
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(other))
    (tmp_path / "annotations/captions_val2017.json").write_text("[]")
    if images != "images":
        shutil.move(tmp_path / "images", tmp_path / "moved")
        (tmp_path / images).parent.mkdir(exist_ok=True)
        shutil.move(tmp_path / "moved", tmp_path / images)
        image(tmp_path / images.replace("train", "val") / "five.png", 5)
    sets = open_detection(tmp_path)
    assert (sets.train.name, sets.test.name) == ("train", "validation")
    assert (len(sets.train), len(sets.test)) == (3, 1)
    assert sets.test.ids == sets.train.ids
    sets.train.image(0), sets.test.image(0)
    assert len(open_whole(tmp_path, years="2017")) == 1


def test_splits_with_their_own_annotation_files(tmp_path: Path) -> None:
    for part, seed in (("train", 1), ("valid", 2)):
        image(tmp_path / part / "a.png", seed)
        made = {**document(), "annotations": []}
        made["images"] = [{**made["images"][0], "file_name": "a.png"}]
        (tmp_path / part / "_annotations.coco.json").write_text(json.dumps(made))
    sets = open_detection(tmp_path)
    assert (sets.train.image(0) != sets.test.image(0)).any()


def test_two_years_in_one_folder_are_not_mixed(tmp_path: Path) -> None:
    plant_coco(tmp_path)
    (tmp_path / "annotations").mkdir()
    for name in ("train2014", "val2014", "train2017", "val2017"):
        shutil.copy(tmp_path / "instances.json", tmp_path / f"annotations/instances_{name}.json")
    (tmp_path / "instances.json").unlink()
    assert len(open_detection(tmp_path, years="2014").train) == 3
    with pytest.raises(ValueError, match="has annotations of 2014 and 2017: train with years=2017"):
        open_detection(tmp_path)
    with pytest.raises(ValueError, match="no COCO year '2015'; did you mean '201"):
        open_detection(tmp_path, years="2015")


def test_a_split_depends_on_seed_and_name(tmp_path: Path) -> None:
    plant_coco(tmp_path)
    sets = open_detection(tmp_path, validation=0.34)
    assert (len(sets.train), len(sets.test)) == (2, 1)
    assert {*sets.train.keys, *sets.test.keys} == {3, 5, 9}
    assert open_detection(tmp_path, validation=0.34).test.keys == sets.test.keys
    drawn = {
        open_detection(tmp_path, validation=0.34, seed=seed).test.keys[0] for seed in range(20)
    }
    assert drawn == {3, 5, 9}
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        open_detection(tmp_path, validation=1)


def test_an_empty_box_is_left_out_as_cocos_own_files_require(tmp_path: Path) -> None:
    def empty(doc: Document) -> None:
        doc["annotations"][0]["bbox"] = [1, 2, 0, 4]

    three = open_whole(plant_coco(tmp_path, empty)).truths[1]
    assert three.labels.tolist() == [0]


FAULTS: dict[str, tuple[Callable[[Document], object], str]] = {
    "no images": (lambda doc: doc.pop("images"), "instances.json: 'images' is missing; COCO"),
    "images no list": (lambda doc: doc.update(images={}), "instances.json: 'images' is not a list"),
    "no file name": (
        lambda doc: doc["images"][1].pop("file_name"),
        "instances.json: image number 2 has no 'file_name'",
    ),
    "size in words": (
        lambda doc: doc["images"][1].update(width="forty"),
        "instances.json: image number 2 has an invalid 'width': 'forty'",
    ),
    "half a pixel": (
        lambda doc: doc["images"][1].update(height=30.5),
        "instances.json: image number 2 has an invalid 'height': 30.5",
    ),
    "same image": (lambda doc: doc["images"][1].update(id=5), "two images have the id 5"),
    "same category": (
        lambda doc: doc["categories"][0].update(id=4), "two categories have the id 4",
    ),
    "a box of another kind": (
        lambda doc: doc["annotations"][1].update(bbox={"x": 1}),
        "instances.json: annotation number 2 has an invalid 'bbox': {'x': 1}",
    ),
    "no object": (lambda doc: doc["annotations"].append(7), "annotation number 4 is not an object"),
    "unknown image": (
        lambda doc: doc["annotations"][0].update(image_id=4),
        "instances.json: annotation 1 refers to image 4, which is not listed",
    ),
    "unknown category": (
        lambda doc: doc["annotations"][2].update(category_id=5),
        "instances.json: annotation 3: no category has the id 5",
    ),
    "negative width": (
        lambda doc: doc["annotations"][0].update(bbox=[10, 2, -3, 4]),
        "instances.json: annotation 1: swapped corners (box 10 2 7 6 in an image of 40 x 30)",
    ),
    "three numbers": (
        lambda doc: doc["annotations"][0].update(bbox=[10, 2, 3]),
        "instances.json: annotation 1: not numbers (bbox [10, 2, 3])",
    ),
    "infinite": (
        lambda doc: doc["annotations"][0].update(bbox=[10, 2, 3, float("inf")]),
        "instances.json: annotation 1: not numbers",
    ),
    "huge": (
        lambda doc: doc["annotations"][0].update(bbox=[10, 2, 3, 10**400]),
        "instances.json: annotation 1: not numbers",
    ),
    "outside": (
        lambda doc: doc["annotations"][0].update(bbox=[40, 2, 3, 4]),
        "instances.json: annotation 1: box outside (box 40 2 43 6 in an image of 40 x 30)",
    ),
    "missing image": (
        lambda doc: doc["images"][2].update(file_name="gone.png"),
        "images/gone.png does not exist",
    ),
    "a name that no file can have": (
        lambda doc: doc["images"][2].update(file_name="a\0/b\n.png"),
        "b .png does not exist",
    ),
    "an absolute name": (
        lambda doc: doc["images"][2].update(file_name="/etc/passwd"),
        "/etc/passwd does not exist",
    ),
    "nothing": (
        lambda doc: doc.update(images=[], annotations=[]), "the annotations list no images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_gives_a_one_line_error_with_file_and_place(name: str, tmp_path: Path) -> None:
    spoil, line = FAULTS[name]
    with pytest.raises(ValueError, match=re.escape(line)) as caught:
        open_whole(plant_coco(tmp_path, spoil))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'{"images": [\n1,\n2', "instances.json:3: malformed JSON: Expecting"),
        (b"", "instances.json:1: malformed JSON"),
        (b"[1, 2]", "instances.json: not COCO instances, a JSON object with"),
        (b"\xff\xfe\xfd", "instances.json: not UTF-8 text"),
        (b"[" * 100_000, "instances.json: nested too deeply"),
    ],
)
def test_malformed_json_gives_a_one_line_error(data: bytes, line: str, tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(line)) as caught:
        open_whole(tmp_path)
    assert "\n" not in str(caught.value)


def test_coco128(shared: Path) -> None:
    images = open_whole(shared / "detection" / "coco128")
    assert len(images) == 128
    assert len(images.classes) == 80
    assert sum(len(truth) for truth in images.truths) == 929
    assert len(torch.cat([truth.labels for truth in images.truths]).unique()) == 71
    assert sum(len(truth) == 0 for truth in images.truths) == 2
    for index in (0, 64, 127):
        width, height = images.sizes[index]
        assert images.image(index).shape == (height, width, 3)
    sets = open_detection(shared / "detection" / "coco128", validation=0.25)
    assert (len(sets.train), len(sets.test)) == (96, 32)
