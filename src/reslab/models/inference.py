"""A trained network made fast to use: batch norm inside the convolutions, numbers of 16 bits."""

import copy
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from reslab.models.layers import ConvBN
from reslab.models.resnet import channels_last
from reslab.models.weights import Model

Net = TypeVar("Net", bound=nn.Module)


def in_bf16(model: Model) -> Model:
    """The same model computing in bf16; its scores differ in their third digit.

    Batch norm is folded while the numbers are exact, and the sum is rounded once.
    """
    net = folded(model.net).to(torch.bfloat16)
    return replace(model, net=channels_last(net))


def folded(net: Net) -> Net:
    """A copy whose convolutions do what their batch norms did; for use, not for training."""
    net = copy.deepcopy(net).eval()
    for module in net.modules():
        if isinstance(module, ConvBN) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()  # pyrefly: ignore[bad-assignment]
    return net.requires_grad_(False)
