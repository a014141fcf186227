"""Folders of images are divided by the names and the structure of their folders."""

import re
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from reslab.data.class_folders import refuse
from reslab.data.datasets import EncodedImages, Splits
from reslab.data.folder import open_folder_parts, open_whole_folder, read_folder
from reslab.data.parts import divide
from reslab.data.shards.writer import Packing, pack_sets

JPEG = simplejpeg.encode_jpeg(np.zeros((4, 4, 3), np.uint8))
TRAIN = "ant/0 ant/1 bee/0 bee/1"  # files of a training part, without suffix
TEST = "ant/5 bee/5"


def plant(root: Path, **folders: str) -> Path:
    """Write small image files, and empty others; `seg__train="ant/0"` is seg/train/ant/0.jpg."""
    for name, files in folders.items():
        for file in files.split():
            path = (
                root
                / re.sub("(?<=[a-z])__(?=[a-z])", "/", name)
                / (file if "." in file else f"{file}.jpg")
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(JPEG if path.suffix == ".jpg" else b"")
    return root


def division(root: Path) -> dict[str, str]:
    return {
        name: str(part)[len(str(root)) + 1 :] for name, part in divide(root, refuse).parts.items()
    }


def notes(root: Path) -> tuple[str, ...]:
    opened = read_folder(root)
    return opened.notes if isinstance(opened, EncodedImages) else opened.train.notes


def refusal(root: Path) -> str:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        read_folder(root)
    return str(caught.value).replace(f"{root}/", "").replace(str(root), "ROOT")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("training_set", "test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("trainingSet", "validationSet"),
        ("cats_vs_dogs_train", "cats_vs_dogs_eval"),
        ("archive/train", "archive/valid"),
        ("data/archive/train/images", "data/archive/dev/images"),
        ("train2017/train2017", "val2017"),
        ("TRAIN", "TEST_data"),
        ("train/train", "train/val"),
    ],
)
def test_parts_have_any_usual_name_at_any_depth(train: str, test: str, tmp_path: Path) -> None:
    plant(tmp_path, **{train: TRAIN, test: TEST})
    assert division(tmp_path) == {"train": train, "validation": test}
    sets = read_folder(tmp_path)
    assert isinstance(sets, Splits)
    assert (sets.train.ids, len(sets.train), len(sets.test)) == (("ant", "bee"), 4, 2)
    assert sets.train.notes == sets.test.notes == ()
    assert open_whole_folder(tmp_path).files == ["ant/5.jpg", "bee/5.jpg"]
    assert list(open_folder_parts(tmp_path)) == ["train", "validation"]


def test_a_packed_part_is_found_below_a_wrapper(tmp_path: Path) -> None:
    plant(tmp_path, source__train=TRAIN, source__val=TEST)
    pack_sets(
        open_folder_parts(tmp_path / "source"), tmp_path / "up/set", Packing(), lambda bad: None
    )
    assert division(tmp_path / "up") == {"train": "set/train", "validation": "set/validation"}


def test_the_plainer_name_is_preferred_and_the_other_is_noted(tmp_path: Path) -> None:
    plant(tmp_path, trainingSet=TRAIN, trainingSample="ant/0 bee/0", testSet=TEST)
    assert division(tmp_path) == {"train": "trainingSet", "validation": "testSet"}
    assert notes(tmp_path) == (
        "trainingSample/ is left out for trainingSet/: its 2 images are not read",
    )


def test_two_parts_with_equally_good_names_are_refused(tmp_path: Path) -> None:
    plant(tmp_path, Training=TRAIN, PublicTest=TEST, PrivateTest=TEST)
    assert refusal(tmp_path).endswith(
        "several folders that may be its test part (PrivateTest, PublicTest): rename one of them "
        "test/"
    )


def test_a_test_part_beside_a_validation_part_is_left_out(tmp_path: Path) -> None:
    plant(tmp_path, train=TRAIN, valid=TEST, test="ant/7 ant/8 bee/7 notes.txt")
    assert division(tmp_path) == {"train": "train", "validation": "valid"}
    assert notes(tmp_path) == ("test/ is left out for valid/: its 3 images are not read",)


@pytest.mark.parametrize(
    "test", [{"test": "1 2 3"}, {"test": "all/1 all/2 all/3"}, {"seg_test__seg_test": "1 2 3"}]
)
def test_an_unlabelled_test_part_is_left_out_and_the_training_part_split(
    test: dict[str, str], tmp_path: Path
) -> None:
    plant(tmp_path, train=TRAIN, **test)
    assert division(tmp_path) == {"train": "train"}
    assert notes(tmp_path) == (
        f"{next(iter(test))[:8].rstrip('_')}/ has no class folders: its 3 images are not read",
        "train/ is split, as there is no validation part",
    )


def test_validation_images_without_class_folders_are_refused(tmp_path: Path) -> None:
    plant(tmp_path, train=TRAIN, val="1 2 3")
    assert refusal(tmp_path).startswith("val has no class folders")


def test_a_training_part_without_class_folders_is_refused(tmp_path: Path) -> None:
    plant(tmp_path, train="1 2 3", test="4 5", sample="6")
    assert refusal(tmp_path).startswith("train has no class folders")


def test_other_folders_do_not_make_a_part_a_class(tmp_path: Path) -> None:
    plant(tmp_path, train=TRAIN, scripts="run.py", docs__more="a.md b.md")
    assert division(tmp_path) == {"train": "train"}
    assert notes(tmp_path)[:2] == (
        "docs/ has no images",
        "scripts/ has no images",
    )


def test_a_part_or_a_class_is_not_guessed(tmp_path: Path) -> None:
    plant(tmp_path, train=TRAIN, unlabelled="1 2")
    assert refusal(tmp_path) == (
        "train has class folders, but unlabelled/ beside it has none: if train/ is a part, open it "
        "alone, or move unlabelled/ into another part or elsewhere; if it is a class, rename it"
    )


def test_a_class_with_the_name_of_a_part_is_noted(tmp_path: Path) -> None:
    plant(tmp_path, bus="0 1", train="0 1")
    line = "train is read as a class, like the folders beside it: move it elsewhere if it is a part"
    assert notes(tmp_path) == (line,)
    plant(tmp_path, ant="0 1")
    (tmp_path / "train").rename(tmp_path / "Testing")
    assert notes(tmp_path) == (line.replace("train", "Testing"),)


def test_folders_beside_a_wrapper_are_noted(tmp_path: Path) -> None:
    plant(tmp_path, archive__birds__train=TRAIN, archive__birds__val=TEST, archive__docs="a.md")
    plant(tmp_path, more="b.md c.txt")
    assert division(tmp_path) == {
        "train": "archive/birds/train", "validation": "archive/birds/val",
    }  # fmt: skip
    assert notes(tmp_path) == ("more/ has no images", "docs/ has no images")


@pytest.mark.parametrize("station", ["train_station", "train"])
def test_words_for_parts_may_name_classes(station: str, tmp_path: Path) -> None:
    plant(tmp_path, **{station: "0 1"}, bus="0 1", test_track="0 1", val_gardena="0 1")
    if station == "train":
        assert refusal(tmp_path).startswith("train has no class folders")
    else:
        assert division(tmp_path) == {"whole": ""}
        assert open_whole_folder(tmp_path).ids == (
            "bus",
            "test_track",
            "train_station",
            "val_gardena",
        )


@pytest.mark.parametrize("second", ["ant/5 bee/5", "ant/5", "ant/5 Bee/6"])
def test_folders_with_the_same_subfolders_are_never_classes_in_silence(
    second: str, tmp_path: Path
) -> None:
    plant(tmp_path, may=TRAIN, june=second)
    line = refusal(tmp_path)
    inner = "Bee, ant" if "Bee" in second else "ant, bee"
    assert line == (
        f"the folders in ROOT (june, may) all have the same subfolders ({inner}): if they are "
        "parts, name them train/ and val/, or open one of them; if they are the classes, list them "
        "in classes.csv"
    )
    (tmp_path / "classes.csv").write_text("index,id,name\n0,may,May\n1,june,June\n")
    assert open_whole_folder(tmp_path).ids == ("may", "june")


def test_stray_images_and_a_class_more_do_not_hide_parts(tmp_path: Path) -> None:
    many = " ".join(f"ant/{number}" for number in range(20))
    plant(tmp_path, may=f"{many} bee/1 cow/1 cover", june=f"{many} bee/1 dog/1")
    assert "(june, may) have subfolders in common (ant, bee): if they are" in refusal(tmp_path)


def test_a_folder_per_class_with_the_parts_inside_is_refused(tmp_path: Path) -> None:
    plant(tmp_path, ant__train="0 1", ant__val="2", bee__train="0", bee__val="2")
    assert refusal(tmp_path) == (
        "ant has the parts train, val, as has each folder in ROOT: put the parts at the top, as "
        "in train/ant, or open one of the folders"
    )


def test_folders_named_after_a_class_and_a_part_are_refused(tmp_path: Path) -> None:
    plant(tmp_path, cats_train="0 1", cats_val="2", dogs_train="0 1", dogs_val="2", cows="0 1")
    assert refusal(tmp_path) == (
        "ROOT has folders for the parts of a class, as cats_train, cats_val: put the parts at the "
        "top, as in train/cats and val/cats"
    )


def test_a_folder_with_parts_beside_other_images_is_named(tmp_path: Path) -> None:
    plant(tmp_path, album="0 1", set__train=TRAIN, set__val=TEST)
    assert refusal(tmp_path) == (
        "set has the parts train, val: open it, or move the other folders of ROOT elsewhere"
    )


def test_one_subfolder_in_each_class_is_no_level(tmp_path: Path) -> None:
    plant(tmp_path, ant__images="0 1", bee__images="0 1")
    whole = read_folder(tmp_path)
    assert isinstance(whole, EncodedImages)
    assert (whole.ids, whole.files[0], whole.notes) == (("ant", "bee"), "ant/images/0.jpg", ())


def test_two_levels_are_noted_and_a_class_list_selects_the_lower(tmp_path: Path) -> None:
    plant(tmp_path, air__ant="0 1", air__bee="0 1", sea__cod="0 1", sea__eel="0 1")
    whole = read_folder(tmp_path)
    assert isinstance(whole, EncodedImages)
    assert whole.ids == ("air", "sea")
    assert whole.notes == (
        "the classes are air, sea, and their subfolders are read together: if the subfolders are "
        "the classes, list them in classes.csv, the first as air/ant",
    )
    rows = ("index,id,name", "0,sea/eel,eel", "1,air/ant,ant", "2,air/bee,bee", "3,sea/cod,cod")
    (tmp_path / "classes.csv").write_text("\n".join(rows))
    leaves = read_folder(tmp_path)
    assert isinstance(leaves, EncodedImages)
    assert leaves.ids == ("sea/eel", "air/ant", "air/bee", "sea/cod")
    assert leaves.labels.tolist() == [1, 1, 2, 2, 3, 3, 0, 0]
    assert leaves.notes == ()
    (tmp_path / "classes.csv").write_text("\n".join(rows[:-1]))
    assert refusal(tmp_path).startswith("ROOT: class 'sea/cod' is not in classes.csv")


# folders that are no classes


@pytest.mark.parametrize(
    "name",
    [
        "$RECYCLE.BIN", "System Volume Information", "lost+found", "found.000", "#recycle",
        "@Recycle", "@tmp", "@eaDir", "__pycache__", "__MACOSX", "Thumbs",
    ],
)  # fmt: skip
def test_system_folders_are_counted_and_not_read(name: str, tmp_path: Path) -> None:
    plant(tmp_path, ant="0 1", bee="0 1", **{name: "9", f"bee/{name}": "9", ".Trash-1000": "9"})
    whole = read_folder(tmp_path)
    assert isinstance(whole, EncodedImages)
    assert (whole.ids, len(whole)) == (("ant", "bee"), 4)
    assert whole.notes == (f"2 system folders left out: {name}",)


def test_a_folder_without_images_is_a_class_only_if_it_is_meant_as_one(tmp_path: Path) -> None:
    plant(tmp_path, ant="0 1", bee="0 1", docs="a.md", code__more="a.py b.py")
    assert notes(tmp_path) == (
        "3 files left out: 2 .py, 1 .md",
        "2 folders without images left out: code, docs",
    )
    plant(tmp_path, cow="0.JXL 1.JXL")
    assert refusal(tmp_path) == (
        "cow has no images in a format that is read, but 2 files such as cow/0.JXL: save them as "
        "JPEG or PNG"
    )
    (tmp_path / "cow/0.JXL").unlink()
    (tmp_path / "cow/1.JXL").rename(tmp_path / "cow/1")
    (tmp_path / "cow/1").write_bytes(b"\xff\xd8\xff\xe0")
    assert refusal(tmp_path) == (
        "cow has no files with the suffix of an image, but cow/1 is a JPEG: rename it and its like"
    )


def test_classes_that_differ_in_case_alone_are_noted(tmp_path: Path) -> None:
    plant(tmp_path, Cat="0 1", cat="0 1", dog="0 1")
    assert open_whole_folder(tmp_path).ids == ("Cat", "cat", "dog")
    assert notes(tmp_path) == ("2 classes have names that are equal or nearly so: 'Cat' and 'cat'",)


def test_an_empty_class_is_refused_in_training_and_noted_in_validation(tmp_path: Path) -> None:
    plant(tmp_path, train=TRAIN, val="ant/5")
    (tmp_path / "val/bee").mkdir()
    sets = read_folder(tmp_path)
    assert isinstance(sets, Splits)
    assert sets.train.notes == (
        "1 class without validation images: bee; its error is not measured",
    )
    assert (len(sets.test), sets.test.ids) == (1, ("ant", "bee"))
    (tmp_path / "train/cow").mkdir()
    assert refusal(tmp_path).startswith("train/cow has no images")


def test_files_that_are_not_read_are_counted_by_suffix(tmp_path: Path) -> None:
    plant(tmp_path, train=f"{TRAIN} ant/0.txt ant/more/1.TXT bee/2.jxl x", val=f"{TEST} ant/a.xml")
    (tmp_path / "train/bee/plain").write_bytes(b"")
    (tmp_path / "train/bee/up").symlink_to("..")
    plant(tmp_path, **{"": "README.md 0 classes.csv", "$RECYCLE.BIN": "0"})
    (tmp_path / "classes.csv").write_text("index,id,name\n0,ant,Ant\n1,bee,Bee\n")
    sets = read_folder(tmp_path)
    assert isinstance(sets, Splits)
    assert sets.train.notes == (
        "2 files beside the parts left out: 1 .jpg, 1 .md",
        "1 system folder left out: $RECYCLE.BIN",
        "4 files in train/ left out: 2 .txt, 1 .jxl, 1 no suffix",
        "1 link to folders in class folders in train/ left out",
        "1 file beside the class folders in train/ left out: 1 .jpg",
    )
    assert sets.test.notes == ("1 file in val/ left out: 1 .xml",)
