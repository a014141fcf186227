"""Pair the images of a YOLO data set with their label files, wherever these lie."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path, PurePosixPath

from reslab.data.boxes.image_files import folded
from reslab.data.boxes.tree import IMAGE_FOLDERS, Folder
from reslab.data.part_names import Part, part_of_name
from reslab.runtime.files import open_regular

NAMES_FILES = re.compile(
    r"(?i)classes\.txt|labels\.txt|_darknet\.labels|.+\.names|predefined_classes\.txt"
)
LABEL_FOLDERS = ("labels", "label")
NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
# a class number, then a box or an outline; or a name and a box
ROW = re.compile(
    rf"\d+(\.0*)?(\s+{NUMBER}){{4,}}\s*|([^\W\d][\w-]*|\d+)([\s,]+{NUMBER}){{4}}[\s,]*"
)
TRIED = 200  # label files that are looked at to recognise the layout
LONGEST_SEARCH = 20_000  # label files among which some that are not empty are looked for


@dataclass(frozen=True)
class LabelFiles:
    """The label files of images, and the other text files in the same folders."""

    by_image: dict[str, str]  # both relative to the opened folder
    others: tuple[str, ...]

    def are_yolo(self, folder: Path) -> bool:
        """Return whether one of the first label files that are not empty has YOLO rows."""
        tried = 0
        for file in islice(self.by_image.values(), LONGEST_SEARCH):
            line = first_line(folder / file)
            if line and ROW.fullmatch(line):
                return True
            tried += bool(line)
            if tried == TRIED:
                return False
        return False

    def without_image(self, folder: Path) -> list[str]:
        """Return the label files that fit no image."""
        return [file for file in self.others if ROW.fullmatch(first_line(folder / file))]


def first_line(path: Path) -> str:
    """Return the first line of a text file that is not blank; "" if it cannot be read."""
    try:
        with TextIOWrapper(open_regular(path), "utf-8-sig") as file:
            return next((line.strip() for line in islice(file, 20) if line.strip()), "")
    except (OSError, ValueError):
        return ""


def text_files(tree: Folder) -> Iterator[str]:
    """Yield the text files in a folder and below it, relative to it, except lists of names."""
    for place in tree.walk():
        below = place.path.relative_to(tree.path).as_posix()
        prefix = "" if below == "." else f"{below}/"
        yield from (prefix + name for name in place.texts if not NAMES_FILES.fullmatch(name))


def pair_labels(images: Iterable[str], texts: Iterable[str]) -> LabelFiles:
    """Pair images with text files of the same stem, a folder of images with one of labels.

    The labels of a folder lie in `labels/` where the images lie in `images/`, beside the images, or
    else in the folder with the most stems in common. Capitals make no difference.
    """
    stems = _by_folder(images)
    labels = _by_folder(texts)
    by_form = {folded(folder): folder for folder in labels}
    usual = {folder: _usual(folder, stems[folder], labels, by_form) for folder in stems}
    taken = set(usual.values())
    by_image: dict[str, str] = {}
    used: dict[str, set[str]] = {}
    for folder, own in stems.items():
        place = usual[folder]
        if place is None:
            place = _best(folder, own, {p: table for p, table in labels.items() if p not in taken})
        if place is None:
            continue
        used.setdefault(place, set()).update(own)
        for stem, files in own.items():
            if stem in labels[place]:
                by_image |= dict.fromkeys(files, labels[place][stem][0])
    others = tuple(
        file
        for place, own in used.items()
        for stem, files in labels[place].items()
        if stem not in own
        for file in files
    )
    return LabelFiles(by_image, others)


Stems = dict[str, list[str]]  # files by their stems, folded


def _by_folder(files: Iterable[str]) -> dict[str, Stems]:
    tables: dict[str, Stems] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        stem = folded(os.path.splitext(name)[0])
        tables.setdefault(folder, {}).setdefault(stem, []).append(file)
    return tables


def _usual(
    folder: str, own: Stems, labels: dict[str, Stems], by_form: dict[str, str]
) -> str | None:
    for candidate in _usual_places(folder):
        place = by_form.get(folded(candidate))
        if place is not None and not own.keys().isdisjoint(labels[place]):
            return place
    return None


def _usual_places(folder: str) -> Iterator[str]:
    """Yield the places where the labels of a folder of images usually are."""
    parts = PurePosixPath(folder).parts
    for number in reversed(range(len(parts))):
        if parts[number].lower() in IMAGE_FOLDERS:
            for name in LABEL_FOLDERS:
                yield "/".join((*parts[:number], name, *parts[number + 1 :]))
    yield folder
    for name in LABEL_FOLDERS:
        yield "/".join((*parts, name))
        if parts:
            yield "/".join((*parts[:-1], name))


def _best(folder: str, own: Stems, labels: dict[str, Stems]) -> str | None:
    """Return the folder that has labels for the most images, and not those of another part."""
    part = part_of_path(folder)
    shared = Counter({
        place: len(own.keys() & table.keys())
        for place, table in labels.items()
        if part is None or part_of_path(place) in (None, part)
    })  # fmt: skip
    first = shared.most_common(1)
    return first[0][0] if first and first[0][1] else None


def part_of_path(folder: str) -> Part | None:
    """Return the part that the first folder of a path with such a name holds."""
    parts: Sequence[Part | None] = [part_of_name(name) for name in PurePosixPath(folder).parts]
    return next((part for part in parts if part), None)
