"""Parameters, multiply-adds and depth of a network, counted in a real forward pass."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reslab.models.config import ResNetConfig
from reslab.models.layers import Projection
from reslab.models.resnet import ResNet

INPUT = {"imagenet": 224, "cifar": 32}  # pixels on a side


@dataclass(frozen=True)
class Complexity:
    """What Tables 1 and 6 print of a network."""

    name: str
    depth: int  # weighted layers as the paper counts them: without projections
    parameters: int  # learnable numbers; batch norm's statistics are none
    multiply_adds: int  # of convolutions and the classifier, the paper's "FLOPs"


def complexity(name: str, config: ResNetConfig) -> Complexity:
    """Count in the forward pass of one image through a net of zeros."""
    net = ResNet(config).eval()
    for tensor in net.state_dict().values():
        tensor.zero_()
    multiply_adds = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal multiply_adds
        if isinstance(module, nn.Conv2d):
            # each output number sums over one input window
            multiply_adds += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            multiply_adds += output.numel() * module.in_features

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    projections = [m for m in net.modules() if isinstance(m, Projection)]
    for layer in layers:
        layer.register_forward_hook(count)
    with torch.no_grad():
        net(torch.zeros(1, 3, INPUT[config.stem], INPUT[config.stem]))
    return Complexity(
        name=name,
        depth=len(layers) - len(projections),
        parameters=sum(weight.numel() for weight in net.parameters()),
        multiply_adds=multiply_adds,
    )


def complexities(models: Mapping[str, ResNetConfig]) -> list[Complexity]:
    """The complexity of each; two names of one network are counted once."""
    counted: dict[ResNetConfig, Complexity] = {}
    found = []
    for name, config in models.items():
        if config not in counted:
            counted[config] = complexity(name, config)
        one = counted[config]
        found.append(Complexity(name, one.depth, one.parameters, one.multiply_adds))
    return found
