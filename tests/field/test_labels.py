"""Labels in a file: what training and `check` make of a folder as people have it."""

import shutil
from pathlib import Path

import pytest

import reslab
from reslab.data.datasets import EncodedImages
from reslab.data.folder import open_folder, read_folder

FOLDER = Path(__file__).parent / "images/labels-in-a-file"
LABELS = ("ant", "bee")


@pytest.mark.parametrize("table", ["", "train.csv"])
def test_a_table_beside_the_images(table: str) -> None:
    opened = read_folder(FOLDER / table)
    assert isinstance(opened, EncodedImages)
    assert opened.ids == LABELS
    lines = (FOLDER / "train.csv").read_text().split()[1:]
    labels = dict(line.split(",") for line in lines)
    assert len(opened) == len(labels) == 12
    for file, label in zip(opened.files, opened.labels.tolist(), strict=True):
        assert labels[Path(file).name] == LABELS[label]
    sets = open_folder(FOLDER / table)
    assert (len(sets.train), len(sets.test)) == (10, 2)


def test_check_agrees_with_training(tmp_path: Path) -> None:
    checked = reslab.check(FOLDER, on_event=lambda event: None)
    assert checked.images == 12
    assert checked.count("spoils") == 0
    folder = shutil.copytree(FOLDER, tmp_path / "folder")
    with (folder / "train.csv").open("a") as file:
        file.write("0.png,ant\n")
    with pytest.raises(ValueError, match=r"train.csv:14: '0.png' is labelled 'ant', and 'bee' on"):
        read_folder(folder)
    checked = reslab.check(folder, on_event=lambda event: None)
    assert checked.count("refused") == 1
    assert "'0.png' is labelled 'ant', and 'bee' on line 2" in str(checked.as_dict())
