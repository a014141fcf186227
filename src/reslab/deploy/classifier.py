"""The ONNX graph of a whole classifier: images -> probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reslab.deploy.graph import Graph, join, value
from reslab.deploy.network import LOGITS, network_graph
from reslab.deploy.own_network import own_network_graph
from reslab.deploy.prepare import crop_preparation, image_preparation
from reslab.evaluation.fuse import is_of_blocks
from reslab.models.model_file import Model
from reslab.models.resnet import ResNet

if TYPE_CHECKING:
    from onnx import ModelProto

PROBABILITIES = "probabilities"  # the output of an exported file


def image_classifier(model: Model, *, exact: bool = False) -> ModelProto:
    """Return a model's ONNX graph with all its preprocessing inside.

    `images`, uint8 [batch, height, width, 3], are decoded RGB images of one size, any size;
    `probabilities` are float32 [batch, classes]. If `exact`, pixels are resized exactly as by
    Pillow, which takes longer.
    """
    return classifier(image_preparation(model, exact=exact), logits_graph(model))


def crop_classifier(model: Model) -> ModelProto:
    """Return a model's ONNX graph for crops, uint8 [batch, size, size, 3] -> probabilities.

    A model that takes whole images takes them here too, [batch, height, width, 3].
    """
    return classifier(crop_preparation(model), logits_graph(model))


def logits_graph(model: Model) -> ModelProto:
    """Return the graph of a model's network, from prepared images to logits.

    Raise ValueError if it is the user's own and torch cannot trace it.
    """
    if not is_of_blocks(model):
        return own_network_graph(model)
    assert isinstance(model.net, ResNet)
    return network_graph(model.net)


def classifier(preparation: ModelProto, network: ModelProto) -> ModelProto:
    """Return the graph that prepares images, applies a network and turns logits to probabilities.

    The outputs of `preparation` and `network` are called `prepared` and `logits`.
    """
    return join(join(preparation, network), softmax_graph(classes_of(network)))


def classes_of(network: ModelProto) -> int:
    """Return the number of outputs of a network's graph."""
    (logits,) = network.graph.output
    return logits.type.tensor_type.shape.dim[1].dim_value


def softmax_graph(classes: int) -> ModelProto:
    """Return the graph from logits to probabilities, both float32 [batch, classes]."""
    graph = Graph()
    graph.add("Softmax", [LOGITS], PROBABILITIES, {"axis": 1})
    shape = ["batch", classes]
    return graph.model(
        [value(LOGITS, np.float32, shape)], [value(PROBABILITIES, np.float32, shape)]
    )
