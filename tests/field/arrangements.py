"""Arrange small images as people do: parts, classes, tables of labels, boxes, and one fault each.

An arrangement is a layout and a fault; each fault is tried in several layouts.
"""

import csv
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.field.annotated import annotated, plant_labelme
from tests.field.small_images import SIDE, image, images

LAYOUTS_PER_FAULT = 3


@dataclass(frozen=True)
class Arrangement:
    """A folder to create; `boxes` are for detection."""

    name: str
    plant: Callable[[Path], object]
    boxes: bool = False


def classes(folder: Path, names: Sequence[str] = ("cat", "dog", "eel"), number: int = 3) -> None:
    for name in names:
        images(folder / name, number)


@dataclass(frozen=True)
class Layout:
    """Where the classes are: `train` and `validation` are paths; None for no such part."""

    train: str | None
    validation: str | None = None


CLASS_LAYOUTS = {
    "whole": Layout("."),
    "train and val": Layout("train", "val"),
    "training and testing": Layout("training", "testing"),
    "Kaggle": Layout("seg_train/seg_train", "seg_test/seg_test"),
    "sets": Layout("training_set", "test_set"),
    "capitals": Layout("Train", "Valid"),
    "wrapped": Layout("archive/archive/train", "archive/archive/val"),
    "images in parts": Layout("train/images", "val/images"),
    "train alone": Layout("train"),
    "validation alone": Layout(None, "val"),
    "eval": Layout("train", "eval"),
    "wrapped, no parts": Layout("images"),
}
Fault = Callable[[Path, Path, Path | None], object]  # the folder, its train and validation parts


def unlabelled_test(root: Path, train: Path, validation: Path | None) -> None:
    images(root / "test", 3)


CLASS_FAULTS: dict[str, Fault] = {
    "none": lambda root, train, validation: None,
    "one class": lambda root, train, validation: [
        shutil.rmtree(part / name)
        for part in (train, validation) if part
        for name in ("dog", "eel")
    ],
    "no images": lambda root, train, validation: [
        shutil.rmtree(train / name) or (train / name).mkdir() for name in ("cat", "dog", "eel")
    ],
    "an empty class": lambda root, train, validation: (train / "fox").mkdir(),
    "an empty class in validation": lambda root, train, validation: (
        validation and (shutil.rmtree(validation / "eel"), (validation / "eel").mkdir())
    ),
    "a class only in validation": lambda root, train, validation: (
        validation and images(validation / "fox", 2)
    ),
    "a class only in training": lambda root, train, validation: images(train / "fox", 2),
    "other spelling in validation": lambda root, train, validation: (
        validation and (validation / "cat").rename(validation / "Cat ")
    ),
    "one image of a class": lambda root, train, validation: images(train / "fox", 1),
    "a class of JPEG XL": lambda root, train, validation: (
        (train / "fox").mkdir(), (train / "fox" / "a.jxl").write_bytes(b"\xff\n")
    ),
    "a folder of texts": lambda root, train, validation: (
        (train / "docs").mkdir(), (train / "docs" / "a.md").write_text("notes")
    ),
    "other files": lambda root, train, validation: [
        (train / "cat" / f"a{suffix}").write_bytes(b"text") for suffix in (".txt", ".jxl", "")
    ],
    "images beside the classes": lambda root, train, validation: images(train, 2),
    "an unlabelled test part": unlabelled_test,
    "a folder beside": lambda root, train, validation: images(root / "extra" / "cat", 2),
    "system folders": lambda root, train, validation: [
        images(train / name, 1) for name in ("$RECYCLE.BIN", "__MACOSX", ".Trash-1000")
    ],
    "a linked class": lambda root, train, validation: (train / "hound").symlink_to("dog"),
    "a linked folder": lambda root, train, validation: (train / "cat" / "up").symlink_to("../dog"),
    "a damaged image": lambda root, train, validation: (train / "cat" / "0.png").write_bytes(b""),
    "a class of damaged images": lambda root, train, validation: [
        (train / "cat" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n") for number in range(3)
    ],
    "a leak": lambda root, train, validation: (
        validation and shutil.copy(train / "cat" / "0.png", validation / "cat" / "copy.png")
    ),
    "a strip": lambda root, train, validation: image(train / "cat" / "strip.png", 51 * SIDE, SIDE),
    "a list of other classes": lambda root, train, validation: (
        (root / "classes.csv").write_text("index,id,name\n0,cat,Cat\n1,dog,Dog\n")
    ),
    "a broken list of classes": lambda root, train, validation: (
        (root / "classes.csv").write_text("index,id,name\n0,cat,Cat\n5,dog,Dog\n2,eel,Eel\n")
    ),
    "subfolders": lambda root, train, validation: [
        images(train / name / year, 2) for name in ("cat", "dog") for year in ("2023", "2024")
    ],
    "a name without a suffix": lambda root, train, validation: image(train / "cat" / "photo"),
    "damaged shards": lambda root, train, validation: (
        (train / "index.safetensors").write_bytes(b"damaged")
    ),
}  # fmt: skip


def plant_classes(layout: Layout, fault: Fault, root: Path) -> None:
    parts = [root / part if part else None for part in (layout.train, layout.validation)]
    for part in parts:
        if part:
            classes(part)
    train, validation = parts
    fault(root, train or validation or root, validation)


Rows = list[list[str]]


def table(root: Path, rows: Rows, name: str = "labels.csv") -> None:
    with (root / name).open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def labelled(root: Path, images_in: str = "") -> Rows:
    """Write twelve images of three classes into one folder, and return the rows of their table."""
    images(root / images_in, 12)
    names = [f"{number}.png" for number in range(12)]
    return [[name, ("cat", "dog", "eel")[number % 3]] for number, name in enumerate(names)]


def damage_first(root: Path, rows: Rows) -> Rows:
    (file,) = root.rglob("0.png")
    file.write_bytes(b"")
    return rows


TABLE_FAULTS: dict[str, Callable[[Path, Rows], Rows]] = {
    "none": lambda root, rows: rows,
    "a missing image": lambda root, rows: [*rows, ["gone.png", "cat"]],
    "two labels": lambda root, rows: [*rows, ["0.png", "dog"]],
    "a row twice": lambda root, rows: [*rows, rows[0]],
    "one class": lambda root, rows: [[name, "cat"] for name, _ in rows],
    "images without a label": lambda root, rows: rows[:-2],
    "one image of a class": lambda root, rows: [*rows[:-1], [rows[-1][0], "fox"]],
    "an empty label": lambda root, rows: [*rows[:-1], [rows[-1][0], ""]],
    "no rows": lambda root, rows: [],
    "a split": lambda root, rows: [
        [*row, "val" if number > 8 else "train"] for number, row in enumerate(rows)
    ],
    "a split with a new class": lambda root, rows: [
        [row[0], "fox" if number == 11 else row[1], "val" if number > 8 else "train"]
        for number, row in enumerate(rows)
    ],
    "an unknown split": lambda root, rows: [[*row, "elsewhere"] for row in rows],
    "a damaged image": damage_first,
}
TABLE_LAYOUTS = {
    "beside": ("", "labels.csv"),
    "in images": ("images", "labels.csv"),
    "train.csv": ("train", "train.csv"),
    "annotations": ("img", "annotations.csv"),
}


def plant_table(where: tuple[str, str], fault: Callable[[Path, Rows], Rows], root: Path) -> None:
    folder, name = where
    rows = fault(root, labelled(root, folder))
    header = ["file", "label", "split"][: max(map(len, rows), default=2)]
    table(root, [header, *rows], name)


OTHERS: dict[str, Callable[[Path], object]] = {
    "an empty folder": lambda root: None,
    "a file alone": lambda root: (root / "a.txt").write_text("a"),
    "images alone": lambda root: images(root, 3),
    "labelme": plant_labelme,
}


def arrangements() -> Iterator[Arrangement]:
    """Yield all arrangements, always the same."""
    numbers = count()
    for name, fault in CLASS_FAULTS.items():
        layouts = random.Random(name).sample(sorted(CLASS_LAYOUTS), LAYOUTS_PER_FAULT)
        for key in sorted(CLASS_LAYOUTS) if name == "none" else layouts:
            layout = CLASS_LAYOUTS[key]
            yield Arrangement(
                f"{next(numbers)} {key}, {name}",
                lambda root, layout=layout, fault=fault: plant_classes(layout, fault, root),
            )
    for number, (name, rows) in enumerate(TABLE_FAULTS.items()):
        keys = list(TABLE_LAYOUTS)
        for key in keys if name == "none" else (keys[number % 4], keys[(number + 1) % 4]):
            where = TABLE_LAYOUTS[key]
            yield Arrangement(
                f"{next(numbers)} table {key}, {name}",
                lambda root, where=where, rows=rows: plant_table(where, rows, root),
            )
    for name, plant in OTHERS.items():
        yield Arrangement(f"{next(numbers)} {name}", plant)
    for name, plant in annotated():
        yield Arrangement(f"{next(numbers)} boxes {name}", plant, boxes=True)
