"""YOLO: layouts that people have, rows by hand, and a sentence for each mistake."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.data.relay import as_yolo, whole_set

from reslab.data.boxes.build import detection_set
from reslab.data.boxes.folder import open_detection, read_annotations
from reslab.data.datasets import Splits

ROW = "1 0.5 0.5 0.25 0.5\n"  # in an image of 40 x 20: 15 5 25 15
YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def plant(root: Path, files: dict[str, str]) -> Path:
    """Write text files, and an image of 40 x 20 for each name of one."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".jpg":
            Image.new("RGB", (40, 20)).save(path)
        else:
            path.write_text(text)
    return root


def pairs(images: str, labels: str, names: str, row: str = ROW) -> dict[str, str]:
    """Return an image and a label file for each name."""
    files = {f"{images}/{name}.jpg": "" for name in names.split()}
    return files | {f"{labels}/{name}.txt": row for name in names.split()}


TRAIN_VAL = pairs("images/train", "labels/train", "a b") | pairs("images/val", "labels/val", "c")
LAYOUTS = {
    "ultralytics": TRAIN_VAL | {"data.yaml": YAML},
    "names by number": TRAIN_VAL
    | {
        "coco.yml": "path: ../datasets/x\ntrain: images/train\nval: images/val\n"
        "names:\n 0: cat\n 1: dog"
    },
    "roboflow": pairs("train/images", "train/labels", "a b")
    | pairs("valid/images", "valid/labels", "c")
    | {"data.yaml": "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n"},
    "another machine": pairs("train/images", "train/labels", "a b")
    | pairs("val/images", "val/labels", "c")
    | {
        "data.yaml": "train: /content/drive/x/train/images\nval: C:\\x\\val\\images\n"
        "names: [cat, dog]\n"
    },
    "text lists": pairs("images", "labels", "a b c")
    | {
        "train.txt": "./images/a.jpg\n/home/me/images/b.jpg\n",
        "val.txt": "./images/c.jpg\n",
        "my.yaml": "path: .\ntrain: train.txt\nval: val.txt\nnames: [cat, dog]\n",
    },
    "darknet": pairs("obj_train_data", "obj_train_data", "a b")
    | pairs("obj_valid_data", "obj_valid_data", "c")
    | {
        "obj.names": "cat\ndog\n",
        "train.txt": "data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n",
        "valid.txt": "data/obj_valid_data/c.jpg\n",
        "obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\n"
        "names = data/obj.names\n",
    },
    "a list in one file of two": pairs("p/images", "p/labels", "a")
    | pairs("q/images", "q/labels", "b")
    | pairs("v/images", "v/labels", "c")
    | {"my.yaml": "train: [p/images, q/images]\nval:\n- v/images\nnames: {'1': dog, '0': cat}\n"},
    "names in a text file": TRAIN_VAL
    | {"data.yaml": YAML.replace("[cat, dog]", "classes.txt"), "classes.txt": "cat\r\ndog\n"},
    "other capitals": {
        name.replace("images/t", "Images/T").replace("images/v", "Images/V"): text
        for name, text in TRAIN_VAL.items()
    }
    | {"data.yaml": YAML},
    "other names of folders": pairs("train/JPEGImages", "train/labels_yolo", "a b")
    | pairs("val/JPEGImages", "val/labels_yolo", "c")
    | {"classes.txt": "cat\ndog\n"},
    "labels of all parts in one folder": pairs("images/train", "txt", "a b")
    | pairs("images/val", "txt", "c")
    | {"classes.txt": "cat\ndog\n"},
    "a level below": {f"set/set/{name}": text for name, text in TRAIN_VAL.items()}
    | {"set/set/data.yaml": YAML},
    "settings of a run beside it": TRAIN_VAL
    | {"data.yaml": YAML, "args.yaml": "data: data.yaml\nepochs: 3\n"},
    "text lists without a data file": pairs("data/obj", "data/obj", "a b c")
    | {
        "data/train.txt": "data/obj/a.jpg\ndata/obj/b.jpg\n",
        "data/test.txt": "data/obj/c.jpg\n",
        "data/obj.names": "cat\ndog\n",
    },
    "without a data file": TRAIN_VAL | {"classes.txt": "cat\ndog\n"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    sets = open_detection(plant(tmp_path, LAYOUTS[layout]))
    assert [Path(file).stem for file in sets.train.files] == ["a", "b"]
    assert [Path(file).stem for file in sets.test.files] == ["c"]
    assert sets.train.classes == sets.test.classes == ("cat", "dog")
    for truth in (*sets.train.truths, *sets.test.truths):
        assert truth.boxes.tolist() == [[15, 5, 25, 15]]
        assert truth.labels.tolist() == [1]


def whole(root: Path, label: str, **files: str):
    """Return the only image's truth, with `label` as its label file."""
    planted = plant(root, pairs("images", "labels", "a", label) | {"classes.txt": "cat\ndog\n"})
    annotations = read_annotations(plant(planted, files))
    assert not isinstance(annotations, Splits)
    return detection_set(annotations)


@pytest.mark.parametrize(
    ("label", "boxes"),
    [
        ("\ufeff0 0.5 0.5 0.5 1\r\n\r\n1 0.25 0.5 0.5 1.0\r\n", [[10, 0, 30, 20], [0, 0, 20, 20]]),
        ("1 0.1 0.2 0.5 0.2 0.4 0.8\n", [[4, 4, 20, 16]]),  # an outline
        ("1\t.5 .5 2.5e-1 .5\n", [[15, 5, 25, 15]]),
        ("1,0.5,0.5,0.25,0.5\n", [[15, 5, 25, 15]]),
    ],
)
def test_rows(tmp_path: Path, label: str, boxes: list[list[float]]) -> None:
    torch.testing.assert_close(whole(tmp_path, label).truths[0].boxes, torch.tensor(boxes).float())


def test_images_without_objects(tmp_path: Path) -> None:
    """An empty label file says so; a missing one is noted."""
    files = {"images/b.jpg": "", "images/c.jpg": "", "labels/c.txt": ""}
    images = whole(tmp_path, ROW, **files)
    assert [len(truth) for truth in images.truths] == [1, 0, 0]
    assert any("1 image without a label file" in note for note in images.notes)


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    sets = open_detection(plant(tmp_path, TRAIN_VAL | {"labels/val/c.txt": "3 .5 .5 .5 .5\n"}))
    assert sets.train.classes == sets.test.classes == ("0", "1", "2", "3")
    assert any("no file names the classes" in note for note in sets.train.notes)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("2 .5 .5 .5 .5\n", r"labels/a\.txt:1: class 2, but there are 2 classes, 0 to 1"),
        (ROW + "0 10 5 20 10\n", r"labels/a\.txt:2: numbers above 1: .* not pixels"),
        (ROW + "1 .5 .5 .5 .5 .9\n", r"labels/a\.txt:2: 6 numbers: labels have 5"),
        ("dog .5 .5 .5 .5\n", r"labels/a\.txt:1: not a row of numbers: dog"),
        ("100000000000 .5 .5 .5 .5\n", r"labels/a\.txt:1: not a class number"),
        (ROW + "1 .5 .5 .5\n", r"labels/a\.txt:2: 4 numbers instead of 5"),
        (ROW + "dog .5 .5 .5 .5\n", r"labels/a\.txt:2: not a row of numbers: dog"),
        (ROW + "1 .5 nan .5 .5\n", r"labels/a\.txt:2: not a class number and fractions"),
        (ROW + "1 .5 .5 -.5 .5\n", r"labels/a\.txt:2: swapped corners"),
    ],
)
def test_mistakes(tmp_path: Path, label: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        whole(tmp_path, label)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images\nnc: 3\nnames: [cat, dog]\n", "nc is 3, but names has 2 classes"),
        ("train: images\nnames: {1: cat, 2: dog}\n", "names must have the numbers 0 to 1"),
        ("train: images\nnames: []\n", "names must be a list"),
        ("train: elsewhere\nval: images\nnames: [cat, dog]\n", "train: elsewhere has no images"),
    ],
)
def test_data_files_with_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.yaml.*{message}"):
        whole(tmp_path, ROW, **{"data.yaml": text})


def test_a_malformed_data_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.yaml:3: malformed YAML"):
        whole(tmp_path, ROW, **{"data.yaml": "train: images\nnames: [cat, dog\nnc: 2\n"})


def test_class_names_are_text(tmp_path: Path) -> None:
    """YAML would read these names as False, 1 and None."""
    names = YAML.replace("[cat, dog]", "[no, 001, null]")
    sets = open_detection(plant(tmp_path, TRAIN_VAL | {"data.yaml": names}))
    assert sets.train.classes == ("no", "001", "null")


@pytest.mark.parametrize(
    ("shape", "points"), [("[2, 2]", " .45 .4 .55 .6"), ("[2, 3]", " .45 .4 2 .55 .6 0")]
)
def test_keypoints_follow_the_box(tmp_path: Path, shape: str, points: str) -> None:
    row = ROW.strip() + points + "\n"
    files = {name: row if text == ROW else text for name, text in TRAIN_VAL.items()}
    data_file = {"data.yaml": f"{YAML}kpt_shape: {shape}\n"}
    sets = open_detection(plant(tmp_path, files | data_file))
    for truth in (*sets.train.truths, *sets.test.truths):
        assert truth.boxes.tolist() == [[15, 5, 25, 15]]


def test_a_data_file_is_enough_where_most_label_files_are_empty(tmp_path: Path) -> None:
    names = " ".join(f"n{number:03}" for number in range(250))
    files = pairs("images/train", "labels/train", names, "") | TRAIN_VAL | {"data.yaml": YAML}
    assert len(open_detection(plant(tmp_path, files)).train) == 252


def test_validation_on_the_training_images_is_split(tmp_path: Path) -> None:
    data_file = {"data.yaml": YAML.replace("images/val", "images/train")}
    files = pairs("images/train", "labels/train", "a b c d") | data_file
    sets = open_detection(plant(tmp_path, files))
    assert not set(sets.train.files) & set(sets.test.files)
    assert any("the validation images are the training images" in n for n in sets.train.notes)


def test_labels_without_an_image_are_noted(tmp_path: Path) -> None:
    files = {"data.yaml": YAML, "labels/train/gone.txt": ROW, "labels/train/classes.txt": "cat"}
    sets = open_detection(plant(tmp_path, TRAIN_VAL | files))
    assert [note for note in sets.train.notes if "label file" in note] == [
        "data.yaml: 1 label file without an image: left out, such as labels/train/gone.txt"
    ]


def test_files_that_are_not_read_are_counted(tmp_path: Path) -> None:
    files = {"data.yaml": YAML, "images/train/d.jxl": "", "images/val/e.jxl": "", "a.docx": ""}
    sets = open_detection(plant(tmp_path, TRAIN_VAL | files))
    (note,) = sets.train.notes
    assert note.endswith(": 2 files beside the images left out: 2 .jxl")


def test_the_data_file_itself_is_not_the_folder(tmp_path: Path) -> None:
    plant(tmp_path, TRAIN_VAL | {"data.yaml": YAML})
    with pytest.raises(ValueError, match="is not a folder: give the folder of its images"):
        open_detection(tmp_path / "data.yaml")


def test_a_part_never_takes_the_labels_of_another(tmp_path: Path) -> None:
    """An image of the validation part has the name of a training image, but no label file."""
    files = TRAIN_VAL | {"images/val/a.jpg": "", "classes.txt": "cat\ndog\n"}
    sets = open_detection(plant(tmp_path, files))
    objects = {Path(f).stem: len(t) for f, t in zip(sets.test.files, sets.test.truths, strict=True)}
    assert objects == {"a": 0, "c": 1}


def test_two_data_files_that_differ_are_refused(tmp_path: Path) -> None:
    files = {"data.yaml": YAML, "coco.yaml": YAML.replace("cat", "cow")}
    with pytest.raises(ValueError, match=r"coco\.yaml and data\.yaml, which describe different"):
        open_detection(plant(tmp_path, TRAIN_VAL | files))


def test_captions_beside_images_are_not_labels(tmp_path: Path) -> None:
    files = pairs("", "", "a b", "a photo of 2 cats\n")
    with pytest.raises(ValueError, match="has no annotated boxes"):
        open_detection(plant(tmp_path, {name.strip("/"): text for name, text in files.items()}))


def test_coco128_as_yolo_has_the_boxes_of_its_coco_file(shared: Path, tmp_path: Path) -> None:
    source = shared / "detection" / "coco128"
    original = whole_set(source)
    as_yolo(
        original,
        source / "images" if not (source / original.files[0]).exists() else source,
        tmp_path,
    )
    sets = open_detection(tmp_path)
    assert sets.train.classes == original.classes
    truths = {
        Path(file).name: truth for file, truth in zip(original.files, original.truths, strict=True)
    }
    assert len(sets.train) + len(sets.test) == len(original)
    for images in (sets.train, sets.test):
        for file, truth in zip(images.files, images.truths, strict=True):
            expected = truths[Path(file).name]
            assert truth.labels.tolist() == expected.labels.tolist()
            torch.testing.assert_close(truth.boxes, expected.boxes, atol=2e-3, rtol=0)


@pytest.mark.parametrize("codec", ["gb18030", "utf-16", "latin-1"])
def test_a_data_file_in_another_encoding_is_refused(tmp_path: Path, codec: str) -> None:
    """If it were left out, the classes would be called by their numbers."""
    plant(tmp_path, TRAIN_VAL)
    text = YAML.replace("cat", "chat débile")
    (tmp_path / "data.yaml").write_bytes(text.encode(codec))
    with pytest.raises(ValueError, match=r"data\.yaml is not UTF-8 text: save it as UTF-8"):
        open_detection(tmp_path)


@pytest.mark.parametrize("text", ["", "train: images/train\nval: images/val\n", "[]"])
def test_a_data_file_without_names_is_in_the_note(tmp_path: Path, text: str) -> None:
    plant(tmp_path, TRAIN_VAL)
    (tmp_path / "data.yaml").write_text(text)
    (note,) = open_detection(tmp_path).train.notes
    assert "no file names the classes, not even data.yaml: they are called by their numbers" in note
