"""Anchors, and the training targets of anchors and proposals as in Faster and Fast R-CNN.

Every function handles one image. `truths` [N, 4] are the boxes of its objects; `ignored` [I, 4] are
regions that are neither objects nor background, such as COCO's crowds. A box that matches no truth
but lies mostly in an ignored region is ignored. Boxes are xyxy.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Generator, Tensor

from reslab.detection.box_ops import REGION_STDS, encode_boxes, ioa, iou

BACKGROUND, IGNORED = -1, -2  # instead of a truth's index
MOSTLY = 0.7  # fraction of a box inside an ignored region; the released code's crowd_thresh
GRAIN = 16  # the released code rounds the sides of anchors to sixteenths of the size


@dataclass(frozen=True)
class Anchors:
    """Boxes of several sizes and aspect ratios around the centre of each feature-map cell.

    The centre of the first cell is at stride / 2, as in the released code, whose first anchors,
    [-84, -40, 99, 55] and so on, are the same boxes with inclusive corners.
    """

    sizes: tuple[float, ...] = (128, 256, 512)  # square roots of the areas, in pixels
    ratios: tuple[float, ...] = (0.5, 1, 2)  # height to width
    stride: int = 16  # pixels per cell

    @property
    def per_cell(self) -> int:
        return len(self.sizes) * len(self.ratios)

    def shapes(self) -> Tensor:
        """Return one cell's anchors centred on (0, 0), all sizes for each ratio, [A, 4]."""
        sides = []
        for ratio in self.ratios:
            across = round(sqrt(GRAIN**2 / ratio))  # for size 16: 23x12, 16x16, 11x22
            down = round(across * ratio)
            sides += [(across * size / GRAIN, down * size / GRAIN) for size in self.sizes]
        half = torch.tensor(sides) / 2  # [A, 2]
        return torch.cat([-half, half], 1)

    def grid(self, height: int, width: int) -> Tensor:
        """Return all anchors of a feature map, [height * width * A, 4].

        They are ordered by row, then by cell in the row, then as in `shapes`.
        """
        y, x = ((torch.arange(cells) + 0.5) * self.stride for cells in (height, width))
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)  # [height, width, 2]
        return (centres.repeat(1, 1, 2)[:, :, None] + self.shapes()).reshape(-1, 4)


def inside_image(anchors: Tensor, width: float, height: float) -> Tensor:
    """Return a mask of the anchors that do not cross the image border, [N, 4] -> bool [N]."""
    x0, y0, x1, y1 = anchors.unbind(1)
    return (x0 >= 0) & (y0 >= 0) & (x1 <= width) & (y1 <= height)


@dataclass(frozen=True)
class AnchorTargets:
    """A sample of S anchors, the first P of them positive."""

    anchors: Tensor  # int64 [S], their indices
    deltas: Tensor  # [P, 4]

    @property
    def objects(self) -> Tensor:
        """The objectness targets: 1 for positive anchors, 0 for the rest, [S]."""
        positive = torch.arange(len(self.anchors), device=self.anchors.device) < len(self.deltas)
        return positive.to(self.deltas.dtype)


@dataclass(frozen=True)
class RegionTargets:
    """A sample of S regions, the first P of them foreground."""

    boxes: Tensor  # [S, 4]
    labels: Tensor  # int64 [S]; 0 is background, k + 1 is class k
    deltas: Tensor  # [P, 4]


def assign_anchors(
    anchors: Tensor, inside: Tensor, truths: Tensor, ignored: Tensor,
    high: float = 0.7, low: float = 0.3,
) -> Tensor:  # fmt: skip
    """Assign a truth, BACKGROUND or IGNORED to each anchor (Faster R-CNN, Sec. 3.1.2).

    An anchor is positive if its IoU with a truth is above `high`, or if its IoU with some truth is
    the highest of all anchors, ties included; it is assigned the truth that it overlaps most. An
    anchor is background if its IoU with every truth is below `low`. Anchors that are not `inside`
    are always ignored.
    [A, 4], bool [A], [N, 4], [I, 4] -> int64 [A]
    """
    overlaps = iou(anchors, truths) * inside[:, None]  # [A, N]
    best, truth = argmax_iou(overlaps)
    # a truth that overlaps no anchor has no closest one; in the released code it has all of them
    closest = (overlaps > 0) & (overlaps == overlaps.amax(0))
    assigned = torch.full_like(truth, IGNORED)
    assigned[(best < low) & ~_in_ignored(anchors, ignored)] = BACKGROUND
    positive = (best > high) | closest.any(1)
    return torch.where(positive, truth, assigned).masked_fill(~inside, IGNORED)


def assign_proposals(
    proposals: Tensor, truths: Tensor, ignored: Tensor,
    foreground: float = 0.5, background: tuple[float, float] = (0.1, 0.5),
) -> Tensor:  # fmt: skip
    """Assign a truth, BACKGROUND or IGNORED to each proposal (Fast R-CNN, Sec. 2.3).

    A proposal is foreground if its highest IoU with a truth is at least `foreground`, background if
    that IoU is in [low, high), the range `background`, and otherwise ignored. The released joint
    training uses a low of 0.
    [R, 4], [N, 4], [I, 4] -> int64 [R]
    """
    best, truth = argmax_iou(iou(proposals, truths))
    assigned = torch.full_like(truth, IGNORED)
    low, high = background
    assigned[(low <= best) & (best < high) & ~_in_ignored(proposals, ignored)] = BACKGROUND
    return torch.where(best >= foreground, truth, assigned)


def argmax_iou(overlaps: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's maximum and its first index, [N, M] -> [N], int64 [N]; 0 if M is 0."""
    if not overlaps.shape[1]:
        zeros = overlaps.new_zeros(len(overlaps))
        return zeros, zeros.long()
    best = overlaps.max(1)
    return best.values, best.indices


def _in_ignored(boxes: Tensor, ignored: Tensor) -> Tensor:
    """Return a mask of the boxes mostly in an ignored region, [N, 4], [I, 4] -> bool [N]."""
    return (ioa(boxes, ignored) >= MOSTLY).any(1)


def sample(assigned: Tensor, count: int, positive: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """Sample positives, at most the fraction `positive` of `count`, and fill up with background.

    There may be fewer than `count` in total. int64 [N] -> indices of both, int64 [P] and [Q]
    """
    positives = random_subset(assigned >= 0, round(count * positive), rng)
    return positives, random_subset(assigned == BACKGROUND, count - len(positives), rng)


def random_subset(candidates: Tensor, count: int, rng: Generator) -> Tensor:
    """Sample at most `count` indices, on the CPU for reproducibility, bool [N] -> int64 [K]."""
    indices = candidates.nonzero()[:, 0]
    return indices[torch.randperm(len(indices), generator=rng)[:count].to(indices.device)]


def anchor_targets(
    anchors: Tensor, inside: Tensor, truths: Tensor, ignored: Tensor, rng: Generator,
    *, count: int = 256, positive: float = 0.5,
) -> AnchorTargets:  # fmt: skip
    """Sample the region proposal network's mini-batch from an image (Faster R-CNN, Sec. 3.1.3).

    anchors [A, 4], inside bool [A], truths [N, 4], ignored [I, 4]
    """
    assigned = assign_anchors(anchors, inside, truths, ignored)
    positives, background = sample(assigned, count, positive, rng)
    deltas = encode_boxes(anchors[positives], truths[assigned[positives]])
    return AnchorTargets(torch.cat([positives, background]), deltas)


def region_targets(
    proposals: Tensor, truths: Tensor, labels: Tensor, ignored: Tensor, rng: Generator,
    *, background: tuple[float, float] = (0.1, 0.5), count: int = 128, positive: float = 0.25,
) -> RegionTargets:  # fmt: skip
    """Sample Fast R-CNN's mini-batch from an image.

    The truths are added to the proposals, as in the released code. `labels` count from 0.
    proposals [R, 4], truths [N, 4], labels int64 [N], ignored [I, 4]
    """
    proposals = torch.cat([proposals, truths])
    assigned = assign_proposals(proposals, truths, ignored, background=background)
    positives, background_rows = sample(assigned, count, positive, rng)
    matches = assigned[positives]
    return RegionTargets(
        boxes=proposals[torch.cat([positives, background_rows])],
        labels=torch.cat([labels[matches] + 1, torch.zeros_like(background_rows)]),
        deltas=encode_boxes(proposals[positives], truths[matches], REGION_STDS),
    )
