"""Find faulty boxes in annotations: outside their image, repeated, or in another convention."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from reslab.data.boxes.annotations import Annotations
from reslab.data.boxes.sets import UNKNOWN_SIZE
from reslab.data.class_folders import Problem
from reslab.data.class_names import alike_in_words
from reslab.errors import unknown_name

# the usual input of Faster R-CNN, and the stride of its feature map
SHORTER, LONGEST, CELL = 600, 1000, 16
MANY_TINY = 0.25  # fraction of the boxes; ordinary COCO images have a sixth


def sizes_of_images(part: Annotations) -> np.ndarray:
    """Return the size of each object's image, float64 [M, 2]; infinite if it is unknown."""
    sizes = np.array(part.sizes, float).reshape(-1, 2)
    sizes[sizes == 0] = np.inf
    return sizes[part.objects.images]


def faulty_boxes(part: Annotations) -> dict[str, np.ndarray]:
    """Return the rows of objects with faulty boxes, keyed by the kind of fault.

    A row has at most one fault.
    """
    boxes = part.objects.corners()
    sizes = sizes_of_images(part)
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


def tiny_boxes(part: Annotations) -> list[Problem]:
    """Return the remark if many boxes are tiny when the network sees them."""
    boxes, sizes = part.objects.corners(), sizes_of_images(part)
    scales = np.minimum(SHORTER / sizes.min(1), LONGEST / sizes.max(1))  # 0 if a size is unknown
    sides = (boxes[:, 2:] - boxes[:, :2]).min(1) * scales
    tiny = np.flatnonzero((sides > 0) & (sides < CELL))
    if len(tiny) <= MANY_TINY * len(boxes):
        return []
    smallest = int(tiny[sides[tiny].argmin()])
    note = (
        f"{len(tiny):,} of {len(boxes):,} boxes have a side below {CELL} pixels as a detector sees "
        f"them (shorter side {SHORTER}, at most {LONGEST}); the smallest is a "
        f"{box_in_words(part, smallest)}"
    )
    return [Problem("tiny boxes", part.place(smallest), note)]


def repeated_ids(part: Annotations) -> list[Problem]:
    """Return the remark on COCO annotations that have the id of another."""
    if part.layout != "COCO":
        return []
    counts = Counter(id_ for id_ in part.objects.places if isinstance(id_, (int, str)))
    repeated = [id_ for id_, count in counts.items() if count > 1]
    if not repeated:
        return []
    first = part.objects.places.index(repeated[0])
    note = f"several annotations have one id: {repeated[0]}"
    if len(repeated) > 1:
        note += f", and {len(repeated) - 1:,} more such ids"
    return [Problem("repeated id", part.place(first).partition(": annotation")[0], note)]


def alike_classes(classes: Iterable[str]) -> Problem | None:
    """Return the remark on classes whose names are equal but for case, spaces, _ and -."""
    note = alike_in_words(classes)
    return Problem("classes alike", "classes", note) if note else None


def unknown_in_words(part: Annotations, row: int) -> str:
    name = part.objects.names[row]
    if part.layout == "YOLO":
        return (
            f"class {name}, but there are {len(part.classes)} classes, 0 to {len(part.classes) - 1}"
        )
    if isinstance(name, int) or name.startswith("id "):
        return f"no category has the id {str(name).removeprefix('id ')}"
    return unknown_name("class", name, part.classes.values())


def box_in_words(part: Annotations, row: int) -> str:
    if row in part.objects.written:
        return part.objects.written[row]
    x0, y0, x1, y1 = part.objects.boxes[row]
    size = part.sizes[part.objects.images[row]]
    image = "of unknown size" if size == UNKNOWN_SIZE else f"of {size[0]} x {size[1]}"
    return f"box {x0:g} {y0:g} {x1:g} {y1:g} in an image {image}"
