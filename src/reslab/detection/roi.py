"""The largest values in many rectangles of a feature map, each from four look-ups.

A rectangle is covered by four whose sides are powers of two and which may overlap. The largest
values in all rectangles of such sides are tables, each from two entries of one with half the side.
So what a rectangle costs does not grow with its size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = 256  # together: more do not fit the cache, with fewer threads wait for each other more


@dataclass(frozen=True)
class Rectangles:
    """Rows [top, bottom) and columns [left, right) of images of a batch, int64 [N] each."""

    images: Tensor
    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor


@dataclass(frozen=True)
class _Lookups:
    """Where the tables hold the four entries of each rectangle."""

    entries: Tensor  # int64 [4, N], into tables [rows, columns, B, H, W]
    empty: Tensor  # bool [N]
    rows: int  # tables by height: of 1, 2, 4 ...
    columns: int  # and by width


def range_max(features: Tensor, rectangles: Rectangles) -> Tensor:
    """The largest value of each channel in each rectangle, [B, C, H, W] -> [N, C]; 0 in empty ones.

    The gradient goes to one place that holds it; which one of equals is always the same.
    """
    looks = _lookups(rectangles, features.shape)
    return _RangeMax.apply(features.permute(0, 2, 3, 1), looks)


def _lookups(rectangles: Rectangles, shape: torch.Size) -> _Lookups:
    batch, _, height, width = shape
    it = rectangles
    empty = (it.bottom <= it.top) | (it.right <= it.left)
    top, left = (start.masked_fill(empty, 0) for start in (it.top, it.left))
    row_level, tops = _cover(top, it.bottom.masked_fill(empty, 1))
    column_level, lefts = _cover(left, it.right.masked_fill(empty, 1))
    rows, columns = (1 + max(level.tolist(), default=0) for level in (row_level, column_level))
    table = (row_level * columns + column_level) * batch + it.images  # [N], of one image
    entries = (table * height + tops[:, None]) * width + lefts  # [2, 2, N]
    return _Lookups(entries.flatten(0, 1), empty, rows, columns)


def _cover(start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
    """Two stretches of 2**level that cover [start, stop): level [N] and their starts [2, N]."""
    level = torch.frexp((stop - start).double()).exponent.long() - 1  # log2, rounded down
    return level, torch.stack([start, stop - 2**level])


class _RangeMax(torch.autograd.Function):
    """[B, H, W, C] -> [N, C]"""

    @staticmethod
    def forward(ctx: Any, features: Tensor, looks: _Lookups) -> Tensor:
        count, channels = looks.entries.shape[1], features.shape[3]
        found = features.new_empty(count, channels)
        learning = ctx.needs_input_grad[0]
        places = found.new_empty(found.shape if learning else 0, dtype=torch.int32)
        for part in _parts(channels):
            values, origins = _tables(features[..., part], looks, learning)
            if learning:
                found[:, part], places[:, part] = _largest_and_place(values, origins, looks)
            else:
                found[:, part] = _largest_entry(values, looks)
        found[looks.empty] = 0
        ctx.save_for_backward(places, looks.empty)
        ctx.shape = features.shape
        return found

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None]:
        (gradient,) = grad_outputs  # [N, C]
        places, empty = ctx.saved_tensors
        total = gradient.new_zeros(ctx.shape).flatten(0, 2)  # [B * H * W, C]
        for part in _parts(gradient.shape[1]):
            own = gradient[:, part].masked_fill(empty[:, None], 0)
            add = add_in_order if total.is_cuda else add_by_place
            add(total[:, part], places[:, part].long(), own)
        return total.view(ctx.shape), None


def add_by_place(total: Tensor, places: Tensor, values: Tensor) -> None:
    """Add values[n, c] to total[places[n, c], c] for all n, c: [M, C], int64 [N, C], [N, C].

    On a GPU the order of the additions, and with it the last bits, changes from run to run.
    """
    total.scatter_add_(0, places, values)


def add_in_order(total: Tensor, places: Tensor, values: Tensor) -> None:
    """Add as `add_by_place` does, in a fixed order on a GPU too, where the places are sorted."""
    columns = torch.arange(total.shape[1], device=total.device).expand_as(places)
    total.index_put_((places, columns), values, accumulate=True)


def _parts(channels: int) -> Iterator[slice]:
    for start in range(0, channels, CHANNELS):
        yield slice(start, min(start + CHANNELS, channels))


def _tables(part: Tensor, looks: _Lookups, learning: bool) -> tuple[Tensor, Tensor]:
    """[B, H, W, c] -> the largest values [rows, columns, B, H, W, c], and where each comes from.

    Entries of windows that reach over the border are never written, nor looked at.
    """
    values = part.new_empty(looks.rows, looks.columns, *part.shape)
    origins = values.new_empty(values.shape if learning else 0, dtype=torch.int32)
    values[0, 0] = part
    if learning:
        cells = torch.arange(part[..., 0].numel(), dtype=torch.int32, device=part.device)
        origins[0, 0] = cells.view(part.shape[:3])[..., None]
    for row in range(looks.rows):
        for column in range(looks.columns):
            if column:
                half, dim, by = (row, column - 1), 2, 2 ** (column - 1)
            elif row:
                half, dim, by = (row - 1, column), 1, 2 ** (row - 1)
            else:
                continue
            length = part.shape[dim] - by
            one, other = (values[half].narrow(dim, start, length) for start in (0, by))
            torch.maximum(one, other, out=values[row, column].narrow(dim, 0, length))
            if learning:
                first, second = (origins[half].narrow(dim, start, length) for start in (0, by))
                target = origins[row, column].narrow(dim, 0, length)
                torch.add(first, _step(one, other, first, second), out=target)
    return values, origins


def _largest_entry(values: Tensor, looks: _Lookups) -> Tensor:
    """[N, c]"""
    flat = values.flatten(0, -2)
    found = flat.index_select(0, looks.entries[0])
    other = torch.empty_like(found)
    for entries in looks.entries[1:]:
        torch.index_select(flat, 0, entries, out=other)
        torch.maximum(found, other, out=found)
    return found


def _largest_and_place(values: Tensor, origins: Tensor, looks: _Lookups) -> tuple[Tensor, Tensor]:
    """[N, c] and int32 [N, c]"""
    flat, flat_origins = values.flatten(0, -2), origins.flatten(0, -2)
    found, place = (table.index_select(0, looks.entries[0]) for table in (flat, flat_origins))
    for entries in looks.entries[1:]:
        other, origin = (table.index_select(0, entries) for table in (flat, flat_origins))
        place += _step(found, other, place, origin)
        torch.maximum(found, other, out=found)
    return found, place


def _step(one: Tensor, other: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """From `first` to `second` where the other is larger, else 0; int32, all of one shape.

    Added, it is what torch.where would choose, in a third of its time on the CPU.
    """
    larger = torch.gt(other, one, out=torch.empty_like(first))
    return larger.mul_(second - first)


def roi_pool(features: Tensor, boxes: Tensor, images: Tensor, size: int, stride: int) -> Tensor:
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
        images[:, None, None].expand(shape).flatten(),
        *(rows[:, :, None].expand(shape).flatten() for rows in (top, bottom)),
        *(columns[:, None, :].expand(shape).flatten() for columns in (left, right)),
    )
    return _by_region(range_max(features, rectangles), size)


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
    features: Tensor, boxes: Tensor, images: Tensor, size: int, stride: int, points: int = 2
) -> Tensor:
    """Not the paper's: the mean of points x points values in each bin, nothing rounded.

    Values between the middles of cells are bilinear (Mask R-CNN, with the half pixel that aligns
    cell (0, 0) to the middle of its pixels). Points up to a cell off the map take its border's
    value; further ones are 0.
    """
    height, width = features.shape[2:]
    columns, across = _points(boxes[:, 0], boxes[:, 2], size, stride, points, width)
    rows, down = _points(boxes[:, 1], boxes[:, 3], size, stride, points, height)
    rows = images[:, None, None] * height + rows  # of all images, one above the other
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
