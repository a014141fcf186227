"""Features of regions, all of one size: RoI max pooling (Fast R-CNN, Sec. 2.1), or RoIAlign.

Both take a feature map [B, C, H, W] of a stride, boxes in pixels [R, 4] and the picture of the
batch that each lies in, int64 [R]. Both give [R, C, size, size], channels-last in memory, and are
fastest on maps that are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.detect.windows import Rectangles, largest


def roi_pool(features: Tensor, boxes: Tensor, pictures: Tensor, size: int, stride: int) -> Tensor:
    """The largest value in each of size x size bins of each region; 0 in bins off the map.

    As in the released code, first and last pixels are divided by the stride and rounded, halves
    up; a region has one cell at least, and bins reach out to whole cells, so neighbours overlap.
    """
    first = (boxes[:, :2] / stride + 0.5).floor().long()  # [R, 2]: x, y
    last = ((boxes[:, 2:] - 1) / stride + 0.5).floor().long()
    left, right = _bins(first[:, 0], last[:, 0], size, features.shape[3])
    top, bottom = _bins(first[:, 1], last[:, 1], size, features.shape[2])
    shape = (len(boxes), size, size)  # region, row, column
    rectangles = Rectangles(
        pictures[:, None, None].expand(shape).flatten(),
        *(rows[:, :, None].expand(shape).flatten() for rows in (top, bottom)),
        *(columns[:, None, :].expand(shape).flatten() for columns in (left, right)),
    )
    return _by_region(largest(features, rectangles), size)


def _bins(first: Tensor, last: Tensor, size: int, length: int) -> tuple[Tensor, Tensor]:
    """Cells [start, stop) of the bins along one side, cut at the map; [R], [R] -> [R, size] each.

    In whole numbers: the released code's floats may let a bin reach one cell too far.
    """
    cells = (last - first + 1).clamp(min=1)[:, None]
    bins = torch.arange(size, device=first.device)
    start = first[:, None] + bins * cells // size
    stop = first[:, None] + ((bins + 1) * cells + size - 1) // size
    return start.clamp(0, length), stop.clamp(0, length)


def roi_align(
    features: Tensor, boxes: Tensor, pictures: Tensor, size: int, stride: int, points: int = 2
) -> Tensor:
    """Not the paper's: the mean of points x points values in each bin, nothing rounded.

    Values between the middles of cells are bilinear (Mask R-CNN, with the half pixel that aligns
    cell (0, 0) to the middle of its pixels). Points up to a cell off the map take its border's
    value; further ones are 0.
    """
    height, width = features.shape[2:]
    columns, across = _points(boxes[:, 0], boxes[:, 2], size, stride, points, width)
    rows, down = _points(boxes[:, 1], boxes[:, 3], size, stride, points, height)
    rows = pictures[:, None, None] * height + rows  # of all pictures, one above the other
    # [R, size, size, 2 * points, 2 * points]: rows and columns of bins, then of their cells
    cells = rows[:, :, None, :, None] * width + columns[:, None, :, None, :]
    weights = down[:, :, None, :, None] * across[:, None, :, None, :]
    features = features.contiguous(memory_format=torch.channels_last)
    table = features.permute(0, 2, 3, 1).flatten(0, 2)  # [B * H * W, C]
    found = F.embedding_bag(
        cells.flatten(3).flatten(0, 2), table, mode="sum",
        per_sample_weights=weights.flatten(3).flatten(0, 2).to(table.dtype),
    )  # fmt: skip
    return _by_region(found, size)


def _points(
    start: Tensor, stop: Tensor, size: int, stride: int, points: int, length: int
) -> tuple[Tensor, Tensor]:
    """Cells along one side that the points of each bin lie between, and what each adds to the mean.

    [R], [R] -> int64 [R, size, 2 * points], [R, size, 2 * points]
    """
    steps = torch.arange(size * points, dtype=start.dtype, device=start.device) + 0.5
    steps = steps / (size * points)
    at = (start[:, None] + (stop - start)[:, None] * steps) / stride - 0.5
    counted = (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    low = at.floor()
    share = at - low  # of the cell behind
    cells = torch.stack([low, (low + 1).clamp(max=length - 1)], 2).long()
    weights = torch.stack([1 - share, share], 2) * counted[:, :, None] / points
    return cells.view(-1, size, 2 * points), weights.view(-1, size, 2 * points)


def _by_region(bins: Tensor, size: int) -> Tensor:
    """[R * size * size, C] -> [R, C, size, size], channels-last"""
    return bins.view(-1, size, size, bins.shape[1]).permute(0, 3, 1, 2)
