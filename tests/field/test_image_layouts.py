"""Folders of images as people have them: parts, unlabelled tests, side matters, rare formats."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.field.test_class_lists import SMALL

import reslab
from reslab.api.check import FolderCheck, check
from reslab.api.pack import pack
from reslab.data.datasets import EncodedImages, notes_of
from reslab.data.folder import open_folder

FORMATS = {".jfif": "JPEG", ".pjp": "JPEG", ".pnm": "PPM", ".tif": "TIFF", ".jp2": "JPEG2000"}


def grow(root: Path, **counts: int) -> Path:
    """Write random images; `train__ant=6` is train/ant/0.png to 5.png."""
    for place, count in counts.items():
        folder = root.joinpath(*place.split("__"))
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write(folder / f"{number}.png")
    return root


def write(path: Path) -> None:
    seed = list(str(path.relative_to(path.parents[2])).encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (36, 40, 3), np.uint8)
    suffix = path.suffix.lower()
    Image.fromarray(pixels).save(path, FORMATS.get(suffix, suffix[1:].upper()))


def kinds(checked: FolderCheck) -> set[str]:
    """Return the kinds of findings, except for the remark that the images are few."""
    return {finding.kind for finding in checked.findings} - {"few images"}


def counts(images: EncodedImages) -> dict[str, int]:
    return dict(zip(images.ids, images.labels.bincount().tolist(), strict=True))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("training_set", "test_set"),
        ("seg_train__seg_train", "seg_test__seg_test"),
    ],
)
def test_training_and_testing_are_parts_for_training_and_for_check(
    train: str, test: str, tmp_path: Path
) -> None:
    sizes = {f"{train}__ant": 6, f"{train}__bee": 6, f"{test}__ant": 3, f"{test}__bee": 3}
    grow(tmp_path, **sizes)
    sets = open_folder(tmp_path)
    assert (counts(sets.train), counts(sets.test)) == ({"ant": 6, "bee": 6}, {"ant": 3, "bee": 3})
    assert notes_of(sets.train, sets.test) == ()
    checked = check(tmp_path, size=32)
    assert kinds(checked) == set()
    assert checked.contents.startswith(
        "12 train images in 2 classes, 6 validation images in 2 classes"
    )


def test_images_to_predict_are_left_out_and_the_training_part_is_split(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = grow(tmp_path / "images", train__ant=6, train__bee=6, test=5)
    recipe = reslab.recipe("own-resnet18", data=folder).with_changes(SMALL)
    reslab.train(recipe, tmp_path / "run", data=folder)
    printed = capsys.readouterr()
    for line in ("test/ has no class folders: its 5 images are not read", "train/ is split"):
        assert (printed.out + printed.err).count(line) == 1
    report = reslab.evaluate(tmp_path / "run", data=folder)
    assert "n=2" in str(report)
    assert "refused" not in {finding.advice.severity for finding in check(folder).findings}


def test_validation_images_in_one_folder_are_refused_in_the_same_words(tmp_path: Path) -> None:
    grow(tmp_path, train__ant=6, train__bee=6, val=5)
    with pytest.raises(ValueError, match="val has no class folders: put the images") as caught:
        open_folder(tmp_path)
    cases = [case for finding in check(tmp_path, size=32).findings for case in finding.cases]
    assert str(caught.value) in [case.note for case in cases]


@pytest.mark.parametrize(
    "suffix", [".jfif", ".pjp", ".ppm", ".pnm", ".avif", ".jp2", ".tga", ".TIF", ".webp"]
)
def test_every_usual_format_is_read(suffix: str, tmp_path: Path) -> None:
    folder = grow(tmp_path / "images", ant=2, bee=2)
    for name in ("ant", "bee"):
        for number in range(3):
            write(folder / name / f"k{number}{suffix}")
    assert kinds(check(folder, size=32)) == set()
    sets = open_folder(folder)
    assert len(sets.train) + len(sets.test) == 10
    assert sets.train.notes == ()
    (packed,), _ = pack(folder, tmp_path / "packed")
    assert packed.pictures == 10
    assert len(open_folder(tmp_path / "packed").train) == len(sets.train)


def test_every_verb_says_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = grow(tmp_path / "images", ant=6, bee=6)
    for number in range(3):
        (folder / "ant" / f"{number}.jxl").write_bytes(b"")
        (folder / "bee" / f"{number}.txt").write_text("an insect")
    line = "6 files left out: 3 .jxl, 3 .txt"
    assert open_folder(folder).train.notes == (line,)
    events: list[str] = []
    pack(folder, tmp_path / "out", on_event=lambda event: events.append(str(event.get("text"))))
    assert line in events
    recipe = reslab.recipe("own-resnet18", data=folder).with_changes(SMALL)
    reslab.train(recipe, tmp_path / "run", data=folder)
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count(line) == 1
    reslab.evaluate(tmp_path / "run", data=folder)
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count(line) == 1


def test_the_root_of_a_drive(tmp_path: Path) -> None:
    grow(tmp_path, ant=6, bee=6)
    system = ("$RECYCLE.BIN", "System Volume Information", "lost+found", ".Trash-1000")
    for name in system:
        (tmp_path / name).mkdir()
        (tmp_path / name / "keep.dat").write_bytes(b"x")
    sets = open_folder(tmp_path)
    assert sets.train.ids == ("ant", "bee")
    line = "3 system folders left out: $RECYCLE.BIN, System Volume Information, lost+found"
    assert sets.train.notes == (line,)
    assert "refused" not in {finding.advice.severity for finding in check(tmp_path).findings}


def test_an_empty_class_in_validation_is_a_remark(tmp_path: Path) -> None:
    grow(tmp_path, train__ant=6, train__bee=6, val__ant=3, val__bee=0)
    (tmp_path / "val/bee/.gitkeep").touch()
    sets = open_folder(tmp_path)
    assert (sets.train.ids, sets.test.ids) == (("ant", "bee"), ("ant", "bee"))
    assert sets.test.labels.tolist() == [0] * 3
    assert "1 class without validation images: bee; its error is not measured" in sets.train.notes
    checked = check(tmp_path, size=32)
    assert "class not in validation" in kinds(checked)
    assert "empty class" not in kinds(checked)


def test_two_levels_are_noted_by_check_and_by_training(tmp_path: Path) -> None:
    grow(tmp_path, a__airfield=4, a__alley=4, b__bar=4, b__beach=4)
    sets = open_folder(tmp_path)
    (line,) = sets.train.notes
    assert line.startswith("the classes are a, b, and their subfolders are read together")
    assert counts(sets.train) == {"a": 6, "b": 6}
    cases = [case.note for finding in check(tmp_path, size=32).findings for case in finding.cases]
    assert line in cases
