"""Open a part whose images are labelled in a file, beside a training part with class folders.

This is how ImageNet is distributed: 1,000 class folders to train on, and 50,000 validation images
in one folder, whose labels are in LOC_val_solution.csv, val.txt or the development kit.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from reslab.data.class_folders import OnProblem, list_folder, subfolders
from reslab.data.datasets import EncodedImages
from reslab.data.decode import IMAGE_SUFFIXES
from reslab.data.image_finder import ImageFinder, list_files
from reslab.data.labels.choose import (
    TABLE_FOLDERS,
    Tables,
    choose_tables,
    part_of,
    tables_in,
)
from reslab.data.labels.columns import NotLabels
from reslab.data.labels.devkit import GROUND_TRUTH, read_ground_truth
from reslab.data.labels.images import LabelledRow, collect, encoded_images
from reslab.data.labels.table import read_labels
from reslab.data.location import Location, Url
from reslab.data.part_names import part_of_name
from reslab.data.parts import Division, divide

IMAGENET_CLASSES = 1000
_WNID = re.compile(r"n\d{8}")


def find_parts(place: Location, on_problem: OnProblem) -> Division:
    """Find the parts of a folder, as `divide`; a test part may be labelled in a file."""
    division = divide(place, on_problem)
    if isinstance(place, Url) or division.parts.keys() != {"train"}:
        return division
    for folder in division.beside:
        if part_of_name(folder.name) == "test" and _is_labelled(folder, place):
            beside = {other: why for other, why in division.beside.items() if other != folder}
            return replace(division, parts={**division.parts, "validation": folder}, beside=beside)
    return division


def _is_labelled(root: Path, place: Path) -> bool:
    """Return whether there is a table with labels of the images in `root`."""
    paths = _paths(root, place) if _is_heap(root) else []
    try:
        return bool(paths and choose_tables(paths, place, ImageFinder(*list_files(root))))
    except ValueError:
        return False


def _is_heap(root: Path) -> bool:
    """Return whether a folder has images and no class folders."""
    names = (entry.name.lower() for entry in list_folder(root))
    return not subfolders(root) and any(name.endswith(IMAGE_SUFFIXES) for name in names)


def _paths(root: Path, place: Path) -> list[Path]:
    """Return the files that may be tables of the labels of a part."""
    paths = [path for folder in _places(root, place) for path in tables_in(folder)]
    return [path for path in paths if part_of(path, place) != "train"]


def open_heap(
    root: Path, place: Path, names: Path | None, classes: Callable[[], Sequence[str]]
) -> EncodedImages | None:
    """Open the images of `root`, a part of the folder `place`, with labels from a file.

    `classes` returns the classes of the training part. Returns None if `root` has class folders or
    no images, or if there is no file. Raises ValueError if a file cannot be used.
    """
    if not _is_heap(root):
        return None
    paths = _paths(root, place)
    truths = [folder / GROUND_TRUTH for folder in _places(root, place)]
    truths = [truth for truth in truths if truth.is_file()]
    finder = ImageFinder(*list_files(root))
    try:
        tables = choose_tables(paths, place, finder)
        rows, notes = _read(tables, root, finder, classes, names)
    except NotLabels as error:
        if not truths:
            if not paths:
                return None
            raise ValueError(
                f"{root} has no class folders, and no labels in a file: {error}"
            ) from None
        rows, notes = read_ground_truth(truths[0], finder.files), ()
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


def _read(
    tables: Tables,
    root: Path,
    finder: ImageFinder,
    classes: Callable[[], Sequence[str]],
    names: Path | None,
) -> tuple[list[LabelledRow], tuple[str, ...]]:
    """Read the rows of the part, and replace numbers by the classes that they mean."""
    read = [read_labels(path, finder) for path in tables.paths.values()]
    labelled = collect(root, read, finder, all_parts=None not in tables.paths)
    rows = [row for part, listed in labelled.rows.items() if part != "train" for row in listed]
    labels = {row.label for row in rows}
    notes = tables.notes + labelled.notes
    if names or not all(label.isdecimal() for label in labels) or labels <= set(classes()):
        return rows, notes
    wnids = sorted(filter(_WNID.fullmatch, classes()))
    source = next(iter(tables.paths.values()))
    if len(wnids) != IMAGENET_CLASSES or max(map(int, labels)) >= IMAGENET_CLASSES:
        raise ValueError(
            f"{source} has numbers, and the classes are names: list the classes in classes.csv "
            "(index,id,name), or write their names into the file"
        )
    note = f"{source}: the labels are taken as positions in the sorted wnids"
    return [replace(row, label=wnids[int(row.label)]) for row in rows], (*notes, note)
