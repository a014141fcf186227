"""Annotations as written, mistakes included.

The COCO and VOC readers fill one table and collect its problems. Building a detection set raises
the first problem; the doctor lists all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reslab.data.class_folders import Problem
from reslab.data.class_names import ClassIndex
from reslab.data.datasets import Splits


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
    # boxes that are not numbers, as they are written; keyed by row
    written: dict[int, str] = field(default_factory=dict)

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
    sizes: list[tuple[int, int]] = field(default_factory=list)  # or UNKNOWN_SIZE, of sets.py
    keys: list[int | str] = field(default_factory=list)
    objects: Objects = field(default_factory=Objects)
    problems: list[Problem] = field(default_factory=list)  # except problems with boxes
    remarks: list[Problem] = field(default_factory=list)  # on what was left out or assumed
    source: str = ""  # the file that names the images, for messages; "" if each has a file
    differing_ids: str = ""  # a remark, if the classes have other ids in the training split

    def __len__(self) -> int:
        return len(self.files)


AnnotatedFolder = Splits[Annotations] | Annotations  # both splits, or an unsplit folder


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
        matched = {
            id_: trained[position]
            for id_, position in zip(test.classes, positions, strict=True)
            if position >= 0
        }
        unmatched = {
            id_: name if name not in train.classes else f"id {id_}"
            for id_, name in test.classes.items()
        }
        known = unmatched | matched
        differ = [id_ for id_, other in matched.items() if id_ != other]
        if differ and test.layout == "COCO":
            name = test.classes[differ[0]]
            test.differing_ids = (
                f"{len(differ)} classes have other ids in {test.name} than in {train.name}: "
                f"{name!r} has the id {differ[0]}, but {known[differ[0]]} in {train.name}"
            )
            test.remarks.append(Problem("category ids", test.name, test.differing_ids))
        test.objects.names = [known.get(id_, f"id {id_}") for id_ in test.objects.names]
    elif len(test.classes) < len(train.classes):
        names = test.objects.names
        test.objects.names = [id_ if id_ in test.classes else f"id {id_}" for id_ in names]
    test.classes = train.classes
