"""Open a part whose images are labelled in a file, beside a training part with class folders.

This is how ImageNet is distributed: 1,000 class folders to train on, and 50,000 validation images
in one folder, whose labels are in LOC_val_solution.csv, val.txt or the development kit.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from reslab.data.class_folders import OnProblem, list_folder, subfolders
from reslab.data.datasets import EncodedImages
from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.image_finder import ImageFinder, list_files
from reslab.data.labels.choose import (
    TABLE_FOLDERS,
    SeveralTables,
    Tables,
    choose_tables,
    part_of,
    tables_in,
)
from reslab.data.labels.columns import NotLabels
from reslab.data.labels.devkit import GROUND_TRUTH, read_ground_truth
from reslab.data.labels.images import LabelledRow, collect, encoded_images, is_whole
from reslab.data.labels.table import read_labels
from reslab.data.left_out import shorten
from reslab.data.location import Location, Url
from reslab.data.part_names import part_of_name
from reslab.data.parts import Division, divide, relative
from reslab.data.shards.reader import is_indexed, open_part

IMAGENET_CLASSES = 1000
Read = tuple[list[LabelledRow], tuple[str, ...]]  # with notes
_WNID = re.compile(r"n\d{8}")


def find_parts(place: Location, on_problem: OnProblem) -> Division:
    """Find the parts of a folder, as `divide`; a test part may be labelled in a file."""
    division = divide(place, on_problem)
    if isinstance(place, Url) or division.parts.keys() != {"train"}:
        return division
    for folder in division.beside:
        if part_of_name(folder.name) == "test" and _is_labelled(folder, place, division):
            beside = {other: why for other, why in division.beside.items() if other != folder}
            return replace(division, parts={**division.parts, "validation": folder}, beside=beside)
    return division


def _is_labelled(root: Path, place: Path, division: Division) -> bool:
    """Return whether there is a file with labels of the images in `root`."""
    try:
        return open_flat(root, place, None, division.parts["train"]) is not None
    except ValueError:
        return False


def open_flat(
    root: Path, place: Path, names: Path | None, train: Location | None
) -> EncodedImages | None:
    """Open the images of `root`, a part of the folder `place`, with labels from a file.

    `names` is a class list, and `train` the training part. Returns None if `root` has class folders
    or no images, or if there is no file. Raise ValueError if a file cannot be used.
    """
    entries = (entry.name.lower() for entry in list_folder(root))
    if subfolders(root) or not any(name.endswith(IMAGE_SUFFIXES) for name in entries):
        return None
    places = list(_places(root, place))
    paths = [path for folder in places for path in tables_in(folder)]
    paths = [path for path in paths if part_of(path, place) != "train"]
    truth = next((path for f in places if (path := f / GROUND_TRUTH).is_file()), None)
    try:
        rows, notes = _read_flat(paths, root, place)
    except NotLabels as error:
        if not truth and not paths:
            return None
        if not truth:
            line = f"{root} has no class folders, and no labels in a file: {error}"
            raise ValueError(line) from None
        rows, notes = read_ground_truth(truth, list_files(root)[0]), ()
    if not names:
        rows, numbers = _with_names(rows, train)
        notes += numbers
    return replace(encoded_images(root.resolve().name, root, rows, names), notes=notes)


def _places(root: Path, place: Path) -> Iterator[Path]:
    """Yield the folders that may have the labels of a part: from it up to `place`, and beside."""
    for folder in (root, *root.parents):
        if not folder.is_relative_to(place):
            break
        yield folder
        for name in subfolders(folder) if folder != root else ():
            if name.lower() in TABLE_FOLDERS:
                yield folder / name
            elif "devkit" in name.lower():
                yield folder / name / "data"


def _read_flat(paths: Sequence[Path], root: Path, place: Path) -> Read:
    """Read the labels of the part from the table whose name says so, or else from another."""
    own = [path for path in paths if part_of(path, place)]
    finder = ImageFinder(*list_files(root))
    try:
        return _read(choose_tables(own or paths, place, finder), root, place, finder)
    except SeveralTables as error:
        read = [_read(tables, root, place, finder) for tables in error.tables]
        answers = [{row.file: row.label for row in rows} for rows, _ in read]
        if any(answer != answers[0] for answer in answers):
            names = shorten(str(path) for tables in error.tables for path in tables.paths.values())
            raise ValueError(f"{names} have different labels of {root}: keep one") from None
        return read[0]


def _read(tables: Tables, root: Path, place: Path, finder: ImageFinder) -> Read:
    """Read the labels of the part; a table for all parts may have equal names in several."""
    if None not in tables.paths:
        read = [read_labels(path, finder) for path in tables.paths.values()]
        labelled = collect(root, read, finder)
    else:
        finder = ImageFinder(*list_files(place))
        read = [read_labels(path, finder) for path in tables.paths.values()]
        labelled = collect(root, read, finder, within=f"{relative(root, place)}/")
    rows = [row for part, listed in labelled.rows.items() if part != "train" for row in listed]
    if not rows:
        raise NotLabels(f"{next(iter(tables.paths.values()))}: it lists no image of {root}")
    return rows, tables.notes + labelled.notes


def _with_names(rows: list[LabelledRow], train: Location | None) -> Read:
    """Replace numbers by the wnids of ImageNet that they mean, unless classes are numbers."""
    classes = _training_ids(train)
    labels = {row.label for row in rows}
    if not all(label.isdecimal() for label in labels) or labels <= set(classes) or not classes:
        return rows, ()
    wnids = sorted(filter(_WNID.fullmatch, classes))
    if (
        len(wnids) != IMAGENET_CLASSES
        or not all(map(is_whole, labels))
        or max(map(int, labels)) >= IMAGENET_CLASSES
    ):
        raise ValueError(
            f"{rows[0].table} has numbers, and the classes are names: list the classes in "
            "classes.csv (index,id,name), or write their names into the file"
        )
    note = f"{rows[0].table}: the labels are taken as positions in the sorted wnids"
    return [replace(row, label=wnids[int(row.label)]) for row in rows], (note,)


def _training_ids(train: Location | None) -> Sequence[str]:
    """Return the classes of a training part."""
    if not isinstance(train, Path):
        return ()
    packed = open_part(train) if is_indexed(train) else None
    return packed.ids if packed else subfolders(train)
