"""Box arithmetic of `reslab.detection.box_ops` as ONNX nodes; boxes are xyxy, float32 [..., 4]."""

from __future__ import annotations

import numpy as np

from reslab.deploy.steps import DOUBLE, INT64, Operand, Steps
from reslab.detection.box_ops import LARGEST_GROWTH, NO_STDS, Stds


def add_resized_sides(step: Steps, sides: str, shorter: int, longest: int) -> str:
    """Add `resize_shortest_edge`: height and width after resizing, int64 [2] -> int64 [2].

    The quotients are exact where they matter: a quotient of integers of this size that is not a
    half differs from it by more than float64's rounding error.
    """
    least = step("ReduceMin", sides)
    most = step("ReduceMax", sides)
    by_shorter = step(
        "LessOrEqual", step("Mul", most, np.array(shorter)), step("Mul", least, np.array(longest))
    )
    numerator = step("Where", by_shorter, np.array(shorter), np.array(longest))
    denominator = step("Where", by_shorter, least, most)
    scaled = step("Mul", sides, numerator)
    quotient = step("Div", step.cast(scaled, DOUBLE), step.cast(denominator, DOUBLE))
    return step("Max", step.cast(step("Round", quotient), INT64), np.array(1))  # halves to even


def add_decoding(step: Steps, references: str, deltas: str, stds: Stds = NO_STDS) -> str:
    """Add `decode_boxes`: apply deltas to references, both [..., 4]."""
    start, stop = add_corners(step, references)
    sides = step("Sub", stop, start)
    centre = step("Div", step("Add", start, stop), np.float32(2))
    if stds != NO_STDS:
        deltas = step("Mul", deltas, np.array(stds, np.float32))
    offset, growth = add_corners(step, deltas)
    centre = step("Add", centre, step("Mul", offset, sides))
    growth = step("Exp", step("Min", growth, np.float32(LARGEST_GROWTH)))
    half = step("Div", step("Mul", growth, sides), np.float32(2))
    corners = step("Sub", centre, half), step("Add", centre, half)
    return step("Concat", *corners, attributes={"axis": -1})


def add_corners(step: Steps, boxes: str) -> tuple[str, str]:
    """Add the first and the last two numbers of boxes, [..., 2] each."""
    last = np.array([-1])
    return (
        step("Slice", boxes, np.array([0]), np.array([2]), last),
        step("Slice", boxes, np.array([2]), np.array([4]), last),
    )


def add_clipping(step: Steps, boxes: str, limits: str) -> str:
    """Add `clip`; limits float32 [4] are the image's width and height, twice."""
    return step("Min", step("Max", boxes, np.float32(0)), limits)


def add_is_large(step: Steps, boxes: str, least: Operand) -> str:
    """Add `large_enough`: whether both sides are at least `least`, [N, 4] -> bool [N]."""
    start, stop = add_corners(step, boxes)
    sides = step("Sub", stop, start)
    shorter = step("ReduceMin", sides, np.array([1]), attributes={"keepdims": 0})
    return step("GreaterOrEqual", shorter, least)


def add_suppression(
    step: Steps, boxes: str, scores: str, *, most: int, overlap: float, above: Operand
) -> str:
    """Add non-maximum suppression within each class, for scores above `above`, float32 [1].

    boxes [C, N, 4], a class's own; scores [C, N] -> int64 [K, 2]: class and box, the best of each
    class first, at most `most` per class. Ties go to the lower index.
    """
    scores = step("Unsqueeze", scores, np.array([1]))
    limits = np.array([most]), np.array([overlap], np.float32), above
    # the operator's classes share their boxes, but its batches do not
    chosen = step("NonMaxSuppression", boxes, scores, *limits)
    return step("Gather", chosen, np.array([0, 2]), attributes={"axis": 1})
