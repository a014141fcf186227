"""Lists in ImageSets as various tools write them: the author's split is the split."""

import shutil
from pathlib import Path

import pytest

from reslab.data.boxes.folder import open_detection, read_annotations
from reslab.data.datasets import Splits

BOXES = Path(__file__).parent / "boxes"
TRAIN, TEST = range(6), (6, 7)


def plant(tmp_path: Path, name: str, key: str = "{:03}") -> Path:
    """Put the lists of a case beside eight annotated images with the names `key`."""
    folder = tmp_path / name
    for kind in ("Annotations", "JPEGImages"):
        (folder / kind).mkdir(parents=True)
        for path in sorted((BOXES / "list-ext" / kind).iterdir()):
            shutil.copy(path, folder / kind / (key.format(int(path.stem)) + path.suffix))
    if name != "none":
        shutil.copytree(BOXES / name / "ImageSets", folder / "ImageSets")
    return folder


def write(folder: Path, **lists: bytes) -> Path:
    (folder / "ImageSets/Main").mkdir(parents=True)
    for part, text in lists.items():
        (folder / f"ImageSets/Main/{part}.txt").write_bytes(text)
    return folder


def keys(folder: Path) -> tuple[list, list]:
    sets = open_detection(folder)
    return list(sets.train.keys), list(sets.test.keys)


@pytest.mark.parametrize(
    "name",
    ["list-ext", "list-path", "spaces", "crlf", "imagesets-root", "class-lists", "train-only-list"],
)
def test_the_lists_of_other_tools_are_read(name: str, tmp_path: Path) -> None:
    key = "my photo {}" if name == "spaces" else "{:03}"
    train, test = keys(plant(tmp_path, name, key))
    listed = [line for path in sorted((BOXES / name).rglob("*train.txt")) for line in
              path.read_text("utf-8-sig").splitlines()]  # fmt: skip
    assert train == [key.format(k) for k in TRAIN][: len(listed)]
    assert test == [key.format(k) for k in (TEST if len(listed) == len(TRAIN) else (5, 6, 7))]


@pytest.mark.parametrize(
    ("train", "val"),
    [
        (b"000 1\n001 -1\n002  0\n", b"006\t1\n"),
        (b"JPEGImages/000.jpg Annotations/000.xml\n./001.JPG\n/data/x/002.png", b"C:\\a\\006.xml"),
        ("\ufeff000\r\n\r\n001\r\n002\r\n".encode(), "\ufeff006\r\n".encode()),
    ],
)
def test_columns_paths_and_line_ends(train: bytes, val: bytes, tmp_path: Path) -> None:
    folder = write(plant(tmp_path, "none"), train=train, val=val)
    assert keys(folder) == (["000", "001", "002"], ["006"])


def test_a_name_that_ends_in_a_number_is_no_flag(tmp_path: Path) -> None:
    folder = write(plant(tmp_path, "none", "a {}"), train=b"a 0\na 1\na 2 1", val=b"a 6 -1")
    assert keys(folder) == (["a 0", "a 1", "a 2"], ["a 6"])


def test_only_a_test_list_leaves_the_rest_to_train_on(tmp_path: Path) -> None:
    folder = write(plant(tmp_path, "none"), test=b"000\n006\n")
    assert keys(folder)[1] == ["000", "006"]
    line = "ImageSets: the 6 annotated images that test.txt does not list are trained on"
    assert open_detection(folder).train.notes == (line,)


def test_a_first_line_without_annotations_is_named(tmp_path: Path) -> None:
    folder = write(plant(tmp_path, "none"), train=b"900\n000\n001\n", val=b"006\n")
    with pytest.raises(ValueError, match=r"^Annotations/900.xml: no such file"):
        open_detection(folder)


@pytest.mark.parametrize(
    ("lists", "line"),
    [
        ({"train": b"x\ny\n", "val": b"006"}, r"train.txt: none of its images is .* is 'x'\)"),
        ({"train": b"000\n", "val": b""}, r"val.txt: none of its images is .*\(it is empty\)"),
        ({"fold1": b"000\n", "fold2": b"001\n"}, "none for training or testing .fold1.txt, fo"),
        ({"train": "é".encode("latin-1"), "val": b"006"}, "train.txt is not UTF-8 text"),
    ],
)
def test_lists_that_cannot_be_used_are_refused(
    lists: dict[str, bytes], line: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=line):
        open_detection(write(plant(tmp_path, "none"), **lists))


def test_a_list_of_all_images_does_not_split_them(tmp_path: Path) -> None:
    every = b"".join(b"%03d\n" % k for k in range(8))
    for number, name in enumerate(("train", "default")):
        folder = write(plant(tmp_path / str(number), "none"), **{name: every})
        assert not isinstance(read_annotations(folder), Splits)


def test_a_test_list_without_annotations_leaves_training_and_validation(tmp_path: Path) -> None:
    lists = {"train": b"000\n", "val": b"006\n", "trainval": b"000\n006\n", "test": b"100\n"}
    assert keys(write(plant(tmp_path, "none"), **lists)) == (["000"], ["006"])


def test_validation_is_taken_out_of_trainval(tmp_path: Path) -> None:
    lists = {"trainval": b"000\n001\n006\n", "val": b"006\n"}
    assert keys(write(plant(tmp_path, "none"), **lists)) == (["000", "001"], ["006"])
