"""Box arithmetic: overlaps, regression, non-maximum suppression, and boxes in resized images.

Boxes are corners in pixels, xyxy, [..., 4]. x1 and y1 are exclusive, so a width is x1 - x0. The
released code of Faster R-CNN includes the last pixels and computes x1 - x0 + 1; both conventions
give the same areas, overlaps and regression targets for boxes that cover the same pixels.
"""

from fractions import Fraction
from math import log

import numpy as np
import torch
from torch import Tensor

from reslab.data.resize import Size, resized_crop

Stds = tuple[float, float, float, float]

NO_STDS: Stds = (1.0, 1.0, 1.0, 1.0)  # the region proposal network regresses plain deltas
REGION_STDS: Stds = (0.1, 0.1, 0.2, 0.2)  # released Fast R-CNN: targets have about unit variance
LARGEST_GROWTH = log(1000 / 16)  # not in the paper; Detectron's bound: from 16 pixels to 1000
NMS_BLOCK = 256  # boxes compared at once; 128 to 512 are equally fast


def areas(boxes: Tensor) -> Tensor:
    """Compute areas, [..., 4] -> [...]; 0 for a box whose corners are swapped."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)


def intersection_areas(boxes: Tensor, others: Tensor) -> Tensor:
    """Compute pairwise intersection areas, [N, 4], [M, 4] -> [N, M]."""
    start = torch.maximum(boxes[:, None, :2], others[:, :2])  # [N, M, 2]
    stop = torch.minimum(boxes[:, None, 2:], others[:, 2:])  # [N, M, 2]
    return (stop - start).clamp(min=0).prod(2)


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Compute intersection over union, [N, 4], [M, 4] -> [N, M]; 0 for boxes without area."""
    intersection = intersection_areas(boxes, others)
    union = areas(boxes)[:, None] + areas(others) - intersection
    return torch.where(intersection > 0, intersection / union, 0)


def ioa(boxes: Tensor, regions: Tensor) -> Tensor:
    """Compute intersection over the area of each box, 0 to 1; [N, 4], [M, 4] -> [N, M]."""
    intersection = intersection_areas(boxes, regions)
    return torch.where(intersection > 0, intersection / areas(boxes)[:, None], 0)


def clip(boxes: Tensor, width: float, height: float) -> Tensor:
    """Clip boxes to the image, [..., 4] -> [..., 4]."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack(
        [x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)], -1
    )


def large_enough(boxes: Tensor, min_side: float) -> Tensor:
    """Return a mask of the boxes at least `min_side` wide and high, [..., 4] -> bool [...]."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return (x1 - x0 >= min_side) & (y1 - y0 >= min_side)


def encode_boxes(references: Tensor, boxes: Tensor, stds: Stds = NO_STDS) -> Tensor:
    """Compute R-CNN's regression targets: the deltas that turn each reference into its box.

    The deltas are the offset of the centre in units of the reference's sides and the logarithm of
    the ratio of the sides, each divided by its standard deviation. Areas must be positive.
    [..., 4], [..., 4] -> tx ty tw th, [..., 4]
    """
    centre, sides = _centre_and_sides(references)
    box_centre, box_sides = _centre_and_sides(boxes)
    deltas = torch.cat([(box_centre - centre) / sides, (box_sides / sides).log()], -1)
    return deltas / deltas.new_tensor(stds)


def decode_boxes(references: Tensor, deltas: Tensor, stds: Stds = NO_STDS) -> Tensor:
    """Invert `encode_boxes`: apply deltas to references, [..., 4], [..., 4] -> boxes [..., 4].

    Growth is bounded, so that exp does not overflow for an untrained network. The released code
    adds full widths to inclusive corners, which makes its boxes one pixel larger.
    """
    centre, sides = _centre_and_sides(references)
    offset, growth = (deltas * deltas.new_tensor(stds)).split(2, -1)
    centre = centre + offset * sides
    half = growth.clamp(max=LARGEST_GROWTH).exp() * sides / 2
    return torch.cat([centre - half, centre + half], -1)


def _centre_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    start, stop = boxes.split(2, -1)
    return (start + stop) / 2, stop - start


def nms(boxes: Tensor, scores: Tensor, threshold: float, limit: int | None = None) -> Tensor:
    """Apply non-maximum suppression; return the kept indices, best first: [N, 4], [N] -> int64 [K].

    A box is kept unless its IoU with a kept box of higher score is above `threshold`. Ties in score
    go to the lower index. Boxes are compared in blocks, first with the boxes kept so far, then with
    one another; computation stops once `limit` boxes are kept.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    limit = len(order) if limit is None else limit
    kept: list[int] = []  # positions in `order`
    for start in range(0, len(order), NMS_BLOCK):
        if len(kept) >= limit:
            break
        block = boxes[start : start + NMS_BLOCK]
        free = (iou(block, boxes[kept]) <= threshold).all(1).nonzero()[:, 0]
        overlapping = iou(block[free], block[free]) > threshold
        kept += (free[_greedy(overlapping)] + start).tolist()
    return order[kept[:limit]]


def _greedy(overlapping: Tensor) -> list[int]:
    """Keep each box that overlaps none of the boxes kept before it, bool [n, n] -> indices."""
    rows = overlapping.cpu().numpy()
    free = np.ones(len(rows), dtype=bool)
    kept = []
    for index, row in enumerate(rows):
        if free[index]:
            kept.append(index)
            free &= ~row
    return kept


def nms_by_class(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, limit: int | None = None
) -> Tensor:
    """Apply non-maximum suppression within each class; return the `limit` best boxes overall.

    [N, 4], [N], int64 [N] -> int64 [K], best first
    """
    kept = [labels.new_empty(0)]
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        kept.append(members[nms(boxes[members], scores[members], threshold)])
    indices = torch.cat(kept).sort().values  # ties between classes are broken by index
    return indices[scores[indices].argsort(descending=True, stable=True)][:limit]


def box_voting(kept: Tensor, boxes: Tensor, scores: Tensor, threshold: float = 0.5) -> Tensor:
    """Replace each kept box with the score-weighted mean of the boxes that overlap it (App. B).

    All boxes belong to one class: `kept` [K, 4], all boxes before suppression [N, 4], their scores
    [N] -> [K, 4]. Boxes whose IoU is `threshold` or more vote; a box without votes is unchanged.
    """
    weights = (iou(kept, boxes) >= threshold) * scores.clamp(min=0)  # [K, N]
    total = weights.sum(1, keepdim=True)
    return torch.where(total > 0, weights @ boxes / total, kept)


def resize_shortest_edge(width: int, height: int, shorter: int, longest: int) -> Size:
    """Compute the size to which Faster R-CNN resizes an image.

    The shorter side becomes `shorter`, unless the longer side would then exceed `longest`; in that
    case the longer side becomes `longest`. Sizes are rounded to whole pixels, at least one.
    """
    scale = min(Fraction(shorter, min(width, height)), Fraction(longest, max(width, height)))
    return max(round(scale * width), 1), max(round(scale * height), 1)


def resize_image(pixels: np.ndarray, shorter: int, longest: int, flip: bool = False) -> np.ndarray:
    """Resize an image to the size from `resize_shortest_edge`, and mirror it if `flip`.

    uint8 [H, W, 3] -> [h, w, 3], a contiguous copy for torch.from_numpy
    """
    height, width = pixels.shape[:2]
    size = resize_shortest_edge(width, height, shorter, longest)
    return np.array(resized_crop(pixels, (0, 0, width, height), size, flip), order="C")


def boxes_to_network(boxes: Tensor, original: Size, resized: Size, flip: bool = False) -> Tensor:
    """Scale boxes to the resized image, and mirror them if `flip`; [..., 4] -> [..., 4].

    Each side has its own ratio, since both sides were rounded.
    """
    ratios = [new / old for old, new in zip(original, resized, strict=True)]
    boxes = boxes * boxes.new_tensor(ratios * 2)
    return flip_boxes(boxes, resized[0]) if flip else boxes


def flip_boxes(boxes: Tensor, width: float) -> Tensor:
    """Mirror boxes in an image of width `width`, [..., 4] -> [..., 4]."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([width - x1, y0, width - x0, y1], -1)
