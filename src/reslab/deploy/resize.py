"""Resizing and cropping inside an ONNX graph, as `reslab.data.resize` does with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import PIL

from reslab.deploy.graph import Graph

if TYPE_CHECKING:
    from onnx import GraphProto

# from version 13 on, Pillow shrinks images more than twice as high as wide vertically first; the
# rounding between the two passes then falls on other values
PILLOW_MAY_BEGIN_VERTICALLY = int(PIL.__version__.partition(".")[0]) >= 13


def add_centre_crop(graph: Graph, x: str, side: int, size: int) -> str:
    """Add bilinear resizing to a shorter side and cropping the centre.

    Pixels differ from Pillow's by at most one level, and few of them. uint8 [B, 3, H, W] ->
    [B, 3, size, size]
    """
    sides = add_sides(graph, x)
    scaled = add_scaled_sides(graph, sides, side)
    # Resize's attribute `axes` would do without these, but ONNX Runtime 1.32 then fails
    others = graph.add("Shape", [x], "prepare.others", {"end": 2})
    shape = graph.add("Concat", [others, scaled], "prepare.shape", {"axis": 0})
    if PILLOW_MAY_BEGIN_VERTICALLY:
        width = graph.add("Shape", [x], "prepare.width", {"start": 3})
        height = graph.add("Slice", [shape, *map(graph.numbers, (0, 3))], "prepare.height")
        rows = graph.add("Concat", [height, width], "prepare.rows", {"axis": 0})
        passes = {"then_branch": [rows, shape], "else_branch": [shape]}
        branches = {name: resize_graph(x, shapes) for name, shapes in passes.items()}
        condition = add_vertical_first(graph, sides, scaled)
        x = graph.add("If", [condition], "prepare.resize", branches)
    else:
        x = add_resize(graph, x, shape, "prepare.resize")
    starts = add_centre_offsets(graph, scaled, size)
    ends = graph.add("Add", [starts, graph.number(size)], "prepare.ends")
    return graph.add("Slice", [x, starts, ends, graph.numbers(2, 3)], "prepare.crop")


def resize_graph(x: str, shapes: Sequence[str]) -> GraphProto:
    """Return a branch of `If` that resizes images `x` to each of `shapes` in turn."""
    prefix = "prepare.resize.twice" if len(shapes) > 1 else "prepare.resize.once"
    graph = Graph(f"{prefix}.")
    for index, shape in enumerate(shapes):
        x = add_resize(graph, x, shape, f"{prefix}.{index}")
    return graph.branch(x, np.uint8, prefix)


def add_resize(graph: Graph, x: str, shape: str, name: str) -> str:
    """Add bilinear resizing of images to a shape [B, 3, h, w], horizontally first."""
    attributes = {
        "mode": "linear",
        "antialias": 1,
        "coordinate_transformation_mode": "half_pixel",
        "exclude_outside": 1,  # weights of pixels outside the image count for nothing
        "keep_aspect_ratio_policy": "stretch",  # the longer side was rounded down already
    }
    return graph.add("Resize", [x, "", "", shape], name, attributes)


def add_vertical_first(graph: Graph, sides: str, scaled: str) -> str:
    """Add whether Pillow shrinks the images vertically first; bool, a scalar.

    `sides` and `scaled` are heights and widths before and after resizing, int64 [2].
    """
    height, width, shrunk = (
        graph.add("Gather", [both, graph.number(index)], f"prepare.vertical.{name}")
        for both, index, name in ((sides, 0, "height"), (sides, 1, "width"), (scaled, 0, "shrunk"))
    )
    twice = graph.add("Mul", [width, graph.number(2)], "prepare.vertical.twice")
    is_tall = graph.add("Greater", [height, twice], "prepare.vertical.tall")
    shrinks = graph.add("Greater", [height, shrunk], "prepare.vertical.shrinks")
    return graph.add("And", [is_tall, shrinks], "prepare.vertical")


def add_sides(graph: Graph, x: str) -> str:
    """Add the height and the width of images [B, 3, H, W]; int64 [2]."""
    return graph.add("Shape", [x], "prepare.sides", {"start": 2})


def add_scaled_sides(graph: Graph, sides: str, side: int) -> str:
    """Add `shorter_side`: both sides after resizing, the longer one rounded down; int64 [2]."""
    shorter = graph.add("ReduceMin", [sides], "prepare.shorter", {"keepdims": 1})
    scaled = graph.add("Mul", [sides, graph.number(side)], "prepare.multiple")
    return graph.add("Div", [scaled, shorter], "prepare.scaled")


def add_centre_offsets(graph: Graph, sides: str, size: int) -> str:
    """Add `centre_offset` of both sides, where ONNX too rounds halves to even; int64 [2]."""
    from onnx import TensorProto

    margin = graph.add("Sub", [sides, graph.number(size)], "prepare.margin")
    margin = graph.add("Cast", [margin], "prepare.margins", {"to": TensorProto.DOUBLE})
    half = graph.add("Mul", [margin, graph.number(0.5, np.float64)], "prepare.half")
    rounded = graph.add("Round", [half], "prepare.rounded")
    return graph.add("Cast", [rounded], "prepare.starts", {"to": TensorProto.INT64})
