"""Arithmetic of boxes: corners in pixels, x0 y0 x1 y1, of which the last two are exclusive.

So a width is x1 - x0. The released code of Faster R-CNN counts its last pixels in (x1 - x0 + 1);
for the same boxes, areas, overlaps and what regression should say are the same numbers.
"""

from math import log

import torch
from torch import Tensor

Stds = tuple[float, float, float, float]

NO_STDS: Stds = (1.0, 1.0, 1.0, 1.0)  # the region proposal network regresses plain deltas
REGION_STDS: Stds = (0.1, 0.1, 0.2, 0.2)  # of the released code's Fast R-CNN: targets near 1
LARGEST_GROWTH = log(1000 / 16)  # not in the paper; the authors' later Detectron: 1000 pixels of 16


def areas(boxes: Tensor) -> Tensor:
    """[..., 4] -> [...]; a box whose corners are swapped has none."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)


def intersections(ones: Tensor, others: Tensor) -> Tensor:
    """The areas that each box shares with each other box, [N, 4], [M, 4] -> [N, M]."""
    start = torch.maximum(ones[:, None, :2], others[:, :2])  # [N, M, 2]
    stop = torch.minimum(ones[:, None, 2:], others[:, 2:])  # [N, M, 2]
    return (stop - start).clamp(min=0).prod(2)


def iou(ones: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of each pair, [N, 4], [M, 4] -> [N, M]; 0 for boxes without area."""
    shared = intersections(ones, others)
    union = areas(ones)[:, None] + areas(others) - shared
    return torch.where(shared > 0, shared / union, 0)


def covered(boxes: Tensor, regions: Tensor) -> Tensor:
    """Which part of each box lies in each region, from 0 to 1; [N, 4], [M, 4] -> [N, M]."""
    shared = intersections(boxes, regions)
    return torch.where(shared > 0, shared / areas(boxes)[:, None], 0)


def clip(boxes: Tensor, width: float, height: float) -> Tensor:
    """The boxes without what lies outside the picture, [..., 4] -> [..., 4]."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack(
        [x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)], -1
    )


def large_enough(boxes: Tensor, side: float) -> Tensor:
    """Which boxes are at least so wide and so high, [..., 4] -> bool [...]."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return (x1 - x0 >= side) & (y1 - y0 >= side)


def encode(references: Tensor, boxes: Tensor, stds: Stds = NO_STDS) -> Tensor:
    """What regression should say of a reference so that it becomes the box (R-CNN's t).

    The way between the centres in sides of the reference, and the logarithms of the growth; each
    divided by its deviation. Both need an area. [..., 4], [..., 4] -> deltas tx ty tw th [..., 4]
    """
    centre, sides = _centre(references)
    to_centre, to_sides = _centre(boxes)
    deltas = torch.cat([(to_centre - centre) / sides, (to_sides / sides).log()], -1)
    return deltas / deltas.new_tensor(stds)


def decode(references: Tensor, deltas: Tensor, stds: Stds = NO_STDS) -> Tensor:
    """The inverse: references moved and stretched; [..., 4], deltas [..., 4] -> boxes [..., 4].

    Growth is bounded, lest exp overflow while a net knows nothing. The released code's decoding
    lets boxes grow by one pixel, for it adds whole widths to inclusive corners; this one does not.
    """
    centre, sides = _centre(references)
    move, growth = (deltas * deltas.new_tensor(stds)).split(2, -1)
    centre = centre + move * sides
    half = growth.clamp(max=LARGEST_GROWTH).exp() * sides / 2
    return torch.cat([centre - half, centre + half], -1)


def _centre(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """[..., 4] -> the middle and the sides, [..., 2] each."""
    start, stop = boxes.split(2, -1)
    return (start + stop) / 2, stop - start
