"""The ONNX graph of the preprocessing: decoded images -> prepared images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reslab.deploy.exact_resize import add_exact_centre_crop
from reslab.deploy.graph import Graph, Side, value
from reslab.deploy.network import PREPARED
from reslab.deploy.resize import add_centre_crop
from reslab.evaluation.predict import fixed_side
from reslab.evaluation.views import protocol_named
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from onnx import ModelProto

IMAGES = "images"  # the input of an exported file
# pixels; to so small crops, resizing exactly is fast, and a single level changes answers
SMALL_CROP = 64


def centre_of(model: Model) -> tuple[int, int] | None:
    """Return the shorter side and the crop size with which a model sees images.

    None if it takes whole images. Raise ValueError if the model's numbers contradict each other.
    """
    preprocessing = model.preprocessing
    (view,) = protocol_named("one-crop", preprocessing.resize, preprocessing.size).views()
    if view.side is not None and view.size is not None:
        return view.side, view.size
    # a network that subtracts a mean image takes only images of its size; `predict` resizes others
    side = fixed_side(model)
    return None if side is None else (side, side)


def image_preparation(model: Model, *, exact: bool = False) -> ModelProto:
    """Return the graph of a model's whole preprocessing.

    `images`, uint8 [batch, height, width, 3], are decoded RGB images of one size, any size;
    `prepared` are float32 [batch, 3, h, w]. Pixels differ from Pillow's by at most one level; for
    small crops, bicubic resizing, or if `exact`, not at all, which takes several times as long.
    """
    graph = Graph("prepare.")
    centre = centre_of(model)
    x = graph.add("Transpose", [IMAGES], "prepare.planes", {"perm": (0, 3, 1, 2)})
    if centre is not None:
        if exact or must_be_exact(model):
            x = add_exact_centre_crop(graph, x, *centre, model.preprocessing.interpolation)
        else:
            x = add_centre_crop(graph, x, *centre)
    return finish(graph, x, model.preprocessing, centre, ("height", "width"))


def must_be_exact(model: Model) -> bool:
    """Return whether a model's images are always resized to exactly Pillow's pixels."""
    centre = centre_of(model)
    if centre is None or centre[1] <= SMALL_CROP:
        return True
    # Resize would clip the overshoots of tall images in another order than Pillow
    return model.preprocessing.interpolation == "bicubic"


def crop_preparation(model: Model) -> ModelProto:
    """Return the graph of a model's preprocessing after resizing and cropping.

    `images` are uint8 [batch, size, size, 3], or of any size if the model takes whole images.
    """
    graph = Graph("prepare.")
    centre = centre_of(model)
    x = graph.add("Transpose", [IMAGES], "prepare.planes", {"perm": (0, 3, 1, 2)})
    sides = ("height", "width") if centre is None else (centre[1], centre[1])
    return finish(graph, x, model.preprocessing, centre, sides)


def finish(
    graph: Graph,
    x: str,
    preprocessing: Preprocessing,
    centre: tuple[int, int] | None,
    sides: tuple[Side, Side],
) -> ModelProto:
    """Return the graph with the arithmetic after the crop `x`; `sides` are those of the images."""
    add_arithmetic(graph, x, preprocessing, None if centre is None else centre[1])
    outputs = ("map height", "map width") if centre is None else (centre[1], centre[1])
    return graph.model(
        [value(IMAGES, np.uint8, ["batch", *sides, 3])],
        [value(PREPARED, np.float32, ["batch", 3, *outputs])],
    )


def add_arithmetic(graph: Graph, x: str, preprocessing: Preprocessing, size: int | None) -> None:
    """Add what `Preprocessing` computes for crops of `size`, [B, 3, h, w], ending in `prepared`."""
    from onnx import TensorProto

    mean = preprocessing.mean
    if mean.shape[-2:] != (size, size):
        mean = mean.mean((1, 2), keepdim=True)
    steps: list[tuple[str, str, dict[str, object]]] = [("Cast", "", {"to": TensorProto.FLOAT})]
    steps.append(("Sub", graph.constant(mean.float()[None], "prepare.mean"), {}))
    if bool((preprocessing.std != 1).any()):
        std = graph.constant(preprocessing.std.float()[None], "prepare.deviation")
        steps.append(("Div", std, {}))
    if preprocessing.channels == "BGR":
        steps.append(("Gather", graph.numbers(2, 1, 0), {"axis": 1}))
    for index, (operator, operand, attributes) in enumerate(steps):
        last = index == len(steps) - 1
        name = PREPARED if last else f"prepare.{operator.lower()}"
        x = graph.add(operator, [x, operand] if operand else [x], name, attributes)
