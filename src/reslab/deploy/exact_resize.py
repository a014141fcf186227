"""Resizing and cropping inside an ONNX graph with Pillow's very pixels, in Pillow's arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reslab.data.resize import Interpolation
from reslab.deploy.graph import Graph
from reslab.deploy.resize import (
    PILLOW_MAY_BEGIN_VERTICALLY,
    add_centre_offsets,
    add_scaled_sides,
    add_sides,
    add_vertical_first,
)

if TYPE_CHECKING:
    from onnx import GraphProto

LEVELS = 2.0**22  # Pillow's weights are integers, in units of 1 / LEVELS


@dataclass(frozen=True)
class Axis:
    """The names of one axis's sizes, all of them int64 scalars."""

    name: str
    length: str
    scaled: str  # the length after resizing
    start: str  # of the crop in the resized image
    size: str  # of the crop


def add_exact_centre_crop(
    graph: Graph, x: str, side: int, size: int, interpolation: Interpolation
) -> str:
    """Add resizing to a shorter side and cropping the centre, as Pillow does it.

    uint8 [B, 3, H, W] -> float64 [B, 3, size, size]
    """
    sides = add_sides(graph, x)
    scaled = add_scaled_sides(graph, sides, side)
    starts = add_centre_offsets(graph, scaled, size)
    crop = Crop(sides, scaled, starts, graph.numbers(size, size))
    return add_exact_crop(graph, x, crop, interpolation)


@dataclass(frozen=True)
class Crop:
    """The names of heights and widths, int64 [2] each: what is resized, and what is kept of it."""

    sides: str  # of the images
    scaled: str  # after resizing
    starts: str  # where the crop begins in the resized image
    sizes: str  # of the crop


def add_exact_crop(graph: Graph, x: str, crop: Crop, interpolation: Interpolation) -> str:
    """Add resizing and cropping, as Pillow does it.

    Resizing an axis and cropping it is a product with a matrix of Pillow's integer weights. In
    float64 these products are exact; they are rounded after each axis, as in Pillow.

    uint8 [B, 3, H, W] -> float64 [B, 3, h, w]
    """
    from onnx import TensorProto

    parts = {
        "length": crop.sides, "scaled": crop.scaled, "start": crop.starts, "size": crop.sizes
    }  # fmt: skip
    axes = [
        Axis(
            name,
            *(
                graph.add("Gather", [both, graph.number(index)], f"{name}.{part}")
                for part, both in parts.items()
            ),
        )
        for index, name in enumerate(("prepare.rows", "prepare.columns"))
    ]
    down, across = (add_weights(graph, axis, interpolation) for axis in axes)
    across = graph.add("Transpose", [across], "prepare.across", {"perm": (1, 0)})
    x = graph.add("Cast", [x], "prepare.double", {"to": TensorProto.DOUBLE})
    if not PILLOW_MAY_BEGIN_VERTICALLY:
        return add_products(graph, x, (down, across), "prepare.crop", vertical_first=False)
    condition = add_vertical_first(graph, crop.sides, crop.scaled)
    branches = {
        name: product_graph(x, (down, across), vertical_first=name == "then_branch")
        for name in ("then_branch", "else_branch")
    }
    return graph.add("If", [condition], "prepare.crop", branches)


def add_weights(graph: Graph, axis: Axis, interpolation: Interpolation) -> str:
    """Add Pillow's weights for the crop along an axis, whole numbers in float64 [size, length].

    Each row holds the filter around the centre of one pixel of the crop.
    """
    from onnx import TensorProto

    def step(operator: str, inputs: list[str], name: str) -> str:
        return graph.add(operator, inputs, f"{axis.name}.{name}")

    def double(number: str) -> str:
        return graph.add("Cast", [number], f"{number}.double", {"to": TensorProto.DOUBLE})

    one, half = (graph.number(each, np.float64) for each in (1.0, 0.5))
    scale = step("Div", [double(axis.length), double(axis.scaled)], "scale")
    stop = step("Add", [axis.start, axis.size], "stop")
    indices = double(step("Range", [axis.start, stop, graph.number(1)], "indices"))
    centres = step("Mul", [step("Add", [indices, half], "middles"), scale], "centres")
    centres = step("Unsqueeze", [centres, graph.numbers(1)], "centre")  # [size, 1]
    pixels = double(step("Range", [graph.number(0), axis.length, graph.number(1)], "pixels"))
    distance = step("Add", [step("Sub", [pixels, centres], "offset"), half], "distance")
    inverse = step("Div", [one, step("Max", [scale, one], "width")], "inverse")
    relative = step("Abs", [step("Mul", [distance, inverse], "signed")], "relative")
    add_filter = add_cubic_filter if interpolation == "bicubic" else add_triangle_filter
    filtered = add_filter(graph, relative, f"{axis.name}.filter")
    total = step("ReduceSum", [filtered, graph.numbers(1)], "total")
    shares = step("Div", [filtered, total], "shares")
    units = step("Mul", [shares, graph.number(LEVELS, np.float64)], "units")
    # halves are rounded away from zero
    magnitude = step(
        "Floor", [step("Add", [step("Abs", [units], "positive"), half], "half")], "whole"
    )
    return step("Mul", [step("Sign", [units], "sign"), magnitude], "weights")


def add_triangle_filter(graph: Graph, x: str, name: str) -> str:
    """Add the filter of bilinear resizing at distances x >= 0: 1 - x, or 0 beyond 1."""
    one = graph.number(1.0, np.float64)
    return graph.add("Relu", [graph.add("Sub", [one, x], f"{name}.line")], name)


def add_cubic_filter(graph: Graph, x: str, name: str) -> str:
    """Add the filter of bicubic resizing at distances x >= 0; it is 0 beyond 2."""
    near = add_polynomial(graph, x, (1.5, -2.5, 0.0, 1.0), f"{name}.near")
    far = add_polynomial(graph, x, (1.0, -5.0, 8.0, -4.0), f"{name}.far")
    far = graph.add("Mul", [far, graph.number(-0.5, np.float64)], f"{name}.far.scaled")
    zero, one, two = (graph.number(each, np.float64) for each in (0.0, 1.0, 2.0))
    inside = graph.add("Less", [x, two], f"{name}.inside")
    outer = graph.add("Where", [inside, far, zero], f"{name}.outer")
    return graph.add("Where", [graph.add("Less", [x, one], f"{name}.inner"), near, outer], name)


def add_polynomial(graph: Graph, x: str, factors: Sequence[float], name: str) -> str:
    """Add a polynomial with these factors, the highest power first, by Horner's rule."""
    y = graph.number(factors[0], np.float64)
    for power, factor in enumerate(factors[1:]):
        y = graph.add("Mul", [y, x], f"{name}.times.{power}")
        y = graph.add("Add", [y, graph.number(factor, np.float64)], f"{name}.plus.{power}")
    return y


def product_graph(x: str, weights: tuple[str, str], *, vertical_first: bool) -> GraphProto:
    """Return a branch of `If` that resizes `x` along both axes, in one of the two orders."""
    prefix = "prepare.rows.first" if vertical_first else "prepare.columns.first"
    graph = Graph(f"{prefix}.")
    output = add_products(graph, x, weights, prefix, vertical_first=vertical_first)
    return graph.branch(output, np.float64, prefix)


def add_products(
    graph: Graph, x: str, weights: tuple[str, str], name: str, *, vertical_first: bool
) -> str:
    """Add both products with rounding to whole levels after each; float64 [B, 3, size, size].

    `weights` are those of the rows, [size, H], and those of the columns, [W, size].
    """
    down, across = weights
    passes = [("down", lambda x: [down, x]), ("across", lambda x: [x, across])]
    unit, half, zero, white = (
        graph.number(each, np.float64) for each in (1 / LEVELS, 0.5, 0.0, 255.0)
    )
    for index, (label, operands) in enumerate(passes if vertical_first else passes[::-1]):
        product = graph.add("MatMul", operands(x), f"{name}.{label}")
        levels = graph.add("Mul", [product, unit], f"{name}.{label}.levels")
        shifted = graph.add("Add", [levels, half], f"{name}.{label}.shifted")
        rounded = graph.add("Floor", [shifted], f"{name}.{label}.rounded")
        # a cubic filter has negative weights
        x = graph.add("Clip", [rounded, zero, white], name if index else f"{name}.{label}.clipped")
    return x
