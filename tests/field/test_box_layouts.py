"""COCO and VOC in the arrangements that people and tools make."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from tests.data.boxes.planted_boxes import CAT, DOG, image, sheet

from reslab.api.pack import pack
from reslab.data.boxes.annotations import Annotations
from reslab.data.boxes.build import detection_set
from reslab.data.boxes.folder import is_detection, open_detection, read_annotations
from reslab.data.boxes.sets import notes_of_splits
from reslab.data.datasets import EncodedImages, Splits, draw_validation
from reslab.data.folder import open_folder_parts, open_whole_folder, read_folder

TRAIN, VALID = [f"{k:03}" for k in range(6)], ["100", "101", "102"]
Files = dict[str, list[str]]  # images by the folder that they lie in


def coco(path: Path, keys: list[str], prefix: str = "") -> None:
    """Write COCO instances: one cat in each image, and a dog in the first."""
    names = [f"{prefix}{key}.jpg" for key in keys]
    rows = [(row, 1) for row in range(len(keys))] + [(0, 2)]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {
        "images": [
            {"id": row, "file_name": name, "width": 40, "height": 30}
            for row, name in enumerate(names)
        ],
        "annotations": [
            {"id": number, "image_id": row, "category_id": category, "bbox": [2, 3, 10, 9]}
            for number, (row, category) in enumerate(rows)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    path.write_text(json.dumps(text))


def voc(folder: Path, keys: list[str], suffix: str = ".xml") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for key in keys:
        (folder / f"{key}{suffix}").write_text(sheet(CAT, *([DOG] if key == keys[0] else [])))


def images(folder: Path, keys: list[str]) -> None:
    for key in keys:
        image(folder / f"{key}.jpg", int(key))


# annotation files of the training and the validation part, and the folders of their images
COCO_SPLIT = {
    "official": ("annotations/instances_train2017.json", "annotations/instances_val2017.json",
                 "train2017", "val2017"),
    "CVAT": ("annotations/instances_Train.json", "annotations/instances_Validation.json",
             "images/Train", "images/Validation"),
    "beside images": ("train.json", "val.json", "images", "images"),
    "ISAT": ("train/train_COCO.json", "val/val_COCO.json", "train", "val"),
    "trainval and test": ("annotations/instances_trainval.json", "annotations/instances_test.json",
                          "trainval", "test"),
    "Detectron": ("annotations/voc_2007_trainval.json", "annotations/voc_2007_test.json",
                  "images", "images"),
    "MMDetection": ("annotations/train.json", "annotations/valid.json", "data/train", "data/valid"),
    "Roboflow": ("train/_annotations.coco.json", "valid/_annotations.coco.json", "train", "valid"),
    "fiftyone": ("train/labels.json", "validation/labels.json", "train/data", "validation/data"),
    "capitals": ("Annotations/TRAIN.JSON", "Annotations/VAL.JSON", "Images/TRAIN", "Images/VAL"),
    "one folder down": ("archive/annotations/train.json", "archive/annotations/val.json",
                        "archive/train", "archive/val"),
    "labels": ("labels/training_set.json", "labels/eval.json", "images/training_set",
               "images/eval"),
    "two years": ("train_2021.json", "val_2022.json", "train", "val"),
}  # fmt: skip


@pytest.mark.parametrize("name", COCO_SPLIT)
def test_coco_with_two_parts(name: str, tmp_path: Path) -> None:
    train_file, test_file, train_images, test_images = COCO_SPLIT[name]
    coco(tmp_path / train_file, TRAIN)
    coco(tmp_path / test_file, VALID)
    images(tmp_path / train_images, TRAIN)
    images(tmp_path / test_images, VALID)
    must_be_split(tmp_path, notes=())


def test_images_of_equal_names_are_taken_from_their_own_part(tmp_path: Path) -> None:
    for part, seed in (("train", 1), ("test", 2)):
        coco(tmp_path / f"annotations/{part}.json", ["000"])
        image(tmp_path / f"data/{part}/000.jpg", seed)
    sets = open_detection(tmp_path)
    assert (sets.train.image(0) != sets.test.image(0)).any()


COCO_WHOLE = {
    "Label Studio": ("result.json", "images", ""),
    "fiftyone": ("labels.json", "data", ""),
    "paths": ("coco.json", "photos/a", "photos/a/"),
    "one folder down": ("street/export/x.json", "street/images", ""),
    "beside the images": ("mine/boxes.json", "mine", ""),
    "CVAT's default": ("annotations/instances_default.json", "images/default", ""),
}


@pytest.mark.parametrize("name", COCO_WHOLE)
def test_coco_in_a_single_file(name: str, tmp_path: Path) -> None:
    file, folder, prefix = COCO_WHOLE[name]
    coco(tmp_path / file, TRAIN, prefix)
    images(tmp_path / folder, TRAIN)
    must_be_whole(tmp_path)
    whole = read_annotations(tmp_path / file)
    assert isinstance(whole, Annotations)
    assert len(detection_set(whole)) == len(TRAIN)


def test_other_json_files_are_no_annotations(tmp_path: Path) -> None:
    coco(tmp_path / "annotations/instances_default.json", TRAIN)
    images(tmp_path / "images", TRAIN)
    captions = {"images": [], "annotations": [{"id": 1, "image_id": 1, "caption": "a"}]}
    (tmp_path / "annotations/captions.json").write_text(json.dumps(captions))
    (tmp_path / "annotations/results.json").write_text('[{"image_id": 1, "bbox": [1, 2, 3, 4]}]')
    shutil.copy(
        tmp_path / "annotations/instances_default.json", tmp_path / "annotations/keypoints.json"
    )
    (tmp_path / "package.json").write_text('{"images": 3}')
    must_be_whole(tmp_path)


def test_classes_without_boxes_are_no_annotated_boxes(tmp_path: Path) -> None:
    coco(tmp_path / "train.json", TRAIN)
    document = json.loads((tmp_path / "train.json").read_text())
    for annotation in document["annotations"]:
        del annotation["bbox"]  # as in iNaturalist
    (tmp_path / "train.json").write_text(json.dumps(document))
    assert not is_detection(tmp_path)


def test_a_third_part_is_left_out_with_a_note(tmp_path: Path) -> None:
    for part, keys in (("train", TRAIN), ("val", VALID), ("test", ["200"])):
        coco(tmp_path / f"{part}.json", keys)
        images(tmp_path / part, keys)
    must_be_split(
        tmp_path,
        notes=(
            "test.json: not used: val.json is the split to test on",
            "test/: not listed, and not used: 1 image",
        ),
    )


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (("a.json", "b.json"), "name them train.json and val.json, or name one file with `data`"),
        (("train.json", "x/train.json"), "are both for 'train': move one of them"),
        (("all.json", "val.json"), "it needs a training and a test split, or a single file"),
    ],
)
def test_files_whose_parts_are_not_clear(files: tuple, line: str, tmp_path: Path) -> None:
    for file in files:
        coco(tmp_path / file, TRAIN)
    if files[1].startswith("x"):
        shutil.move(tmp_path / files[0], tmp_path / "x" / "train_2.json")
    images(tmp_path / "images", TRAIN)
    with pytest.raises(ValueError, match=line):
        read_annotations(tmp_path)


# folders of XML files and of images
VOC_WHOLE = {
    "small letters": ("annotations", "images"),
    "labels": ("labels", "images"),
    "labelImg": (".", "."),
    "one folder down": ("mine/Annotations", "mine/JPEGImages"),
    "kangaroo": ("annots", "images"),
    "image": ("Annotation", "Image"),
    "another year": ("VOCdevkit/VOC2010/Annotations", "VOCdevkit/VOC2010/JPEGImages"),
    "in a subfolder": ("Annotations/train", "JPEGImages/train"),
    "xmls": ("annotations/xmls", "images"),
    "beside their folder": ("xml", "."),
    "names that say nothing": ("a", "b"),
}


@pytest.mark.parametrize("suffix", [".xml", ".XML"])
@pytest.mark.parametrize("name", VOC_WHOLE)
def test_voc_without_lists(name: str, suffix: str, tmp_path: Path) -> None:
    sheets, folder = VOC_WHOLE[name]
    voc(tmp_path / sheets, TRAIN, suffix)
    images(tmp_path / folder, TRAIN)
    must_be_whole(tmp_path)


VOC_SPLIT = {
    "flat": ("train", "valid", "train", "valid"),
    "a part in a folder": ("train/annotations", "val/annotations", "train/images", "val/images"),
    "a part in each folder": ("annotations/train", "annotations/test", "images/train",
                              "images/test"),
    "a part in each name": ("train_annots", "eval_annots", "train_images", "eval_images"),
    "flat in a folder": ("cards/images/train", "cards/images/test", "cards/images/train",
                         "cards/images/test"),
    "one folder of XML": ("annotations", "annotations", "train_images", "test_images"),
    "images by class": ("train/annotations", "validation/annotations", "train/images/cats",
                        "validation/images/cats"),
}  # fmt: skip


@pytest.mark.parametrize("name", VOC_SPLIT)
def test_voc_in_two_parts(name: str, tmp_path: Path) -> None:
    train_sheets, test_sheets, train_images, test_images = VOC_SPLIT[name]
    voc(tmp_path / train_sheets, TRAIN)
    voc(tmp_path / test_sheets, VALID)
    images(tmp_path / train_images, TRAIN)
    images(tmp_path / test_images, VALID)
    must_be_split(tmp_path, notes=())


def must_be_split(folder: Path, notes: tuple[str, ...]) -> None:
    assert is_detection(folder)
    assert isinstance(read_annotations(folder), Splits)
    sets = open_detection(folder)
    found = [sorted(Path(file).stem for file in files.files) for files in (sets.train, sets.test)]
    assert found == [TRAIN, VALID]
    assert sets.train.classes == sets.test.classes == ("cat", "dog")
    assert sum(map(len, sets.train.truths)) == len(TRAIN) + 1
    assert notes_of_splits(sets) == notes
    sets.train.image(5), sets.test.image(2)
    must_not_be_packed(folder)


def must_be_whole(folder: Path) -> None:
    assert is_detection(folder)
    whole = read_annotations(folder)
    assert isinstance(whole, Annotations)
    images = detection_set(whole)
    assert sorted(Path(file).stem for file in images.files) == TRAIN
    assert images.classes == ("cat", "dog")
    assert len(images.truths[0]) == 2
    images.image(5)
    must_not_be_packed(folder)


def must_not_be_packed(folder: Path) -> None:
    """Shards have no boxes: packing would lose them."""
    out = folder.parent / "packed"
    with pytest.raises(ValueError, match=r" has images with boxes \((COCO|VOC|YOLO)\), .*pack"):
        pack(folder, out)
    assert not out.exists()


def test_both_parts_have_objects_and_an_ordinary_split_is_the_one_of_the_names(
    tmp_path: Path,
) -> None:
    keys = [f"{k:03}" for k in range(20)]
    (tmp_path / "Annotations").mkdir()
    images(tmp_path / "JPEGImages", keys)
    for key in keys:
        text = sheet(CAT) if int(key) % 2 else sheet()
        (tmp_path / f"Annotations/{key}.xml").write_text(text)
    ordinary = 0
    for seed in range(20):
        sets = open_detection(tmp_path, validation=0.2, seed=seed)
        assert len(sets.train) == 16
        assert 0 < sum(len(truth) for truth in sets.test.truths) < 10
        files = sorted((*sets.train.files, *sets.test.files))
        _, drawn = draw_validation(files, 0.2, seed, [torch.arange(20)])
        ordinary += sets.test.files == [files[row] for row in drawn.tolist()]
    assert ordinary > 15


@pytest.mark.parametrize("text", [sheet(), sheet(DOG)])
def test_a_few_images_with_objects_are_in_both_parts(text: str, tmp_path: Path) -> None:
    keys = [f"{k:03}" for k in range(8)]
    (tmp_path / "Annotations").mkdir()
    images(tmp_path / "JPEGImages", keys)
    for key in keys:
        (tmp_path / f"Annotations/{key}.xml").write_text(sheet(CAT) if key < "003" else text)
    for seed in range(20):
        sets = open_detection(tmp_path, validation=0.2, seed=seed)
        for part in (sets.train, sets.test):
            assert any((~truth.difficult).any() for truth in part.truths)


@pytest.mark.parametrize(
    ("sheets", "folder"), [("Annotations", "JPEGImages"), (".", "."), ("train/a", "train/b")]
)
def test_boxes_are_no_images_to_classify(sheets: str, folder: str, tmp_path: Path) -> None:
    voc(tmp_path / sheets, TRAIN)
    images(tmp_path / folder, TRAIN)
    for open_images in (read_folder, open_whole_folder, open_folder_parts):
        with pytest.raises(ValueError, match=r"boxes \(VOC\), .* use own-detection-resnet50-c4"):
            open_images(tmp_path)


def test_sets_of_boxes_are_no_classes(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        voc(tmp_path / f"VOCdevkit/{year}/Annotations", TRAIN)
        images(tmp_path / f"VOCdevkit/{year}/JPEGImages", TRAIN)
    with pytest.raises(ValueError, match=r"has images with boxes \(VOC\)"):
        read_folder(tmp_path)


def test_class_folders_have_no_boxes(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        images(tmp_path / name, TRAIN)
    assert not is_detection(tmp_path)
    with pytest.raises(ValueError, match=r"images by class, without boxes: .* own-resnet50"):
        read_annotations(tmp_path)


def test_class_folders_with_boxes_beside_the_images_are_classes_too(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        images(tmp_path / name, TRAIN)
        voc(tmp_path / name, TRAIN)
    classes = read_folder(tmp_path)
    assert isinstance(classes, EncodedImages)
    assert classes.ids == ("cats", "dogs")
    assert len(open_detection(tmp_path).train) == 10


def test_own_classes_in_a_folder_named_like_vocs(tmp_path: Path) -> None:
    home = tmp_path / "VOCdevkit/VOC2007"
    images(home / "JPEGImages", TRAIN)
    (home / "Annotations").mkdir()
    for key in TRAIN:
        text = sheet(("helmet", (1, 1, 9, 9), ""), ("person", (1, 1, 20, 20), ""))
        (home / f"Annotations/{key}.xml").write_text(text)
    assert open_detection(tmp_path).train.classes == ("helmet", "person")
    (home / "ImageSets/Main").mkdir(parents=True)
    for part, keys in (("trainval", TRAIN[:4]), ("test", TRAIN[4:])):
        (home / f"ImageSets/Main/{part}.txt").write_text("\n".join(keys))
    sets = open_detection(tmp_path)
    assert sets.train.classes == sets.test.classes == ("helmet", "person")
    assert sets.test.keys == TRAIN[4:]
    with pytest.raises(ValueError, match="no class 'helmet'; "):
        open_detection(tmp_path, years="07")


def test_several_sets_of_boxes_are_not_mixed(tmp_path: Path) -> None:
    for year, keys in (("VOC2010", TRAIN), ("VOC2011", VALID)):
        voc(tmp_path / f"VOCdevkit/{year}/Annotations", keys)
        images(tmp_path / f"VOCdevkit/{year}/JPEGImages", keys)
    with pytest.raises(ValueError, match=r"has 2 sets of boxes, .*: name one of them with `data`"):
        read_annotations(tmp_path)
    assert len(open_detection(tmp_path / "VOCdevkit/VOC2011").test) == 1


def test_a_link_to_a_folder_above_ends_the_search(tmp_path: Path) -> None:
    voc(tmp_path / "a", TRAIN)
    images(tmp_path / "a", TRAIN)
    (tmp_path / "a/up").symlink_to(tmp_path)
    images(tmp_path / "elsewhere", VALID)
    must_be_whole(tmp_path / "a")


def test_annotations_of_the_same_images_are_read_once(tmp_path: Path) -> None:
    images(tmp_path / "images", TRAIN)
    voc(tmp_path / "annotations", TRAIN)
    voc(tmp_path / "backup", TRAIN[:2])
    must_be_whole(tmp_path)
    (note,) = open_detection(tmp_path).train.notes
    assert note == "backup/: 2 annotation files not used, as others are read instead"
    (tmp_path / "annotations").rename(tmp_path / "checked")
    with pytest.raises(ValueError, match="annotate the same images: move one of them out"):
        read_annotations(tmp_path)


@pytest.mark.parametrize("tested", ["val", "test"])
def test_trainval_is_for_the_test_part_and_train_for_validation(
    tested: str, tmp_path: Path
) -> None:
    coco(tmp_path / "annotations/instances_train.json", TRAIN[:3])
    coco(tmp_path / "annotations/instances_trainval.json", TRAIN)
    coco(tmp_path / f"annotations/instances_{tested}.json", VALID)
    images(tmp_path / "images", TRAIN + VALID)
    sets = open_detection(tmp_path)
    assert (len(sets.train), len(sets.test)) == (3 if tested == "val" else 6, 3)
    note = f"not used: annotations/instances_{tested}.json is the split to test on"
    assert any(line.endswith(note) for line in sets.train.notes)


def test_images_without_a_subset_in_cvat_are_trained_on(tmp_path: Path) -> None:
    for name, keys in (("default", TRAIN), ("Test", VALID)):
        coco(tmp_path / f"annotations/instances_{name}.json", keys)
        images(tmp_path / f"images/{name}", keys)
    must_be_split(tmp_path, notes=())


def test_lists_beside_the_images(tmp_path: Path) -> None:
    voc(tmp_path, TRAIN + VALID)
    images(tmp_path, TRAIN + VALID)
    for name, keys in (("train", TRAIN), ("val_list", VALID)):
        (tmp_path / f"{name}.txt").write_text("".join(f"{key}.jpg {key}.xml\n" for key in keys))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    sets = open_detection(tmp_path)
    assert (sets.train.keys, sets.test.keys) == (TRAIN, VALID)


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    for name in ("instances.json", "a.json", "a.xml"):
        os.mkfifo(tmp_path / name)
    images(tmp_path, TRAIN)
    assert not is_detection(tmp_path)
