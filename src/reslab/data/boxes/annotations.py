"""Annotations as written, mistakes included, and detection sets built from them.

The COCO and VOC readers fill one table and collect its problems. Building a detection set raises
the first problem; the doctor lists all of them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from reslab.data.boxes.sets import DetectionSet, GroundTruth, GroundTruthTable
from reslab.data.class_folders import FolderReader, Problem
from reslab.data.class_names import ClassIndex
from reslab.errors import unknown_name

LARGEST_FRACTION = 1.01  # above 1, because fractions are rounded
LEAVING, FITTING = (
    0.2,
    0.98,
)  # boxes are corners if these fractions leave the image, and fit as corners
# A set with such boxes is refused. Empty boxes are skipped, because COCO's own files have some.
REFUSED = ("not numbers", "swapped corners", "box outside")


@dataclass
class Objects:
    """The annotated objects in many images, as columns of length M."""

    images: list[int] = field(default_factory=list)  # indices into the files
    names: list[int | str] = field(default_factory=list)  # of the classes, as written
    boxes: list[Sequence[float]] = field(default_factory=list)  # xyxy in pixels, as in sets.py
    places: list[int] = field(default_factory=list)  # lines in the XML, or COCO annotation ids
    difficult: list[bool] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def corners(self) -> np.ndarray:
        """Return the boxes as one array, float64 [M, 4]."""
        return np.array(self.boxes, float).reshape(-1, 4)


@dataclass
class Annotations:
    """The annotations of one split of a data set."""

    layout: str  # "COCO" or "VOC"
    name: str
    root: Path  # of the images
    place: Callable[[int], str]  # file and line, or file and id, of object j for messages
    # from ids, as in the objects, to names for display, in the order of the labels
    classes: dict[int | str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)  # relative to `root`
    sizes: list[tuple[int, int]] = field(default_factory=list)
    keys: list[int | str] = field(default_factory=list)
    objects: Objects = field(default_factory=Objects)
    problems: list[Problem] = field(default_factory=list)  # except problems with boxes
    differing_ids: str = ""  # a remark, if the classes have other ids in the training split

    def __len__(self) -> int:
        return len(self.files)


def missing_images(root: Path, files: Sequence[str]) -> Iterator[str]:
    """Yield the images that do not exist; list each folder once instead of testing each image."""
    listed: dict[str, set[str]] = {}
    for file in files:
        folder, name = os.path.split(file)
        if folder not in listed:
            try:
                listed[folder] = set(os.listdir(f"{root}/{folder}"))
            except (OSError, ValueError):  # ValueError: an invalid file name
                listed[folder] = set()
        if name not in listed[folder]:
            yield file


def faulty_boxes(part: Annotations) -> dict[str, np.ndarray]:
    """Return the rows of objects with faulty boxes, keyed by the kind of fault.

    A row has at most one fault.
    """
    boxes = part.objects.corners()
    sizes = np.array(part.sizes, float).reshape(-1, 2)[part.objects.images]
    finite = np.isfinite(boxes).all(1)
    with np.errstate(invalid="ignore"):
        extent = boxes[:, 2:] - boxes[:, :2]
        swapped = finite & (extent < 0).any(1)
        empty = finite & ~swapped & (extent == 0).any(1)
        beyond = (boxes[:, 2:] <= 0).any(1) | (boxes[:, :2] >= sizes).any(1)
        # one pixel of tolerance, for rounding and for corners counted from 0 instead of 1
        over = (boxes[:, :2] < -1).any(1) | (boxes[:, 2:] > sizes + 1).any(1)
    whole = finite & ~swapped & ~empty
    masks = {
        "not numbers": ~finite,
        "swapped corners": swapped,
        "box outside": whole & beyond,
        "empty box": empty,
        "past the edge": whole & ~beyond & over,
    }
    return {kind: np.flatnonzero(mask) for kind, mask in masks.items()}


def wrong_convention(part: Annotations) -> Problem | None:
    """Return the problem if the boxes are fractions, or corners in a COCO file; else None."""
    boxes = part.objects.corners()
    sizes = np.array(part.sizes, float).reshape(-1, 2)[part.objects.images]
    finite = np.isfinite(boxes).all(1)
    boxes, sizes = boxes[finite], sizes[finite]
    if not len(boxes):
        return None
    place = part.place(0).partition(": annotation")[0]
    is_coco = part.layout == "COCO"
    offset = -boxes[:, :2] if is_coco else np.zeros_like(sizes)
    start, end = boxes[:, :2] + (0 if is_coco else 1), boxes[:, 2:] + offset  # as written
    written = np.hstack([start, end])
    if (written >= 0).all() and (written <= LARGEST_FRACTION).all() and (written % 1).any():
        note = (
            f"all {len(boxes):,} boxes are numbers from 0 to 1, fractions of the image: multiply "
            "them by its width and height"
        )
        return Problem("fractions", place, note)
    leaving = int((boxes[:, 2:] > sizes + 1).any(1).sum())
    fits = ((end > start) & (end <= sizes + 1)).all(1).mean()
    if is_coco and leaving >= max(2, LEAVING * len(boxes)) and fits >= FITTING:
        note = (
            f"{leaving:,} of {len(boxes):,} boxes leave the image as x y width height, but fit as "
            "corners x0 y0 x1 y1: write x0 y0 x1-x0 y1-y0"
        )
        return Problem("corners", place, note)
    return None


def repeated_boxes(part: Annotations) -> np.ndarray:
    """Return the rows of objects with the same image, class and box as an earlier object."""
    objects = part.objects
    numbers = {name: number for number, name in enumerate(dict.fromkeys(objects.names))}
    rows = np.column_stack([
        objects.images, [numbers[name] for name in objects.names], objects.corners(),
    ])  # fmt: skip
    _, first = np.unique(rows, axis=0, return_index=True)
    return np.setdiff1d(np.arange(len(rows)), first)


def unknown_classes(part: Annotations) -> np.ndarray:
    """Return the rows of objects whose class is not one of `part.classes`."""
    names = enumerate(part.objects.names)
    return np.array([row for row, name in names if name not in part.classes], int)


def unknown_in_words(part: Annotations, row: int) -> str:
    name = part.objects.names[row]
    if isinstance(name, int):
        return f"no category has the id {name}"
    return unknown_name("class", name, part.classes.values())


def align_classes(train: Annotations, test: Annotations) -> None:
    """Give `test` the classes of `train`, matched by name; category ids may differ in COCO.

    Objects of a class that `train` lacks get the class's name instead of an id, so that they are
    refused when a set is built.
    """
    trained = list(train.classes)
    if not set(test.classes.items()) <= set(train.classes.items()):  # else ids and names agree
        positions = ClassIndex(list(train.classes.values())).match(
            [(name,) for name in test.classes.values()]
        )
        known = {
            id_: trained[position] if position >= 0 else name
            for (id_, name), position in zip(test.classes.items(), positions, strict=True)
        }
        differ = [id_ for id_, other in known.items() if isinstance(other, int) and id_ != other]
        if differ:
            name = test.classes[differ[0]]
            test.differing_ids = (
                f"{len(differ)} classes have other ids in {test.name} than in {train.name}: "
                f"{name!r} has the id {differ[0]}, but {known[differ[0]]} in {train.name}"
            )
        test.objects.names = [known.get(id_, f"id {id_}") for id_ in test.objects.names]
    elif len(test.classes) < len(train.classes):
        names = test.objects.names
        test.objects.names = [id_ if id_ in test.classes else f"id {id_}" for id_ in names]
    test.classes = train.classes


def box_in_words(part: Annotations, row: int) -> str:
    x0, y0, x1, y1 = part.objects.boxes[row]
    width, height = part.sizes[part.objects.images[row]]
    return f"box {x0:g} {y0:g} {x1:g} {y1:g} in an image of {width} x {height}"


def detection_set(part: Annotations, *, alone: bool = False) -> DetectionSet:
    """Build a detection set from annotations; raise ValueError with the first problem.

    `alone` is for evaluating detections from a file: the images need not exist, and boxes stay
    float64, because rounding could move an IoU of exactly 0.9 below its threshold.
    """
    _refuse(part, alone)
    objects = part.objects
    used = np.ones(len(objects), bool)
    used[faulty_boxes(part)["empty box"]] = False
    images = np.array(objects.images, int)
    order = np.flatnonzero(used)[np.argsort(images[used], kind="stable")]
    labels = {name: label for label, name in enumerate(part.classes)}
    dtype = torch.float64 if alone else torch.float32
    table = GroundTruth(
        torch.from_numpy(objects.corners()).to(dtype),
        torch.tensor([labels[name] for name in objects.names], dtype=torch.int64),
        torch.tensor(objects.difficult, dtype=torch.bool),
        torch.tensor(objects.crowd, dtype=torch.bool),
        torch.tensor(objects.areas, dtype=dtype) if objects.areas else None,
        torch.tensor(objects.truncated, dtype=torch.bool) if objects.truncated else None,
    ).take(torch.from_numpy(order))
    counts = np.bincount(images[order], minlength=len(part))
    return DetectionSet(
        part.name,
        part.files,
        GroundTruthTable(table, counts),
        tuple(part.classes.values()),
        tuple(str(name) for name in part.classes),
        FolderReader(str(part.root)),
        part.sizes,
        part.keys,
    )


def _refuse(part: Annotations, alone: bool) -> None:
    """Raise ValueError with the first problem and the number of further problems, if any."""
    lines = [f"{problem.place}: {problem.note}" for problem in part.problems]
    if not alone and (problem := wrong_convention(part)):
        raise ValueError(f"{problem.place}: {problem.note}")
    missing = () if alone else missing_images(part.root, part.files)
    lines += [f"{part.root / file} does not exist" for file in missing]
    lines += [f"{part.place(row)}: {unknown_in_words(part, row)}" for row in unknown_classes(part)]
    faulty = faulty_boxes(part)
    for kind in REFUSED:
        lines += (f"{part.place(row)}: {kind} ({box_in_words(part, row)})" for row in faulty[kind])
    if lines:
        more = f"; `reslab check FOLDER` lists {len(lines) - 1:,} more" if len(lines) > 1 else ""
        raise ValueError(f"{' '.join(lines[0].split())}{more}")
    if not part.files:
        raise ValueError(f"{part.root}: the annotations list no images")
    if not part.classes:
        raise ValueError(f"{part.root}: the annotations have no classes and no objects")
