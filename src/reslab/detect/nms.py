"""Of boxes that overlap, the best: non-maximum suppression, and voting on where it lies."""

import numpy as np
import torch
from torch import Tensor

from reslab.detect.geometry import iou

BLOCK = 256  # boxes whose overlaps are looked at together; from 128 to 512 as fast


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
    for start in range(0, len(order), BLOCK):
        if len(stay) >= most:
            break
        block = boxes[start : start + BLOCK]
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


def vote(kept: Tensor, boxes: Tensor, scores: Tensor, threshold: float = 0.5) -> Tensor:
    """Boxes that stayed, moved to the mean of all that say the same (App. B, box voting).

    Of one class: [K, 4], and all boxes before suppression [N, 4] with their scores [N], the
    weights of the mean, -> [K, 4]. Those count whose IoU is `threshold` or more; where none with a
    score does, the box stays where it is.
    """
    weights = (iou(kept, boxes) >= threshold) * scores.clamp(min=0)  # [K, N]
    total = weights.sum(1, keepdim=True)
    return torch.where(total > 0, weights @ boxes / total, kept)
