"""Arithmetic of boxes: corners in pixels, x0 y0 x1 y1, of which the last two are exclusive.

So a width is x1 - x0. The released code of Faster R-CNN counts its last pixels in (x1 - x0 + 1);
for the same boxes, areas, overlaps and what regression should say are the same numbers.
"""

from fractions import Fraction
from math import log

import numpy as np
import torch
from torch import Tensor

from reslab.data.resize import Size, cut

Stds = tuple[float, float, float, float]

NO_STDS: Stds = (1.0, 1.0, 1.0, 1.0)  # the region proposal network regresses plain deltas
REGION_STDS: Stds = (0.1, 0.1, 0.2, 0.2)  # of the released code's Fast R-CNN: targets near 1
LARGEST_GROWTH = log(1000 / 16)  # not in the paper; the authors' later Detectron: 1000 pixels of 16


def areas(boxes: Tensor) -> Tensor:
    """[..., 4] -> [...]; a box whose corners are swapped has none."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)


def intersection_areas(ones: Tensor, others: Tensor) -> Tensor:
    """The areas that each box shares with each other box, [N, 4], [M, 4] -> [N, M]."""
    start = torch.maximum(ones[:, None, :2], others[:, :2])  # [N, M, 2]
    stop = torch.minimum(ones[:, None, 2:], others[:, 2:])  # [N, M, 2]
    return (stop - start).clamp(min=0).prod(2)


def iou(ones: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of each pair, [N, 4], [M, 4] -> [N, M]; 0 for boxes without area."""
    shared = intersection_areas(ones, others)
    union = areas(ones)[:, None] + areas(others) - shared
    return torch.where(shared > 0, shared / union, 0)


def ioa(boxes: Tensor, regions: Tensor) -> Tensor:
    """Which part of each box lies in each region, from 0 to 1; [N, 4], [M, 4] -> [N, M]."""
    shared = intersection_areas(boxes, regions)
    return torch.where(shared > 0, shared / areas(boxes)[:, None], 0)


def clip(boxes: Tensor, width: float, height: float) -> Tensor:
    """The boxes without what lies outside the image, [..., 4] -> [..., 4]."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack(
        [x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)], -1
    )


def large_enough(boxes: Tensor, side: float) -> Tensor:
    """Which boxes are at least so wide and so high, [..., 4] -> bool [...]."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return (x1 - x0 >= side) & (y1 - y0 >= side)


def encode_boxes(references: Tensor, boxes: Tensor, stds: Stds = NO_STDS) -> Tensor:
    """What regression should say of a reference so that it becomes the box (R-CNN's t).

    The way between the centres in sides of the reference, and the logarithms of the growth; each
    divided by its deviation. Both need an area. [..., 4], [..., 4] -> deltas tx ty tw th [..., 4]
    """
    centre, sides = _centre(references)
    to_centre, to_sides = _centre(boxes)
    deltas = torch.cat([(to_centre - centre) / sides, (to_sides / sides).log()], -1)
    return deltas / deltas.new_tensor(stds)


def decode_boxes(references: Tensor, deltas: Tensor, stds: Stds = NO_STDS) -> Tensor:
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


NMS_BLOCK = 256  # boxes whose overlaps are looked at together; from 128 to 512 as fast


def nms(boxes: Tensor, scores: Tensor, threshold: float, most: int | None = None) -> Tensor:
    """Which boxes stay, best first: [N, 4], [N] -> int64 [K], K at most `most`.

    Greedy: a box stays if it overlaps (IoU) none that stays with a higher score by more than
    `threshold`. Of equal scores the lower index comes first. Boxes are taken by blocks, against
    those that stay and then among themselves, and nothing is computed after the last one wanted.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    most = len(order) if most is None else most
    stay: list[int] = []  # positions in the order
    for start in range(0, len(order), NMS_BLOCK):
        if len(stay) >= most:
            break
        block = boxes[start : start + NMS_BLOCK]
        free = (iou(block, boxes[stay]) <= threshold).all(1).nonzero()[:, 0]
        among = iou(block[free], block[free]) > threshold
        stay += (free[_greedy(among)] + start).tolist()
    return order[stay[:most]]


def _greedy(overlapping: Tensor) -> list[int]:
    """Those that no earlier one suppresses which stays itself; bool [n, n] -> indices."""
    rows = overlapping.cpu().numpy()
    free = np.ones(len(rows), dtype=bool)
    stay = []
    for index, row in enumerate(rows):
        if free[index]:
            stay.append(index)
            free &= ~row
    return stay


def nms_by_class(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, most: int | None = None
) -> Tensor:
    """The same within each class, best of all first: [N, 4], [N], int64 [N] -> int64 [K]."""
    stay = [labels.new_empty(0)]
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        stay.append(members[nms(boxes[members], scores[members], threshold)])
    kept = torch.cat(stay).sort().values  # equal scores of different classes: by index
    return kept[scores[kept].argsort(descending=True, stable=True)][:most]


def box_voting(kept: Tensor, boxes: Tensor, scores: Tensor, threshold: float = 0.5) -> Tensor:
    """Boxes that stayed, moved to the mean of all that say the same (App. B, box voting).

    Of one class: [K, 4], and all boxes before suppression [N, 4] with their scores [N], the
    weights of the mean, -> [K, 4]. Those count whose IoU is `threshold` or more; where none with a
    score does, the box stays where it is.
    """
    weights = (iou(kept, boxes) >= threshold) * scores.clamp(min=0)  # [K, N]
    total = weights.sum(1, keepdim=True)
    return torch.where(total > 0, weights @ boxes / total, kept)


def resize_shortest_edge(width: int, height: int, shorter: int, longest: int) -> Size:
    """Faster R-CNN's rule: the shorter side becomes `shorter`, unless the longer one would exceed
    `longest`; then that becomes `longest`. Rounded to whole pixels, of which one is left at least.
    """
    scale = min(Fraction(shorter, min(width, height)), Fraction(longest, max(width, height)))
    return max(round(scale * width), 1), max(round(scale * height), 1)


def resize_image(pixels: np.ndarray, shorter: int, longest: int, flip: bool = False) -> np.ndarray:
    """The image at the size of the rule, mirrored or not; uint8 [H, W, 3] -> [h, w, 3], a copy
    that torch can take over."""
    height, width = pixels.shape[:2]
    size = resize_shortest_edge(width, height, shorter, longest)
    return np.array(cut(pixels, (0, 0, width, height), size, flip), order="C")


def boxes_to_network(boxes: Tensor, came: Size, shown: Size, flip: bool = False) -> Tensor:
    """Boxes of an image in pixels of how it is shown, [..., 4] -> [..., 4].

    Each side has a ratio of its own, for both were rounded.
    """
    boxes = boxes * _ratios(boxes, came, shown)
    return flip_boxes(boxes, shown[0]) if flip else boxes


def boxes_to_image(boxes: Tensor, came: Size, shown: Size, flip: bool = False) -> Tensor:
    """The inverse: what was found in an image as it was shown, in pixels of it as it came."""
    boxes = flip_boxes(boxes, shown[0]) if flip else boxes
    return boxes * _ratios(boxes, shown, came)


def flip_boxes(boxes: Tensor, width: float) -> Tensor:
    """Boxes of a mirrored image that is so wide, [..., 4] -> [..., 4]; its own inverse."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([width - x1, y0, width - x0, y1], -1)


def _ratios(boxes: Tensor, before: Size, after: Size) -> Tensor:
    """Of x, y, x and y, [4]."""
    return boxes.new_tensor([new / old for old, new in zip(before, after, strict=True)] * 2)
