"""What anchors and proposals should predict: the rules of Faster R-CNN and Fast R-CNN.

All of one image. `ignored` are regions, [I, 4], that say nothing: COCO's crowds, and VOC's
difficult objects where one does not want them to be background, which they are for the released
code. What matches no truth and lies mostly in such a region is no background either.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Generator, Tensor

from reslab.detection.box_ops import NO_STDS, REGION_STDS, Stds, encode_boxes, ioa, iou

BACKGROUND, IGNORED = -1, -2  # in the place of the index of a truth
MOSTLY = 0.7  # of a box that lies in an ignored region; the released code's crowd_thresh


@dataclass(frozen=True)
class AnchorTargets:
    """A sample of S anchors of which the first P are positive."""

    anchors: Tensor  # int64 [S], their indices
    deltas: Tensor  # [P, 4]

    @property
    def objects(self) -> Tensor:
        """1 for the positive, 0 for the rest, [S]."""
        positive = torch.arange(len(self.anchors), device=self.anchors.device) < len(self.deltas)
        return positive.to(self.deltas.dtype)


@dataclass(frozen=True)
class RegionTargets:
    """A sample of S regions of which the first P are foreground."""

    boxes: Tensor  # [S, 4]
    labels: Tensor  # int64 [S]; 0 is background, k + 1 the class k
    deltas: Tensor  # [P, 4]


def assign_anchors(
    anchors: Tensor, inside: Tensor, truths: Tensor, ignored: Tensor,
    high: float = 0.7, low: float = 0.3,
) -> Tensor:  # fmt: skip
    """The truth of each anchor, BACKGROUND or IGNORED: [A, 4], bool [A], [N, 4], [I, 4] -> [A].

    Positive is an anchor with IoU above `high` to some truth, and each that is the closest to one
    (Sec. 3.1.2), equals included; its truth is the one that it overlaps most. Background has less
    than `low` with all. Anchors that are not inside take no part, not even as the closest.
    """
    overlaps = iou(anchors, truths) * inside[:, None]  # [A, N]
    best, truth = argmax_iou(overlaps)
    # a truth that no anchor touches has no closest one; the released code makes all such of it
    closest = (overlaps > 0) & (overlaps == overlaps.amax(0))
    assigned = torch.full_like(truth, IGNORED)
    assigned[(best < low) & ~_in_ignored(anchors, ignored)] = BACKGROUND
    positive = (best > high) | closest.any(1)
    return torch.where(positive, truth, assigned).masked_fill(~inside, IGNORED)


def assign_proposals(
    proposals: Tensor, truths: Tensor, ignored: Tensor,
    foreground: float = 0.5, background: tuple[float, float] = (0.1, 0.5),
) -> Tensor:  # fmt: skip
    """The truth of each proposal, BACKGROUND or IGNORED: [R, 4], [N, 4], [I, 4] -> int64 [R].

    Foreground has an IoU of at least `foreground`; background one in [low, high) (Fast R-CNN,
    Sec. 2.3; the released code's joint training takes a low of 0).
    """
    best, truth = argmax_iou(iou(proposals, truths))
    assigned = torch.full_like(truth, IGNORED)
    low, high = background
    assigned[(low <= best) & (best < high) & ~_in_ignored(proposals, ignored)] = BACKGROUND
    return torch.where(best >= foreground, truth, assigned)


def sample(assigned: Tensor, count: int, positive: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """Indices of positives, at most the fraction `positive` of `count`, and of background for the
    rest of it, both at random and as many as there are; [N] -> int64 [P], int64 [Q]."""
    chosen = random_subset(assigned >= 0, round(count * positive), rng)
    return chosen, random_subset(assigned == BACKGROUND, count - len(chosen), rng)


def anchor_targets(
    anchors: Tensor, inside: Tensor, truths: Tensor, ignored: Tensor, rng: Generator,
    *, high: float = 0.7, low: float = 0.3, count: int = 256, positive: float = 0.5,
) -> AnchorTargets:  # fmt: skip
    """The region proposal network's mini-batch of an image (Sec. 3.1.3)."""
    assigned = assign_anchors(anchors, inside, truths, ignored, high, low)
    objects, rest = sample(assigned, count, positive, rng)
    deltas = encode_boxes(anchors[objects], truths[assigned[objects]], NO_STDS)
    return AnchorTargets(torch.cat([objects, rest]), deltas)


def region_targets(
    proposals: Tensor, truths: Tensor, labels: Tensor, ignored: Tensor, rng: Generator,
    *, foreground: float = 0.5, background: tuple[float, float] = (0.1, 0.5),
    count: int = 128, positive: float = 0.25, stds: Stds = REGION_STDS,
) -> RegionTargets:  # fmt: skip
    """Fast R-CNN's mini-batch of an image; the truths are proposals too, as in the released code.

    [R, 4], [N, 4], int64 [N] from 0, [I, 4]
    """
    proposals = torch.cat([proposals, truths])
    assigned = assign_proposals(proposals, truths, ignored, foreground, background)
    objects, rest = sample(assigned, count, positive, rng)
    own = assigned[objects]
    return RegionTargets(
        boxes=proposals[torch.cat([objects, rest])],
        labels=torch.cat([labels[own] + 1, torch.zeros_like(rest)]),
        deltas=encode_boxes(proposals[objects], truths[own], stds),
    )


def argmax_iou(overlaps: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each row and the first that has it, [N, M] -> [N], int64 [N]."""
    if not overlaps.shape[1]:
        zeros = overlaps.new_zeros(len(overlaps))
        return zeros, zeros.long()
    best = overlaps.max(1)
    return best.values, best.indices


def _in_ignored(boxes: Tensor, ignored: Tensor) -> Tensor:
    """Which lie mostly in one of the regions, [N, 4], [I, 4] -> bool [N]."""
    return (ioa(boxes, ignored) >= MOSTLY).any(1)


def random_subset(candidates: Tensor, count: int, rng: Generator) -> Tensor:
    """At most `count` indices at random; drawn on the CPU, so alike for every device."""
    indices = candidates.nonzero()[:, 0]
    return indices[torch.randperm(len(indices), generator=rng)[:count].to(indices.device)]


GRAIN = 16  # the released code rounds the sides of its shapes to sixteenths of the size


@dataclass(frozen=True)
class Anchors:
    """Boxes of some sizes and shapes around the centre of each cell of a feature map.

    The centre of the first cell lies at stride / 2, as in the released code: its first anchors,
    [-84, -40, 99, 55] and so on, are these with inclusive corners.
    """

    sizes: tuple[float, ...] = (128, 256, 512)  # square roots of the areas, in pixels
    ratios: tuple[float, ...] = (0.5, 1, 2)  # of height to width
    stride: int = 16  # of a cell

    @property
    def per_cell(self) -> int:
        return len(self.sizes) * len(self.ratios)

    def shapes(self) -> Tensor:
        """Those of one cell around (0, 0): for each ratio all sizes, [A, 4]."""
        sides = []
        for ratio in self.ratios:
            across = round(sqrt(GRAIN**2 / ratio))  # of a square of 16: 23x12, 16x16, 11x22
            down = round(across * ratio)
            sides += [(across * size / GRAIN, down * size / GRAIN) for size in self.sizes]
        half = torch.tensor(sides) / 2  # [A, 2]
        return torch.cat([-half, half], 1)

    def over(self, height: int, width: int) -> Tensor:
        """Those of a feature map [.., height, width], row by row, in each cell as in `shapes`.

        -> [height * width * A, 4]
        """
        y, x = ((torch.arange(cells) + 0.5) * self.stride for cells in (height, width))
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)  # [height, width, 2]
        return (centres.repeat(1, 1, 2)[:, :, None] + self.shapes()).reshape(-1, 4)


def inside_image(anchors: Tensor, width: float, height: float) -> Tensor:
    """Which do not cross the border of the image, [N, 4] -> bool [N]."""
    x0, y0, x1, y1 = anchors.unbind(1)
    return (x0 >= 0) & (y0 >= 0) & (x1 <= width) & (y1 <= height)
