"""Read a folder's VOC annotations: a union of years, or the folder's own split."""

import re
from collections.abc import Sequence
from pathlib import Path

from reslab.data.boxes.annotations import AnnotatedFolder, Annotations
from reslab.data.boxes.voc import VOC_CLASSES, read_voc
from reslab.data.boxes.voc_homes import XML_FOLDERS, VocHome, home_part
from reslab.data.boxes.voc_lists import LIST_FOLDER, has_part, listed_keys, own_split
from reslab.data.class_folders import Problem
from reslab.data.datasets import Splits
from reslab.data.left_out import count_of
from reslab.data.part_names import Part
from reslab.errors import unknown_name

YEARS = ("VOC2007", "VOC2012")
YEAR = re.compile(r"(?i:voc\d{4})")
Lists = tuple[tuple[str, str], ...]  # years and their image lists
# union of VOC years -> the lists to train on, and the list to test on
VOC_UNIONS: dict[str, tuple[Lists, tuple[str, str]]] = {
    "07": ((("VOC2007", "trainval"),), ("VOC2007", "test")),
    "12": ((("VOC2012", "train"),), ("VOC2012", "val")),  # its test set was never published
    "07+12": ((("VOC2007", "trainval"), ("VOC2012", "trainval")), ("VOC2007", "test")),
}


def read_voc_folder(folder: Path, homes: Sequence[VocHome], years: str) -> AnnotatedFolder:
    """Read the homes in a folder: a union of years if they are VOC's, else the folder's own split.

    The classes are VOC's twenty if all annotated classes are, or if `years` names a union.
    """
    homes, others = _distinct(folder, homes)
    annotations = _read_homes(folder, homes, years)
    first = annotations.train if isinstance(annotations, Splits) else annotations
    first.remarks += [_unused(home, folder) for home in others]
    return annotations


def _distinct(folder: Path, homes: Sequence[VocHome]) -> tuple[list[VocHome], list[VocHome]]:
    """Divide homes into those to read, and those that annotate the same images again."""
    read: list[VocHome] = []
    again: list[VocHome] = []
    for home in sorted(homes, key=_unusual):
        twin = next((other for other in read if _same_images(home, other)), None)
        if twin is None:
            read.append(home)
        elif _unusual(home) == _unusual(twin):
            raise ValueError(
                f"{_shown(home.xml, folder)}/ and {_shown(twin.xml, folder)}/ in {folder} annotate "
                "the same images: move one of them out of the folder"
            )
        else:
            again.append(home)
    return [home for home in homes if home in read], again


def _unusual(home: VocHome) -> int:
    name = home.xml.name.lower()
    return XML_FOLDERS.index(name) if name in XML_FOLDERS else len(XML_FOLDERS)


def _same_images(first: VocHome, second: VocHome) -> bool:
    return first.images == second.images and not first.sheets.keys().isdisjoint(second.sheets)


def _read_homes(folder: Path, homes: Sequence[VocHome], years: str) -> AnnotatedFolder:
    by_year = {home.path.resolve().name: home for home in homes}
    union = years or "+".join(year.removeprefix("VOC20") for year in YEARS if year in by_year)
    if not union:
        return _read_own(folder, homes)
    if union not in VOC_UNIONS:
        raise ValueError(f"{folder}: {unknown_name('union of VOC years', union, VOC_UNIONS)}")
    train, test = VOC_UNIONS[union]
    if union == "07" and "VOC2007" in by_year and not has_part(by_year["VOC2007"], "test"):
        train, test = (("VOC2007", "train"),), ("VOC2007", "val")
    for year, part in (*train, test):
        if year not in by_year:
            raise ValueError(f"{folder}: {union} needs {year}/, which is missing")
        if not has_part(by_year[year], part):
            if not years and len(homes) == 1:  # a set of one's own in VOC2007/
                return _read_own(folder, homes)
            raise ValueError(
                f"{folder}: {union} needs the annotations of {year} {part}, which are missing"
            )
    sets = Splits(
        read_voc(
            [(by_year[y], listed_keys(by_year[y], part)) for y, part in train], folder, "train"
        ),
        read_voc([(by_year[test[0]], listed_keys(by_year[test[0]], test[1]))], folder, "test"),
    )
    if years or not _has_own_classes(sets):
        for part in (sets.train, sets.test):
            part.classes = {name: name for name in VOC_CLASSES}
    used = {by_year[year].path for year, _ in (*train, test)}
    sets.train.remarks += [_unused(home, folder) for home in homes if home.path not in used]
    return sets


def _has_own_classes(sets: Splits[Annotations]) -> bool:
    return not {*sets.train.classes, *sets.test.classes} <= {*VOC_CLASSES}


def _read_own(folder: Path, homes: Sequence[VocHome]) -> AnnotatedFolder:
    """Read the folder's own training and test splits, or all images if it is unsplit."""
    if len(homes) > 1:
        return _read_several(folder, homes)
    (home,) = homes
    split = own_split(home)
    if split is None:
        whole = read_voc([(home, list(home.sheets))], folder, folder.resolve().name)
        return _with_place(whole, home, folder)
    train = read_voc([(home, split.train)], folder, "train")
    if split.note:
        train.remarks.append(Problem("one list", LIST_FOLDER, split.note))
    test = read_voc([(home, split.test)], folder, "validation")
    return Splits(_with_place(train, home, folder), test)


def _read_several(folder: Path, homes: Sequence[VocHome]) -> AnnotatedFolder:
    """Read several homes: one or more for each part, or all of them as one unsplit folder."""
    by_part: dict[Part | None, list[VocHome]] = {}
    for home in homes:
        by_part.setdefault(home_part(home, folder), []).append(home)
    train = by_part.get("train")
    test = by_part.get("validation") or by_part.get("test")
    if train and test:
        unused = [home for home in homes if home not in (*train, *test)]
        sets = Splits(_read_all(train, folder, "train"), _read_all(test, folder, "validation"))
        sets.train.remarks += [_unused(home, folder) for home in unused]
        return sets
    shown = ", ".join(f"{_shown(home.path, folder)}/" for home in homes[:4])
    if len(by_part) > 1:
        raise ValueError(
            f"{folder} has boxes in {shown}: it needs a training and a validation part; name the "
            "folders train and val, or name one folder with `data`"
        )
    if any(YEAR.fullmatch(home.path.name) or own_split(home) for home in homes):
        raise ValueError(
            f"{folder} has {len(homes)} sets of boxes, each with its own split ({shown}): name "
            "one of them with `data`"
        )
    return _read_all(homes, folder, folder.resolve().name)


def _read_all(homes: Sequence[VocHome], folder: Path, name: str) -> Annotations:
    return read_voc([(home, list(home.sheets)) for home in homes], folder, name)


def _shown(place: Path, folder: Path) -> str:
    return place.relative_to(folder).as_posix()


def _with_place(part: Annotations, home: VocHome, folder: Path) -> Annotations:
    """Add a remark to a part if its images lie deeper than expected."""
    inside = home.path.relative_to(folder).parts
    place = f"{_shown(home.path, folder)}/"
    if home_part(home, folder) == "train":
        note = "it is split for training and validation, as there is no validation part"
        part.remarks.append(Problem("one part", place, note))
    elif inside and not YEAR.fullmatch(inside[-1]):
        note = "the images and their annotations lie in this folder"
        part.remarks.append(Problem("folder further down", place, note))
    return part


def _unused(home: VocHome, folder: Path) -> Problem:
    note = f"{count_of(len(home.sheets), 'annotation file')} not used, as others are read instead"
    return Problem("part not used", f"{_shown(home.xml, folder)}/", note)
