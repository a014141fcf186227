"""Pooling of regions in an ONNX graph, as in `reslab.detection.roi`.

RoI max pooling is not ONNX's MaxRoiPool, whose bins are computed in floats and may be one cell too
long. As in reslab, the maximum over a bin is that of four look-ups in tables of maxima over
rectangles whose sides are powers of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from reslab.deploy.boxes import add_corners
from reslab.deploy.steps import INT64, Steps
from reslab.detection.config import DetectorConfig

POINTS = 2  # of RoI align in each bin and direction, as in `roi_align`


def add_pooling(
    step: Steps, features: str, channels: int, boxes: str, config: DetectorConfig, longest: int
) -> str:
    """Add the pooling of regions of one image: [1, C, h, w], [R, 4] -> [R, C, pooled, pooled].

    `longest` is the longest side of the image in pixels.
    """
    if config.pooling == "align":
        return add_align(step, features, boxes, config)
    return add_max_pooling(step, features, channels, boxes, config, longest)


def add_align(step: Steps, features: str, boxes: str, config: DetectorConfig) -> str:
    """Add RoI align, whose definition in ONNX is that of `roi_align`."""
    images = step("Expand", np.array(0), step.count(boxes))
    attributes = {
        "coordinate_transformation_mode": "half_pixel",
        "mode": "avg",
        "output_height": config.pooled,
        "output_width": config.pooled,
        "sampling_ratio": POINTS,
        "spatial_scale": 1 / config.stride,
    }
    return step("RoiAlign", features, boxes, images, attributes=attributes)


def add_max_pooling(
    step: Steps, features: str, channels: int, boxes: str, config: DetectorConfig, longest: int
) -> str:
    """Add `roi_pool`, with the same bins."""
    levels = count_levels(config, longest)
    sides = step("Shape", features, attributes={"start": 2})
    height, width = step.at(sides, 0), step.at(sides, 1)
    first, last = add_cells(step, boxes, config.stride)
    rows, columns = (
        add_spans(step, first, last, axis, length, config.pooled, levels)
        for axis, length in ((1, height), (0, width))
    )
    tables = add_tables(step, features, channels, levels)
    # the last row of the tables is zero, for bins outside the map
    outside = step("Sub", step.count(tables), np.array(1))
    empty = step("Or", rows.empty, columns.empty)
    table = step("Add", step("Mul", rows.level, np.array(levels)), columns.level)
    largest = ""
    for top, left in product(rows.starts, columns.starts):
        cell = step("Add", step("Mul", top, width), left)
        entry = step("Add", step("Mul", table, step("Mul", height, width)), cell)
        values = step("Gather", tables, step("Where", empty, outside, entry))
        largest = step("Max", largest, values) if largest else values
    return step("Transpose", largest, attributes={"perm": (0, 3, 1, 2)})


def count_levels(config: DetectorConfig, longest: int) -> int:
    """Return how many powers of two, from 1 on, can be the side of a look-up in cells."""
    cells = longest // config.stride + 2  # of a region: rounding adds up to one to each side
    bin_cells = cells // config.pooled + 2  # a bin extends to whole cells
    return bin_cells.bit_length()


def add_cells(step: Steps, boxes: str, stride: int) -> tuple[str, str]:
    """Add the first and the last cell of regions, x and y: [R, 4] -> int64 [R, 2] each."""
    corners = step("Sub", boxes, np.array([0, 0, 1, 1], np.float32))
    cells = step("Div", corners, np.float32(stride))
    rounded = step.cast(step("Floor", step("Add", cells, np.float32(0.5))), INT64)
    return add_corners(step, rounded)


@dataclass(frozen=True)
class Spans:
    """The names of the look-ups that cover the bins of all regions along one side.

    All have the shape [R, pooled, 1] for rows and [R, 1, pooled] for columns.
    """

    level: str  # log2 of the length of the look-ups, int64
    starts: tuple[str, str]  # the first cells of the two look-ups, int64
    empty: str  # whether a bin lies outside the map, bool


def add_spans(
    step: Steps, first: str, last: str, axis: int, length: str, pooled: int, levels: int
) -> Spans:
    """Add the bins along one side, x (axis 0) or y (axis 1), and the look-ups that cover them.

    `length` is the side of the map in cells.
    """
    other = np.array([1 if axis == 0 else 2])
    first, last = (
        step("Unsqueeze", step.at(cells, axis), np.array([1])) for cells in (first, last)
    )
    cells = step("Max", step("Add", step("Sub", last, first), np.array(1)), np.array(1))
    bins = np.arange(pooled)
    begun = step("Div", step("Mul", cells, bins), np.array(pooled))
    ended = step("Mul", cells, bins + 1)
    ended = step("Div", step("Add", ended, np.array(pooled - 1)), np.array(pooled))
    start, stop = (
        step("Min", step("Add", first, edge), length) for edge in (begun, ended)
    )  # [R, pooled]
    cells = step("Unsqueeze", step("Sub", stop, start), np.array([2]))
    powers = 2 ** np.arange(levels)
    fits = step.cast(step("GreaterOrEqual", cells, powers[1:]), INT64)  # [R, pooled, levels - 1]
    level = step("ReduceSum", fits, np.array([2]), attributes={"keepdims": 0})
    second = step("Sub", stop, step("Gather", powers, level))
    empty = step("LessOrEqual", stop, start)
    level, start, second, empty = (
        step("Unsqueeze", part, other) for part in (level, start, second, empty)
    )
    return Spans(level, (start, second), empty)


def add_tables(step: Steps, features: str, channels: int, levels: int) -> str:
    """Add the maxima over all rectangles whose sides are powers of two, and a row of zeros.

    [1, C, h, w] -> [levels * levels * h * w + 1, C]; rectangles that extend past the map are not
    looked up
    """
    tables = []
    for down, across in product(2 ** np.arange(levels), repeat=2):
        window = {"kernel_shape": (down, across), "pads": (0, 0, down - 1, across - 1)}
        is_cell = (down, across) == (1, 1)
        tables.append(features if is_cell else step("MaxPool", features, attributes=window))
    maxima = step("Concat", *tables, attributes={"axis": 0})
    maxima = step("Transpose", maxima, attributes={"perm": (0, 2, 3, 1)})
    rows = step("Reshape", maxima, np.array([-1, channels]))
    zeros = np.zeros((1, channels), np.float32)
    return step("Concat", rows, zeros, attributes={"axis": 0})
