"""Annotations as they are written, faults and all, and the detection set that they make.

The readers of COCO and VOC fill one table and collect what is wrong. A set is refused for its first
fault; the doctor looks at all of them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from reslab.data.boxes.sets import DetectionSet, GroundTruth, GroundTruthTable
from reslab.data.folder import FolderReader, Problem
from reslab.errors import unknown_name

# faults of boxes that make a set refused; an empty box is left out (COCO's own files have some)
REFUSED = ("not numbers", "swapped corners", "box outside")


@dataclass
class Objects:
    """The annotated objects of many images, as columns of length M."""

    images: list[int] = field(default_factory=list)  # indices into the files
    names: list[int | str] = field(default_factory=list)  # the class, as written
    boxes: list[Sequence[float]] = field(default_factory=list)  # xyxy, as boxes.py counts
    places: list[int] = field(default_factory=list)  # the line of the XML, or COCO's annotation id
    difficult: list[bool] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def corners(self) -> np.ndarray:
        """float64 [M, 4]"""
        return np.array(self.boxes, float).reshape(-1, 4)


@dataclass
class Annotations:
    """One part of a data set."""

    name: str
    root: Path  # of the images
    place: Callable[[int], str]  # where object j is written, for people
    classes: dict[int | str, str]  # as written: for people, in the order of the labels
    files: list[str] = field(default_factory=list)  # relative to `root`
    sizes: list[tuple[int, int]] = field(default_factory=list)
    keys: list[int | str] = field(default_factory=list)
    objects: Objects = field(default_factory=Objects)
    faults: list[Problem] = field(default_factory=list)  # not of boxes

    def __len__(self) -> int:
        return len(self.files)


def missing_images(root: Path, files: Sequence[str]) -> Iterator[str]:
    """Those that are not there; a folder is listed once, not asked for each of its images."""
    listed: dict[str, set[str]] = {}
    for file in files:
        folder, name = os.path.split(file)
        if folder not in listed:
            try:
                listed[folder] = set(os.listdir(f"{root}/{folder}"))
            except (OSError, ValueError):  # a name that no file can have
                listed[folder] = set()
        if name not in listed[folder]:
            yield file


def faulty_boxes(part: Annotations) -> dict[str, np.ndarray]:
    """Kinds of faults and the objects that have them, each object in one kind at most."""
    boxes = part.objects.corners()
    sizes = np.array(part.sizes, float).reshape(-1, 2)[part.objects.images]
    finite = np.isfinite(boxes).all(1)
    with np.errstate(invalid="ignore"):
        extent = boxes[:, 2:] - boxes[:, :2]
        swapped = finite & (extent < 0).any(1)
        empty = finite & ~swapped & (extent == 0).any(1)
        beyond = (boxes[:, 2:] <= 0).any(1) | (boxes[:, :2] >= sizes).any(1)
        # a pixel of tolerance: rounding, and corners that were counted from 0 instead of 1
        over = (boxes[:, :2] < -1).any(1) | (boxes[:, 2:] > sizes + 1).any(1)
    whole = finite & ~swapped & ~empty
    found = {
        "not numbers": ~finite,
        "swapped corners": swapped,
        "box outside": whole & beyond,
        "empty box": empty,
        "past the edge": whole & ~beyond & over,
    }
    return {kind: np.flatnonzero(mask) for kind, mask in found.items()}


def repeated_boxes(part: Annotations) -> np.ndarray:
    """The objects that have the image, the class and the box of an earlier one."""
    objects = part.objects
    numbers = {name: number for number, name in enumerate(dict.fromkeys(objects.names))}
    rows = np.column_stack([
        objects.images, [numbers[name] for name in objects.names], objects.corners(),
    ])  # fmt: skip
    _, first = np.unique(rows, axis=0, return_index=True)
    return np.setdiff1d(np.arange(len(rows)), first)


def unknown_classes(part: Annotations) -> np.ndarray:
    """The objects of a class that the set does not have."""
    known = part.classes
    return np.array([at for at, name in enumerate(part.objects.names) if name not in known], int)


def unknown_in_words(part: Annotations, at: int) -> str:
    name = part.objects.names[at]
    if isinstance(name, int):
        return f"no category has the id {name}"
    return unknown_name("class", name, map(str, part.classes))


def box_in_words(part: Annotations, at: int) -> str:
    x0, y0, x1, y1 = part.objects.boxes[at]
    width, height = part.sizes[part.objects.images[at]]
    return f"box {x0:g} {y0:g} {x1:g} {y1:g} in an image of {width} x {height}"


def detection_set(part: Annotations, *, alone: bool = False) -> DetectionSet:
    """The set, or ValueError with the first fault.

    `alone`: for comparing what was found elsewhere. The images need not be there, and the
    numbers stay float64, since an overlap of exactly 0.9 is on one side or the other of it.
    """
    _refuse(part, alone)
    objects = part.objects
    keep = np.ones(len(objects), bool)
    keep[faulty_boxes(part)["empty box"]] = False
    images = np.array(objects.images, int)
    order = np.flatnonzero(keep)[np.argsort(images[keep], kind="stable")]
    labels = {name: label for label, name in enumerate(part.classes)}
    number = torch.float64 if alone else torch.float32
    table = GroundTruth(
        torch.from_numpy(objects.corners()).to(number),
        torch.tensor([labels[name] for name in objects.names], dtype=torch.int64),
        torch.tensor(objects.difficult, dtype=torch.bool),
        torch.tensor(objects.crowd, dtype=torch.bool),
        torch.tensor(objects.areas, dtype=number) if objects.areas else None,
        torch.tensor(objects.truncated, dtype=torch.bool) if objects.truncated else None,
    ).take(torch.from_numpy(order))
    counts = np.bincount(images[order], minlength=len(part))
    starts = torch.from_numpy(np.concatenate(([0], np.cumsum(counts))))
    return DetectionSet(
        part.name,
        part.files,
        GroundTruthTable(table, starts),
        tuple(part.classes.values()),
        tuple(str(name) for name in part.classes),
        FolderReader(str(part.root)),
        part.sizes,
        part.keys,
    )


def _refuse(part: Annotations, alone: bool) -> None:
    faults = [f"{fault.place}: {fault.note}" for fault in part.faults]
    missing = () if alone else missing_images(part.root, part.files)
    faults += [f"{part.root / file}: not there" for file in missing]
    for at in unknown_classes(part):
        faults.append(f"{part.place(at)}: {unknown_in_words(part, at)}")
    found = faulty_boxes(part)
    for kind in REFUSED:
        faults += (f"{part.place(at)}: {kind} ({box_in_words(part, at)})" for at in found[kind])
    if faults:
        more = f"; {len(faults) - 1:,} more: reslab check" if len(faults) > 1 else ""
        raise ValueError(f"{' '.join(faults[0].split())}{more}")
    if not part.files:
        raise ValueError(f"{part.root}: no image is listed")
    if not part.classes:
        raise ValueError(f"{part.root}: no class is listed, and no object is annotated")
