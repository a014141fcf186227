"""The doctor lists the images of a data set, and collects the problems it refuses."""

import os
import shutil
from pathlib import Path

import pytest
from tests.data.doctor.spoilt_folders import (
    ARRANGED,
    JPEG,
    WHOLE,
    Spoil,
    check,
    link,
    plant,
    plant_parts,
)

from reslab.data.doctor.scan import scan_folder
from reslab.data.folder import open_folder


def test_the_doctor_lists_the_images_of_a_run(tmp_path: Path) -> None:
    """In a folder without problems: the same names and numbers of images."""
    root = plant_parts(tmp_path)
    for place in (
        "train/cat/young/a.JPEG",
        "train/cat/young/.b.jpg",
        "train/cat/@eaDir/c.jpg",
        "train/__MACOSX/d.jpg",
        "train/.cache/e.jpg",
        "val/dog/f.g.tif",
        "val/dog/h",
    ):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(JPEG)
    link(root, "train/eel", "../val/cat")
    link(root, "val/eel", "dog/../../train/dog")
    sets = open_folder(root)
    train, validation = scan_folder(root).parts
    for part, images in ((train, sets.train), (validation, sets.test)):
        assert part.images.files == images.files
        ids = [[of.ids[label] for label in of.labels] for of in (part.images, images)]
        assert ids[0] == ids[1]
    assert len(sets.train) + len(sets.test) == 38


def test_names_that_are_not_utf8_and_an_empty_folder(tmp_path: Path) -> None:
    plant(tmp_path / "a")
    odd = os.fsencode(tmp_path / "a/cat") + b"/\xff\n.jpg"
    Path(os.fsdecode(odd)).write_bytes(b"")
    assert check(tmp_path / "a") == {"empty": [("cat/\udcff\n.jpg",)]}
    (tmp_path / "b").mkdir()
    assert check(tmp_path / "b") == {"no classes": [(".",)]}
    with pytest.raises(ValueError, match="does not exist"):
        scan_folder(tmp_path / "c")


def refusal(folder: Path) -> str:
    try:
        open_folder(folder)
    except ValueError as error:
        return str(error)
    return ""


# splits, class lists and shards are refused by their readers
REFUSED_ELSEWHERE = (
    "one image",
    "a class that is not listed",
    "a bad list of classes",
    "damaged shards",
)
CASES = [(plant_parts, fault, spoil) for fault, (spoil, _) in ARRANGED.items()]
CASES += [(plant, fault, spoil) for fault, (spoil, _) in WHOLE.items()]


@pytest.mark.parametrize(("start", "fault", "spoil"), CASES)
def test_a_data_set_refuses_the_first_problem_of_the_scan(
    start: Spoil, fault: str, spoil: Spoil, tmp_path: Path
) -> None:
    start(tmp_path)
    spoil(tmp_path)
    refusals = [problem.refusal for problem in scan_folder(tmp_path).problems if problem.refusal]
    if refusals:
        assert refusal(tmp_path) == refusals[0]
    else:
        assert bool(refusal(tmp_path)) == (fault in REFUSED_ELSEWHERE)


def test_several_problems_are_collected_and_the_first_is_refused(tmp_path: Path) -> None:
    root = plant_parts(tmp_path)
    for name in ("ant", "bee"):
        (root / "train" / name).mkdir()
    shutil.rmtree(root / "val")
    (root / "val").mkdir()
    problems = scan_folder(root).problems
    assert [(problem.kind, problem.place) for problem in problems] == [
        ("empty class", "train/ant"),
        ("empty class", "train/bee"),
        ("no classes", "val/"),
    ]
    assert refusal(root) == problems[0].refusal
    assert refusal(root).startswith(f"{root / 'train/ant'} has no images")
