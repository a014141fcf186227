"""The ONNX graph of a ResNet: prepared images -> logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from reslab.deploy.graph import Graph, value
from reslab.models.batchnorm import fold_in_fp32
from reslab.models.layers import ConvBN, Projection, ZeroPadding
from reslab.models.random_layers import RandomLayer
from reslab.models.resnet import Block, ResNet

if TYPE_CHECKING:
    from onnx import ModelProto

PREPARED, LOGITS = "prepared", "logits"  # the input and the output of the network's graph


def network_graph(net: ResNet) -> ModelProto:
    """Return the graph of a network of the paper's blocks, batch norm folded, in fp32.

    `prepared`, float32 [batch, 3, height, width], are images after preprocessing; `logits` are
    float32 [batch, classes]. Batch and size are dynamic.
    """
    folded = fold_in_fp32(net)
    graph = Graph()
    x = add_trunk(graph, folded, PREPARED)
    # a mean over the whole map has no window, whose size would have to be known here
    x = graph.add("GlobalAveragePool", [x], "pool")
    x = graph.add("Flatten", [x], "pool.flat")
    add_linear(graph, folded.fc, x, "fc", LOGITS)
    return graph.model(
        [value(PREPARED, np.float32, ["batch", 3, "height", "width"])],
        [value(LOGITS, np.float32, ["batch", folded.config.classes])],
    )


def add_trunk(graph: Graph, net: ResNet, x: str, prefix: str = "") -> str:
    """Add the stem and the stages of a folded network, and return the last feature map's name."""
    x = add_layers(graph, net.stem, x, f"{prefix}stem")
    for index, stage in enumerate(net.stages):
        assert isinstance(stage, nn.Sequential)
        x = add_layers(graph, stage, x, f"{prefix}stages.{index}")
    return x


def add_layers(graph: Graph, layers: nn.Sequential, x: str, name: str) -> str:
    """Add the layers of a folded network one after another; names follow the state dict."""
    for index, layer in enumerate(layers):
        x = add_layer(graph, layer, x, f"{name}.{index}")
    return x


def add_layer(graph: Graph, layer: nn.Module, x: str, name: str) -> str:
    """Add one layer of a folded network, and return the name of its output."""
    match layer:
        case Block():
            return add_block(graph, layer, x, name)
        case ConvBN():
            return add_norm(graph, layer.norm, add_conv(graph, layer.conv, x, name), name)
        case Projection():
            return add_layer(graph, layer.map, x, f"{name}.map")
        case ZeroPadding():
            return add_zero_padding(graph, layer, x, name)
        case nn.MaxPool2d():
            return add_max_pool(graph, layer, x, name)
        case nn.ReLU():
            return graph.add("Relu", [x], name)
        case nn.Sequential():
            return add_layers(graph, layer, x, name)
        case nn.Identity():
            return x
    assert isinstance(layer, RandomLayer), f"{name} is a {type(layer).__name__}"
    return x  # random layers do nothing outside training


def add_block(graph: Graph, block: Block, x: str, name: str) -> str:
    """Add y = ReLU(F(x) + shortcut(x)), or ReLU(F(x)) for a plain block."""
    y = add_layers(graph, block.body, x, f"{name}.body")
    if block.shortcut is not None:
        shortcut = add_layer(graph, block.shortcut, x, f"{name}.shortcut")
        y = graph.add("Add", [y, shortcut], f"{name}.sum")
    return graph.add("Relu", [y], f"{name}.relu")


def add_conv(graph: Graph, conv: nn.Conv2d, x: str, name: str) -> str:
    """Add a convolution with its weights."""
    inputs = [x, graph.constant(conv.weight, f"{name}.weight")]
    if conv.bias is not None:
        inputs.append(graph.constant(conv.bias, f"{name}.bias"))
    assert isinstance(conv.padding, tuple)
    attributes = {
        "kernel_shape": conv.kernel_size,
        "strides": conv.stride,
        "pads": (*conv.padding, *conv.padding),
        "dilations": conv.dilation,
        "group": conv.groups,
    }
    return graph.add("Conv", inputs, name, attributes)


def add_norm(graph: Graph, norm: nn.Module, x: str, name: str) -> str:
    """Add the group norm after a convolution; batch norm is folded into it already."""
    if isinstance(norm, nn.Identity):
        return x
    assert isinstance(norm, nn.GroupNorm)
    # GroupNormalization differs between opsets; these nodes are what its last version means
    name = f"{name}.norm"
    shape = graph.add("Shape", [x], f"{name}.shape")
    groups = graph.add("Reshape", [x, graph.numbers(0, norm.num_groups, -1)], f"{name}.groups")
    ones = graph.constant(torch.ones(norm.num_groups), f"{name}.ones")
    zeros = graph.constant(torch.zeros(norm.num_groups), f"{name}.zeros")
    x = graph.add(
        "InstanceNormalization", [groups, ones, zeros], f"{name}.unit", {"epsilon": norm.eps}
    )
    x = graph.add("Reshape", [x, shape], f"{name}.map")
    for operator, part, values in (("Mul", "weight", norm.weight), ("Add", "bias", norm.bias)):
        factor = graph.constant(per_channel(values), f"{name}.{part}")
        x = graph.add(operator, [x, factor], f"{name}.{operator.lower()}")
    return x


def per_channel(values: Tensor) -> Tensor:
    """Reshape [C] to [1, C, 1, 1]."""
    return values[None, :, None, None]


def add_zero_padding(graph: Graph, layer: ZeroPadding, x: str, name: str) -> str:
    """Add option A: every `stride`-th pixel, and zeros for the new channels (Sec. 3.3)."""
    if layer.stride > 1:
        sides = {"kernel_shape": (1, 1), "strides": (layer.stride, layer.stride)}
        x = graph.add("MaxPool", [x], f"{name}.pixels", sides)
    before, after = layer.padding[-2:]
    pads = graph.numbers(0, before, 0, 0, 0, after, 0, 0)
    return graph.add("Pad", [x, pads], name)


def add_max_pool(graph: Graph, pool: nn.MaxPool2d, x: str, name: str) -> str:
    """Add a max pooling with a square window."""
    side, stride, padding = pool.kernel_size, pool.stride, pool.padding
    assert isinstance(side, int)
    assert isinstance(stride, int)
    assert isinstance(padding, int)
    attributes = {
        "kernel_shape": (side, side),
        "strides": (stride, stride),
        "pads": (padding,) * 4,
        "ceil_mode": int(pool.ceil_mode),
    }
    return graph.add("MaxPool", [x], name, attributes)


def add_linear(graph: Graph, linear: nn.Linear, x: str, name: str, output: str) -> str:
    """Add a linear layer, [B, inputs] -> [B, outputs]; `output` is the name of its output."""
    weights = [graph.constant(linear.weight, f"{name}.weight")]
    if linear.bias is not None:
        weights.append(graph.constant(linear.bias, f"{name}.bias"))
    return graph.add("Gemm", [x, *weights], output, {"transB": 1})
