from pathlib import Path

import pytest
from tests.data.labels.layouts import images, table

from reslab.data.folder import read_folder
from reslab.data.unlabelled import without_classes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.png", "b.png"), "or write the labels into labels.csv with the columns file and label"),
        (("cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.1.jpg"), r"or their names \(cat, dog\) into"),
        (("Abra_01.jpg", "Abra_2.jpg", "Pug 1.jpg", "Pug-2.jpg"), r"or their names \(Abra, Pug\)"),
        (("IMG_0001.jpg", "IMG_0002.jpg"), "or write the labels into"),
        (("IMG_0001.jpg", "DSC_0002.jpg", "cat.jpg"), "or write the labels into"),
        (("ILSVRC2012_val_00000001.JPEG",), "LOC_val_solution.csv"),
    ],
)
def test_the_way_on_depends_on_the_names(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    for folder in ("heap", "wrapped/images"):
        images(tmp_path / folder, *names)
        with pytest.raises(ValueError, match=message):
            read_folder(tmp_path / folder.split("/")[0])


@pytest.mark.parametrize("name", ["labels.json", "train.xlsx", "metadata.parquet", "labels.mat"])
def test_a_table_in_another_format_is_named(tmp_path: Path, name: str) -> None:
    images(tmp_path, "images/a.png", "images/b.png")
    table(tmp_path, name, "{}")
    with pytest.raises(ValueError, match=rf"if .*{name} has the labels, save them as labels.csv"):
        read_folder(tmp_path)


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be listed: no such file"):
        without_classes(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("shard-000000.tar", "shard-000001.tar"),
            "which are not shards of images with their classes",
        ),
        (("train.tgz",), r"\(.cls or .json\): extract the images of each class into a subfolder"),
        (("cats.zip", "dogs.zip"), r"archives \(cats.zip, dogs.zip\): extract the images of each"),
    ],
)
def test_archives_are_named(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ValueError, match=message):
        read_folder(tmp_path)
