"""Pool the features of regions: RoI max pooling, which the paper uses, and RoI align.

Max pooling needs the maximum over many rectangles of a feature map. Each maximum takes four
look-ups in sparse tables: any rectangle is covered by four, possibly overlapping, rectangles whose
sides are powers of two. The tables hold the maximum over every rectangle with such sides, and each
entry is computed from two entries of the table for half the side. The cost of a look-up is thus
independent of the rectangle's size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# channels pooled together: more do not fit in the cache, fewer make threads wait for one another
CHANNELS = 256


@dataclass(frozen=True)
class _Lookups:
    """The four table entries that cover each rectangle."""

    entries: Tensor  # int64 [4, N], into tables [rows, columns, B, H, W]
    empty: Tensor  # bool [N]
    rows: int  # number of tables by height: 1, 2, 4 ... cells
    columns: int  # number of tables by width


def range_max(features: Tensor, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Compute the maximum of each channel over each rectangle of a batch; 0 for empty rectangles.

    The gradient goes to one cell that holds the maximum; ties are broken deterministically.
    [B, C, H, W]; int64 [N]; rows [top, bottom) and columns [left, right), int64 [2, N] -> [N, C]
    """
    lookups = _find_lookups(images, rows, columns, features.shape)
    return _RangeMax.apply(features.permute(0, 2, 3, 1), lookups)


def _find_lookups(images: Tensor, rows: Tensor, columns: Tensor, shape: torch.Size) -> _Lookups:
    batch, _, height, width = shape
    empty = (rows[1] <= rows[0]) | (columns[1] <= columns[0])
    row_level, tops = _cover(rows, empty)
    column_level, lefts = _cover(columns, empty)
    row_levels, column_levels = (
        1 + max(level.tolist(), default=0) for level in (row_level, column_level)
    )
    table = (row_level * column_levels + column_level) * batch + images  # [N], one image's table
    entries = (table * height + tops[:, None]) * width + lefts  # [2, 2, N]
    return _Lookups(entries.flatten(0, 1), empty, row_levels, column_levels)


def _cover(spans: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
    """Cover [start, stop) with two spans of length 2**level; return level [N] and starts [2, N]."""
    start, stop = spans[0].masked_fill(empty, 0), spans[1].masked_fill(empty, 1)
    level = torch.frexp((stop - start).double()).exponent.long() - 1  # log2, rounded down
    return level, torch.stack([start, stop - 2**level])


class _RangeMax(torch.autograd.Function):
    """Compute the maximum over rectangles, differentiably: [B, H, W, C] -> [N, C]."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, lookups: _Lookups) -> Tensor:
        count, channels = lookups.entries.shape[1], features.shape[3]
        largest = features.new_empty(count, channels)
        training = ctx.needs_input_grad[0]
        cells = largest.new_empty(largest.shape if training else 0, dtype=torch.int32)
        for block in _channel_blocks(channels):
            values, origins = _tables(features[..., block], lookups, training)
            largest[:, block], origin = _look_up(values, origins, lookups)
            if origin is not None:
                cells[:, block] = origin
        largest[lookups.empty] = 0
        ctx.save_for_backward(cells, lookups.empty)
        ctx.shape = features.shape
        return largest

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None]:
        (gradient,) = grad_outputs  # [N, C]
        cells, empty = ctx.saved_tensors
        total = gradient.new_zeros(ctx.shape).flatten(0, 2)  # [B * H * W, C]
        add = add_in_order if total.is_cuda else add_by_place
        for block in _channel_blocks(gradient.shape[1]):
            values = gradient[:, block].masked_fill(empty[:, None], 0)
            add(total[:, block], cells[:, block].long(), values)
        return total.view(ctx.shape), None


def add_by_place(total: Tensor, places: Tensor, values: Tensor) -> None:
    """Add values[n, c] to total[places[n, c], c] for all n, c: [M, C], int64 [N, C], [N, C].

    On a GPU the order of the additions, and with it the last bits, varies between runs.
    """
    total.scatter_add_(0, places, values)


def add_in_order(total: Tensor, places: Tensor, values: Tensor) -> None:
    """Add like `add_by_place`, but in a fixed order even on a GPU, where the indices are sorted."""
    columns = torch.arange(total.shape[1], device=total.device).expand_as(places)
    total.index_put_((places, columns), values, accumulate=True)


def _channel_blocks(channels: int) -> Iterator[slice]:
    for start in range(0, channels, CHANNELS):
        yield slice(start, min(start + CHANNELS, channels))


def _tables(features: Tensor, lookups: _Lookups, training: bool) -> tuple[Tensor, Tensor | None]:
    """Compute the tables of maxima and, when training, of the cells that hold them (int32).

    Entries for windows that extend past the border are neither written nor read.
    [B, H, W, c] -> [rows, columns, B, H, W, c] each
    """
    values = features.new_empty(lookups.rows, lookups.columns, *features.shape)
    values[0, 0] = features
    origins = torch.empty_like(values, dtype=torch.int32) if training else None
    if origins is not None:
        cells = torch.arange(features[..., 0].numel(), dtype=torch.int32, device=features.device)
        origins[0, 0] = cells.view(features.shape[:3])[..., None]
    for row, column in product(range(lookups.rows), range(lookups.columns)):
        if column:
            half, dim, shift = (row, column - 1), 2, 2 ** (column - 1)
        elif row:
            half, dim, shift = (row - 1, column), 1, 2 ** (row - 1)
        else:
            continue
        length = features.shape[dim] - shift
        first, second = (values[half].narrow(dim, start, length) for start in (0, shift))
        torch.maximum(first, second, out=values[row, column].narrow(dim, 0, length))
        if origins is not None:
            cell, other = (origins[half].narrow(dim, start, length) for start in (0, shift))
            target = origins[row, column].narrow(dim, 0, length)
            torch.add(cell, _step(first, second, cell, other), out=target)
    return values, origins


def _look_up(
    values: Tensor, origins: Tensor | None, lookups: _Lookups
) -> tuple[Tensor, Tensor | None]:
    """Return the maximum of each rectangle's four entries and its cell, [N, c], int32 [N, c]."""
    values = values.flatten(0, -2)
    largest = values.index_select(0, lookups.entries[0])
    cells = None
    if origins is not None:
        origins = origins.flatten(0, -2)
        cells = origins.index_select(0, lookups.entries[0])
    candidate = torch.empty_like(largest)
    for entries in lookups.entries[1:]:
        torch.index_select(values, 0, entries, out=candidate)
        if origins is not None and cells is not None:
            cells += _step(largest, candidate, cells, origins.index_select(0, entries))
        torch.maximum(largest, candidate, out=largest)
    return largest, cells


def _step(value: Tensor, other: Tensor, cell: Tensor, other_cell: Tensor) -> Tensor:
    """Return `other_cell - cell` where the other value is larger, and 0 elsewhere.

    Adding the result to `cell` replaces torch.where in a third of the time on a CPU. All tensors
    have the same shape; the cells are int32.
    """
    larger = torch.gt(other, value, out=torch.empty_like(cell))
    return larger.mul_(other_cell - cell)


def roi_pool(features: Tensor, boxes: Tensor, images: Tensor, size: int, stride: int) -> Tensor:
    """Compute the maximum over size x size bins of each region; 0 for bins outside the map.

    As in the released code, a region's first and last pixels are divided by the stride and rounded
    half up; a region has at least one cell, and bins extend to whole cells, so adjacent bins may
    overlap.
    [B, C, H, W], xyxy [R, 4], int64 [R] -> [R, C, size, size]
    """
    first = (boxes[:, :2] / stride + 0.5).floor().long()  # [R, 2]: x, y
    last = ((boxes[:, 2:] - 1) / stride + 0.5).floor().long()
    columns = _bins(first[:, 0], last[:, 0], size, features.shape[3])
    rows = _bins(first[:, 1], last[:, 1], size, features.shape[2])
    shape = (2, len(boxes), size, size)  # region, row, column
    largest = range_max(
        features,
        images[:, None, None].expand(shape[1:]).flatten(),
        rows[:, :, :, None].expand(shape).flatten(1),
        columns[:, :, None, :].expand(shape).flatten(1),
    )
    return _by_region(largest, size)


def _bins(first: Tensor, last: Tensor, size: int, length: int) -> Tensor:
    """Divide one side into bins [start, stop) clipped to the map; [R], [R] -> [2, R, size].

    Computed in integers: the released code's floats may make a bin one cell too long.
    """
    cells = (last - first + 1).clamp(min=1)[:, None]
    bins = torch.arange(size, device=first.device)
    start = first[:, None] + bins * cells // size
    stop = first[:, None] + ((bins + 1) * cells + size - 1) // size
    return torch.stack([start, stop]).clamp(0, length)


def roi_align(
    features: Tensor, boxes: Tensor, images: Tensor, size: int, stride: int, points: int = 2
) -> Tensor:
    """Average points x points interpolated values in each bin, without rounding; not in the paper.

    Values between cell centres are interpolated bilinearly (Mask R-CNN, with the half-pixel shift
    that puts the centre of cell (0, 0) at the centre of its pixels). Points up to one cell outside
    the map take the border's value; points farther out are 0.
    [B, C, H, W], xyxy [R, 4], int64 [R] -> [R, C, size, size]
    """
    height, width = features.shape[2:]
    columns, across = _points(boxes[:, 0], boxes[:, 2], size, stride, points, width)
    rows, down = _points(boxes[:, 1], boxes[:, 3], size, stride, points, height)
    rows = images[:, None, None] * height + rows  # the images are stacked vertically
    # [R, size, size, 2 * points, 2 * points]: rows and columns of bins, then of their cells
    cells = rows[:, :, None, :, None] * width + columns[:, None, :, None, :]
    weights = down[:, :, None, :, None] * across[:, None, :, None, :]
    features = features.contiguous(memory_format=torch.channels_last)
    table = features.permute(0, 2, 3, 1).flatten(0, 2)  # [B * H * W, C]
    means = F.embedding_bag(
        cells.flatten(3).flatten(0, 2), table, mode="sum",
        per_sample_weights=weights.flatten(3).flatten(0, 2).to(table.dtype),
    )  # fmt: skip
    return _by_region(means, size)


def _points(
    start: Tensor, stop: Tensor, size: int, stride: int, points: int, length: int
) -> tuple[Tensor, Tensor]:
    """Return the cells along one side that enclose each bin's points, and their weights.

    [R], [R] -> int64 [R, size, 2 * points], [R, size, 2 * points]
    """
    steps = torch.arange(size * points, dtype=start.dtype, device=start.device) + 0.5
    steps = steps / (size * points)
    position = (start[:, None] + (stop - start)[:, None] * steps) / stride - 0.5
    counted = (position >= -1) & (position <= length)
    position = position.clamp(0, length - 1)
    low = position.floor()
    fraction = position - low  # the weight of the next cell
    cells = torch.stack([low, (low + 1).clamp(max=length - 1)], 2).long()
    weights = torch.stack([1 - fraction, fraction], 2) * counted[:, :, None] / points
    return cells.view(-1, size, 2 * points), weights.view(-1, size, 2 * points)


def _by_region(bins: Tensor, size: int) -> Tensor:
    """Reshape [R * size * size, C] -> [R, C, size, size], channels last."""
    return bins.view(-1, size, size, bins.shape[1]).permute(0, 3, 1, 2)
