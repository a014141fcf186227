"""Resizing and cropping inside an ONNX graph, as `reslab.data.resize` does with Pillow."""

from __future__ import annotations

import numpy as np

from reslab.deploy.graph import Graph


def add_centre_crop(graph: Graph, x: str, side: int, size: int) -> str:
    """Add bilinear resizing to a shorter side and cropping the centre.

    Pixels differ from Pillow's by at most one level. uint8 [B, 3, H, W] -> [B, 3, size, size]
    """
    sides = add_sides(graph, x)
    scaled = add_scaled_sides(graph, sides, side)
    # with Resize's attribute `axes`, which would do without the other two, ONNX Runtime 1.32 fails
    others = graph.add("Shape", [x], "prepare.others", {"end": 2})
    shape = graph.add("Concat", [others, scaled], "prepare.shape", {"axis": 0})
    x = graph.add(
        "Resize",
        [x, "", "", shape],
        "prepare.resize",
        {
            "mode": "linear",
            "antialias": 1,
            "coordinate_transformation_mode": "half_pixel",
            "exclude_outside": 1,  # weights of pixels outside the image count for nothing
            "keep_aspect_ratio_policy": "stretch",  # the longer side was rounded down already
        },
    )
    starts = add_centre_offsets(graph, scaled, size)
    ends = graph.add("Add", [starts, graph.number(size)], "prepare.ends")
    return graph.add("Slice", [x, starts, ends, graph.numbers(2, 3)], "prepare.crop")


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
