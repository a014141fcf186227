"""A validation part in one folder, beside a training part with class folders."""

from pathlib import Path

import pytest
from tests.data.labels.layouts import images, labels_of, table

from reslab.data.datasets import FolderSplits, notes_of
from reslab.data.folder import open_folder, open_whole_folder
from reslab.data.labels.meta import read_meta

WNIDS = ("n01440764", "n01443537", "n01751748")
META = Path(__file__).with_name("meta.mat")
FILES = tuple(f"ILSVRC2012_val_{number:08}.JPEG" for number in (1, 2, 3))


CLASSES = {"1": "n01751748", "2": "n01443537", "3": "n01440764", "4": "n00001740"}  # in meta.mat


def imagenet(root: Path, wnids: tuple[str, ...] = WNIDS) -> Path:
    """Write ImageNet's training folders, and three validation images in one folder."""
    images(root, *(f"train/{wnid}/0.jpg" for wnid in wnids))
    images(root / "val", *FILES)
    return root


def answers(sets: FolderSplits) -> list[str]:
    """Return the wnids of the three validation images."""
    found = labels_of(sets.test)
    return [found[file] for file in FILES]


@pytest.mark.parametrize("place", ["", "val", "labels"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "LOC_val_solution.csv",
            [
                "ImageId,PredictionString",
                "ILSVRC2012_val_00000003,n01440764 240 170 260 190 ",
                "ILSVRC2012_val_00000001,n01751748 111 108 431 202 n01751748 1 2 3 4 ",
                "ILSVRC2012_val_00000002,n01443537 10 20 30 40 ",
            ],
        ),
        ("val.txt", [f"{FILES[0]} n01751748", f"{FILES[1]} n01443537", f"{FILES[2]} n01440764"]),
        (
            "labels.csv",
            [
                "file,label",
                f"val/{FILES[0]},n01751748",
                f"val/{FILES[1]},n01443537",
                f"{FILES[2]},n01440764",
            ],
        ),
    ],
)
def test_tables_of_wnids(tmp_path: Path, place: str, name: str, lines: list[str]) -> None:
    imagenet(tmp_path)
    table(tmp_path / place, name, *lines)
    sets = open_folder(tmp_path)
    assert answers(sets) == [WNIDS[2], WNIDS[1], WNIDS[0]]
    assert labels_of(sets.train) == {f"{wnid}/0.jpg": wnid for wnid in WNIDS}
    assert set(notes_of(sets.train, sets.test)) <= {"labels/ has no images"}
    assert len(open_whole_folder(tmp_path)) == 3


def test_positions_among_a_thousand_sorted_wnids(tmp_path: Path) -> None:
    """The lists that came with Caffe count the sorted wnids from 0."""
    wnids = tuple(f"n{number:08}" for number in range(1000))
    imagenet(tmp_path, wnids)
    table(tmp_path, "val.txt", f"{FILES[0]} 65", f"{FILES[1]} 970", f"{FILES[2]} 0")
    sets = open_folder(tmp_path)
    assert answers(sets) == ["n00000065", "n00000970", "n00000000"]
    assert any("positions in the sorted wnids" in note for note in notes_of(sets.train, sets.test))


def test_positions_in_a_class_list(tmp_path: Path) -> None:
    imagenet(tmp_path)
    table(tmp_path, "val.txt", f"{FILES[0]} 2", f"{FILES[1]} 0", f"{FILES[2]} 1")
    with pytest.raises(ValueError, match=r"val.txt has numbers, .*: list the classes in classes"):
        open_folder(tmp_path)
    table(
        tmp_path,
        "classes.csv",
        "index,wnid,name",
        *(f"{row},{wnid},{'abc'[row]}" for row, wnid in enumerate(WNIDS)),
    )
    assert answers(open_folder(tmp_path)) == [WNIDS[2], WNIDS[0], WNIDS[1]]


@pytest.mark.parametrize("kit", ["", "val", "ILSVRC2012_devkit_t12/data"])
@pytest.mark.parametrize("classes", ["meta.mat", "map_clsloc.txt"])
def test_ground_truth_of_the_development_kit(tmp_path: Path, kit: str, classes: str) -> None:
    imagenet(tmp_path)
    table(tmp_path / kit, "ILSVRC2012_validation_ground_truth.txt", "1", "3", "2")
    with pytest.raises(ValueError, match=r"put meta.mat or map_clsloc.txt"):
        open_folder(tmp_path)
    if classes == "meta.mat":
        (tmp_path / kit / classes).write_bytes(META.read_bytes())
    else:
        table(tmp_path / kit, classes, *(f"{w} {n} a_name" for n, w in CLASSES.items()))
    assert answers(open_folder(tmp_path)) == ["n01751748", "n01440764", "n01443537"]


def test_an_image_that_is_not_in_the_ground_truth(tmp_path: Path) -> None:
    imagenet(tmp_path)
    table(tmp_path, "ILSVRC2012_validation_ground_truth.txt", "1", "3")
    table(tmp_path, "map_clsloc.txt", *(f"{w} {n} a_name" for n, w in CLASSES.items()))
    with pytest.raises(ValueError, match=r"ILSVRC2012_val_00000003.JPEG' is not one of its 2"):
        open_folder(tmp_path)


def test_classes_in_meta_mat(tmp_path: Path) -> None:
    """The file was written by SciPy, with the fields and types of the real one."""
    assert read_meta(META) == CLASSES
    for data in (b"", b"MATLAB 5.0", META.read_bytes()[:300], bytes(1000)):
        (tmp_path / "meta.mat").write_bytes(data)
        with pytest.raises(ValueError, match=r"is not the meta.mat"):
            read_meta(tmp_path / "meta.mat")


def test_labels_of_another_part_of_an_own_data_set(tmp_path: Path) -> None:
    """The signs of GTSRB: class folders to train on, and a table for the test images."""
    images(tmp_path / "Train", "0/a.png", "1/b.png")
    images(tmp_path / "Test", "c.png", "d.png")
    images(tmp_path / "Meta", "0.png", "1.png")
    header = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path"
    sizes = "8,8,1,1,7,7"
    table(tmp_path, "Train.csv", header, f"{sizes},0,Train/0/a.png", f"{sizes},1,Train/1/b.png")
    table(tmp_path, "Test.csv", header, f"{sizes},1,Test/c.png", f"{sizes},0,Test/d.png")
    table(tmp_path, "Meta.csv", "Path,ClassId,ShapeId", "Meta/0.png,0,1", "Meta/1.png,1,1")
    sets = open_folder(tmp_path)
    assert sets.train.ids == ("0", "1")
    assert labels_of(sets.test) == {"Test/c.png": "1", "Test/d.png": "0"}


def test_a_test_part_with_a_table_is_the_validation_part(tmp_path: Path) -> None:
    """Without its table, its images are not read."""
    images(tmp_path, *(f"train/{name}/{row}.png" for name in ("cat", "dog") for row in "123"))
    images(tmp_path / "test", "1.png", "2.png")
    assert open_folder(tmp_path).test.files != ["1.png", "2.png"]
    table(tmp_path, "test.csv", "id", "1", "2")
    assert any("2 images are not read" in note for note in open_folder(tmp_path).train.notes)
    table(tmp_path, "test_labels.csv", "id,label", "1,dog", "2,cat")
    sets = open_folder(tmp_path)
    assert labels_of(sets.test) == {"1.png": "dog", "2.png": "cat"}
    assert len(sets.train) == 6


def test_labels_of_training_images_are_not_taken_for_test_images(tmp_path: Path) -> None:
    """Both parts have images called 1 and 2, and the table does not say which it means."""
    images(tmp_path, *(f"train/{name}/{row}.png" for name in ("cat", "dog") for row in "12"))
    images(tmp_path, "test/1.png", "test/2.png")
    table(tmp_path, "labels.csv", "id,label", "cat/1,cat", "cat/2,cat", "dog/1,dog", "dog/2,dog")
    sets = open_folder(tmp_path)
    assert len(sets.train) + len(sets.test) == 4
    (tmp_path / "test").rename(tmp_path / "val")
    with pytest.raises(ValueError, match=r"labels.csv: it lists no image of .*val"):
        open_folder(tmp_path)
    table(tmp_path, "labels.csv", "id,label", "1,cat", "2,dog")
    with pytest.raises(ValueError, match="several images called '1'"):
        open_folder(tmp_path)


def test_two_tables_with_the_same_labels(tmp_path: Path) -> None:
    imagenet(tmp_path)
    lines = [f"{file} {wnid}" for file, wnid in zip(FILES, WNIDS, strict=True)]
    table(tmp_path, "val.txt", *lines)
    table(tmp_path, "val_labels.csv", *(line.replace(" ", ",") for line in lines))
    table(tmp_path, "validation.tsv", *(line.replace(" ", "\t") for line in lines))
    assert answers(open_folder(tmp_path)) == list(WNIDS)
    table(tmp_path, "validation.tsv", *(line.replace(" ", "\t") for line in lines[:2]))
    table(tmp_path, "val.txt", *(line.replace(WNIDS[0], WNIDS[1]) for line in lines))
    (tmp_path / "val_labels.csv").unlink()
    with pytest.raises(ValueError, match=r"have different labels of .*val: keep one"):
        open_folder(tmp_path)


def test_kaggles_imagenet_from_the_top(tmp_path: Path) -> None:
    """The table is at the top, the images three folders down."""
    imagenet(tmp_path / "ILSVRC/Data/CLS-LOC")
    pairs = zip(FILES, WNIDS, strict=True)
    lines = [f"{file.removesuffix('.JPEG')},{wnid} 1 2 3 4 " for file, wnid in pairs]
    table(tmp_path, "LOC_val_solution.csv", "ImageId,PredictionString", *lines)
    assert answers(open_folder(tmp_path)) == list(WNIDS)


def test_tiny_imagenet(tmp_path: Path) -> None:
    """A class and a box for each validation image, and a text file in each training class."""
    for wnid in WNIDS:
        images(tmp_path, f"train/{wnid}/images/{wnid}_0.JPEG")
        table(tmp_path / "train" / wnid, f"{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t10\t63\t58")
    images(tmp_path / "val/images", *(f"val_{k}.JPEG" for k in range(3)))
    rows = (f"val_{k}.JPEG\t{WNIDS[2 - k]}\t0\t32\t44\t62" for k in range(3))
    table(tmp_path / "val", "val_annotations.txt", *rows)
    images(tmp_path / "test/images", "test_0.JPEG")
    table(tmp_path, "words.txt", "n01440764\ttench", "n01443537\tgoldfish", "n01751748\tsea snake")
    sets = open_folder(tmp_path)
    assert sets.train.ids == sets.test.ids == WNIDS
    assert labels_of(sets.test) == {f"val_{k}.JPEG": WNIDS[2 - k] for k in range(3)}
    assert "val_annotations.txt: its boxes are not read" in notes_of(sets.train, sets.test)
