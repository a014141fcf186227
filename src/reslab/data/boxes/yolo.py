"""Read YOLO labels: one text file per image, a row `class cx cy width height` per object.

The numbers are fractions of the image's width and height. A row with more numbers is an outline,
`class x1 y1 x2 y2 x3 y3 ...`, whose box is read.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reslab.data.boxes.annotations import AnnotatedFolder, Annotations, Objects
from reslab.data.boxes.image_files import size_of
from reslab.data.boxes.sets import UNKNOWN_SIZE
from reslab.data.boxes.yolo_files import YoloFiles
from reslab.data.class_folders import Problem
from reslab.data.datasets import Splits
from reslab.data.left_out import count_of
from reslab.data.part_names import Part
from reslab.errors import os_reason
from reslab.runtime.files import read_regular

DATA_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "obj.data")
LARGEST = 1.05  # labels may extend past the edge by a rounding error
MOST_CLASSES = 2**16  # a larger number is a mistake
BOX, WITH_SCORE, FEWEST_OUTLINE = 5, 6, 7  # numbers in a row


def read_yolo(folder: Path, found: YoloFiles) -> AnnotatedFolder:
    """Read the parts of a YOLO data set, and collect their problems."""
    annotations = _read_parts(folder, found)
    first = annotations.train if isinstance(annotations, Splits) else annotations
    first.remarks += [Problem("not used", found.source, note) for note in found.notes]
    if not found.names:
        silent = next((name for name in DATA_FILES if (folder / name).is_file()), "")
        note = (
            f"no file names the classes{f', not even {silent}' if silent else ''}: they are called "
            "by their numbers; list them in classes.txt"
        )
        first.remarks.append(Problem("no names", found.source, note))
    return annotations


def _read_parts(folder: Path, found: YoloFiles) -> AnnotatedFolder:
    parts = found.images
    test: Part = "validation" if "validation" in parts else "test"
    if "train" in parts and test in parts:
        train = _read_part(folder, found, "train", parts["train"])
        validation = _read_part(folder, found, "validation", parts[test])
        if not found.names:  # classes by number, from both parts
            train.classes = train.classes | validation.classes
            train.classes = {id_: train.classes[id_] for id_ in sorted(train.classes)}
        return Splits(train, validation)
    if "train" not in parts and None not in parts:
        names = " and ".join(f"{part} images" for part in parts)
        raise ValueError(f"{folder} has {names}, but no training images")
    images = parts["train"] if "train" in parts else parts[None]
    return _read_part(folder, found, folder.resolve().name, images)


def _read_part(folder: Path, found: YoloFiles, name: str, images: list[str]) -> Annotations:
    rows = _Rows(folder, found.keypoints)
    labelled = 0
    part = Annotations("YOLO", name, folder, rows.place, objects=rows.objects)
    for image in images:
        part.files.append(image)
        part.keys.append(image)
        part.sizes.append(size_of(folder, image))
        if label := found.labels.get(image):
            labelled += 1
            rows.read(label, len(part) - 1, part.sizes[-1])
    part.problems = rows.problems()
    numbers = range(max((int(n) for n in rows.objects.names), default=-1) + 1)
    names = found.names or tuple(str(number) for number in numbers)
    part.classes = dict(enumerate(names))
    if labelled < len(part):
        without = count_of(len(part) - labelled, "image")
        note = f"{without} without a label file: taken as images without objects"
        part.remarks.append(Problem("no label file", name, note))
    return part


@dataclass
class _Rows:
    """The objects of label files, and the lines that are not rows."""

    folder: Path
    keypoints: int  # numbers in a row after its box
    objects: Objects = field(default_factory=Objects)
    files: dict[int, str] = field(default_factory=dict)  # label files by image
    faults: dict[str, list[str]] = field(default_factory=dict)  # places by reason

    def place(self, row: int) -> str:
        return f"{self.files[self.objects.images[row]]}:{self.objects.places[row]}"

    def problems(self) -> list[Problem]:
        """Return one problem for each kind of fault, with its first place and their number."""
        return [
            Problem(
                "label file",
                places[0],
                reason + (f"; so are {len(places) - 1:,} more rows" if len(places) > 1 else ""),
            )
            for reason, places in self.faults.items()
        ]

    def read(self, file: str, image: int, size: tuple[int, int]) -> None:
        self.files[image] = file
        try:
            text = read_regular(self.folder / file).decode("utf-8-sig")
        except OSError as error:
            self._fault(os_reason(error), file)
            return
        except UnicodeDecodeError:
            self._fault("not UTF-8 text", file)
            return
        for number, line in enumerate(text.splitlines(), 1):
            if words := line.replace(",", " ").split():
                self._row(words, image, size, f"{file}:{number}", number)

    def _row(
        self, words: list[str], image: int, size: tuple[int, int], place: str, line: int
    ) -> None:
        try:
            class_, *values = (float(word) for word in words)
        except ValueError:
            self._fault(f"not a row of numbers: {' '.join(words)[:60]}", place)
            return
        if self.keypoints and len(words) == BOX + self.keypoints:
            words, values = words[:BOX], values[: BOX - 1]
        if len(words) == WITH_SCORE:
            self._fault(
                "6 numbers: labels have 5, and predictions a confidence that they lack", place
            )
            return
        if len(words) != BOX and (len(words) < FEWEST_OUTLINE or len(values) % 2):
            self._fault(
                f"{len(words)} numbers instead of 5, or of a class and at least 3 points", place
            )
            return
        if not 0 <= class_ < MOST_CLASSES or class_ % 1 or not np.isfinite(values).all():
            self._fault(f"not a class number and fractions: {' '.join(words)[:60]}", place)
            return
        if max(values) > LARGEST:
            self._fault(
                "numbers above 1: they must be fractions of the image's sides, not pixels",
                place,
            )
            return
        if size == UNKNOWN_SIZE:
            return  # a damaged image has no use for boxes
        self.objects.images.append(image)
        self.objects.names.append(int(class_))
        self.objects.boxes.append(_corners(values, size))
        self.objects.places.append(line)
        self.objects.difficult.append(False)
        self.objects.truncated.append(False)
        self.objects.crowd.append(False)

    def _fault(self, reason: str, place: str) -> None:
        self.faults.setdefault(reason, []).append(place)


def _corners(values: list[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return x0 y0 x1 y1 in pixels, of a centre with a size or of an outline, in fractions."""
    width, height = size
    if len(values) == 4:
        x, y, wide, high = values
        return (
            (x - wide / 2) * width, (y - high / 2) * height,
            (x + wide / 2) * width, (y + high / 2) * height,
        )  # fmt: skip
    across, down = values[::2], values[1::2]
    return min(across) * width, min(down) * height, max(across) * width, max(down) * height
