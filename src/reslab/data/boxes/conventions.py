"""Detect boxes written in a different convention from that of their format.

A COCO box is x y width height, a VOC box is xmin ymin xmax ymax, both in pixels. Other tools write
corners, sizes, centres, fractions or percentages. A few boxes cannot show the convention, but all
of a split's boxes can: they fit the images in only one reading.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reslab.data.boxes.annotations import Annotations
from reslab.data.boxes.box_faults import sizes_of_images
from reslab.data.class_folders import Problem

LARGEST_FRACTION = 1.01  # above 1, because fractions are rounded
# boxes are in another convention if these fractions do not fit as written, and fit otherwise
MISFITS, FITTING = 0.2, 0.98
FAR = 0.1  # fraction of its side by which a misfit leaves its image
PERCENT, SMALLEST_SIDE, FEWEST = 100.5, 200, 10  # of percentages, images and boxes

Reading = Callable[[np.ndarray], np.ndarray]  # maps boxes as written to xyxy, float64 [M, 4]


def corners(written: np.ndarray) -> np.ndarray:
    return written


def corner_and_size(written: np.ndarray) -> np.ndarray:
    return np.hstack([written[:, :2], written[:, :2] + written[:, 2:]])


def centre_and_size(written: np.ndarray) -> np.ndarray:
    half = written[:, 2:] / 2
    return np.hstack([written[:, :2] - half, written[:, :2] + half])


@dataclass(frozen=True)
class Convention:
    """A way to write boxes."""

    name: str
    read: Reading
    to_corners: str  # how to convert it to corners, and to a corner with a size
    to_size: str


CORNERS = Convention("corners x0 y0 x1 y1", corners, "", "x0 y0 x1-x0 y1-y0")
SIZES = Convention("x y width height", corner_and_size, "x y x+width y+height", "")
CENTRES = Convention(
    "centres cx cy width height", centre_and_size,
    "cx-width/2 cy-height/2 cx+width/2 cy+height/2", "cx-width/2 cy-height/2 width height",
)  # fmt: skip
# by the layout: the right convention, and others
CONVENTIONS = {"COCO": (SIZES, (CORNERS, CENTRES)), "VOC": (CORNERS, (SIZES, CENTRES))}


def wrong_convention(part: Annotations) -> Problem | None:
    """Return the problem if most boxes fit the images in another convention only; else None."""
    if part.layout not in CONVENTIONS:
        return None
    right, others = CONVENTIONS[part.layout]
    boxes, sizes = part.objects.corners(), sizes_of_images(part)
    finite = np.isfinite(boxes).all(1)
    if not finite.all():
        boxes, sizes = boxes[finite], sizes[finite]
    if not len(boxes):
        return None
    place = part.place(0).partition(": annotation")[0]
    if boxes.max() <= PERCENT:
        spread = bool((boxes[:, 2:].max(0) > PERCENT / 2).all())
        if problem := _scaled(_as_written(part, boxes), sizes, place, spread):
            return problem
    far = ~_fit(boxes, sizes, FAR)
    if far.sum() < max(2, MISFITS * len(boxes)):
        return None
    misfits = int((~_fit(boxes, sizes, 0)).sum())
    for other in others:
        if _fit(other.read(_as_written(part, boxes)), sizes, 0).mean() >= FITTING:
            change = other.to_size if right is SIZES else other.to_corners
            note = (
                f"{misfits:,} of {len(boxes):,} boxes do not fit the image as {right.name}, but as "
                f"{other.name}: write {change}"
            )
            return Problem("convention", place, note)
    return None


def _as_written(part: Annotations, boxes: np.ndarray) -> np.ndarray:
    if part.layout == "COCO":
        return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    return boxes + np.array([1, 1, 0, 0])


def _scaled(written: np.ndarray, sizes: np.ndarray, place: str, spread: bool) -> Problem | None:
    """Return the problem if all boxes are fractions or percentages of the image.

    Percentages are at most 100 although images are large; `spread` is true if some exceed 50.
    """
    if (written < 0).any():
        return None
    if (written <= LARGEST_FRACTION).all() and (written % 1).any():
        note = (
            f"all {len(written):,} boxes are numbers from 0 to 1, fractions of the image: multiply "
            "them by its width and height"
        )
        return Problem("fractions", place, note)
    large = (sizes >= SMALLEST_SIDE).all() and np.isfinite(sizes).all()
    fractional = ((written % 1) != 0).mean() > 0.5
    if len(written) >= FEWEST and spread and large and fractional:
        note = (
            f"all {len(written):,} boxes are numbers from 0 to 100 in images of at least "
            f"{sizes[:, 0].min():g} x {sizes[:, 1].min():g}, percentages of the image: multiply "
            "them by its width and height, and divide by 100"
        )
        return Problem("fractions", place, note)
    return None


def _fit(boxes: np.ndarray, sizes: np.ndarray, far: float) -> np.ndarray:
    """Return which boxes have an area and lie in their image, but for `far` of their sides."""
    extent = boxes[:, 2:] - boxes[:, :2]
    slack = 1 + far * np.abs(extent)
    inside = (boxes[:, :2] >= -slack) & (boxes[:, 2:] <= sizes + slack)
    return np.all((extent >= 0) & inside, axis=1)
