"""A classes.csv that another program wrote, and classes too few for a top-5 error."""

import shutil
from pathlib import Path

import pytest

import reslab
from reslab.api.check import check
from reslab.data.folder import open_folder

IMAGES = Path(__file__).parent / "images"
OTHER_PROGRAM = IMAGES / "classes-csv-of-another-tool"
SMALL = [
    "model=resnet20", "model.widths=[8,8,8]", "model.blocks=[1,1,1]", "augmentation.size=32",
    "augmentation.shorter_side=[32,40]", "pictures.resize=36", "batch_size=8",
    "augmentation.colour=0", "iterations=2", "recompute_bn=1",
]  # fmt: skip


def listing(tmp_path: Path, text: str) -> Path:
    folder = shutil.copytree(OTHER_PROGRAM, tmp_path / "images")
    (folder / "classes.csv").write_text(text)
    return folder


def test_names_and_numbers_without_a_header_order_the_classes(tmp_path: Path) -> None:
    sets = open_folder(OTHER_PROGRAM)
    assert (sets.train.classes, sets.train.ids) == (("ant", "bee"), ("ant", "bee"))
    folder = listing(tmp_path, "bee,0\nant,1\n")
    sets = open_folder(folder)
    assert sets.train.ids == ("bee", "ant")
    assert all(
        file.startswith(sets.train.ids[label])
        for file, label in zip(sets.train.files, sets.train.labels.tolist(), strict=True)
    )
    assert not [finding for finding in check(folder).findings if finding.kind == "class list"]


def test_another_list_is_refused_with_the_way_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"csv:1: the first line.*rename the file if it belongs"):
        open_folder(listing(tmp_path, "image,x,y,label\nant/0.png,3,4,ant\n"))


def test_a_list_of_other_classes_is_refused_with_the_way_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"class 'ant' is not in .*csv; rename the file if"):
        open_folder(listing(tmp_path, "person,0\nbicycle,1\n"))


def test_two_classes_have_no_top5_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = IMAGES / "two-classes"
    recipe = reslab.recipe("own-resnet18", data=folder).with_changes(SMALL)
    result = reslab.train(recipe, tmp_path / "run", data=folder)
    (report,) = result.reports
    assert isinstance(report, reslab.Report)
    assert report.top5_error is None
    assert '"top5_error": null' in (tmp_path / "run/result.json").read_text()
    printed = capsys.readouterr()
    assert "top-1" in str(result)
    assert "top-5" not in str(result) + printed.out + printed.err
