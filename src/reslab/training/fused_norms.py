"""Train a network whose batch norms, additions and ReLUs are computed by the C++ kernels.

Its convolutions are PyTorch's. So the engine `native` trains nets whose whole trunk its kernels
cannot compute: above all the ImageNet nets, also on the user's own images.
"""

import copy
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from reslab.kernels.build import Kernels
from reslab.kernels.norms import CHANNEL_STEP, add_and_normalise
from reslab.models.batchnorm import norms_of
from reslab.models.layers import ConvBN, Net, Projection
from reslab.models.resnet import Block, ResNet
from reslab.training import side_by_side
from reslab.training.classification import ClassificationTask
from reslab.training.loop import Prepare, Update


def lacking(task: ClassificationTask) -> str | None:
    """Return the part of a task that the kernels' batch norms do not support, or None."""
    recipe, net = task.recipe, task.net
    if task.device.torch_device.type != "cpu":
        return "GPUs"
    if recipe.deviations.net is not None or not isinstance(net, ResNet):
        return "networks of your own"
    norms = norms_of(net)
    if not norms:
        return "networks without batch norm"
    if any(norm.num_features % CHANNEL_STEP for norm in norms):
        return f"channels that are not multiples of {CHANNEL_STEP}"
    return None


def fused_update(
    task: ClassificationTask,
    kernels: Kernels,
    per_share: int | None,
    prepare: Prepare | None,
) -> Update:
    """Return PyTorch's update with the kernels' batch norms.

    `per_share` is the number of threads per share; None: all of them. `prepare` may replace the
    task's.
    """
    fuse = partial(with_fused_norms, kernels=kernels)
    threads = per_share or torch.get_num_threads()
    return side_by_side.update_of(task, threads, prepare=prepare, fuse=fuse)


def with_fused_norms(net: Net, kernels: Kernels) -> Net:
    """Return a version of a network for training that shares its layers.

    Weights and statistics are those of `net`, but under other names, so save `net`, not this.
    """
    containers = (ResNet, Block, nn.Sequential, Projection)
    layers = [layer for layer in net.modules() if not isinstance(layer, containers)]
    net = copy.deepcopy(net, {id(layer): layer for layer in layers})
    fuse_children(net, kernels)
    return net


def fuse_children(module: nn.Module, kernels: Kernels) -> None:
    """Replace the stem and the blocks in a module."""
    for name, child in list(module.named_children()):
        if isinstance(child, Block):
            module.add_module(name, FusedBlock(child, kernels))
        elif isinstance(child, nn.Sequential) and isinstance(child[0], ConvBN):
            module.add_module(name, nn.Sequential(*fuse_layers(child, kernels)))
        else:
            fuse_children(child, kernels)


def fuse_layers(layers: Iterable[nn.Module], kernels: Kernels) -> list[nn.Module]:
    """Merge each ReLU into the batch norm before it."""
    fused: list[nn.Module] = []
    nested = (layer if isinstance(layer, nn.Sequential) else [layer] for layer in layers)
    for layer in (layer for group in nested for layer in group):
        last = fused[-1] if fused else None
        if isinstance(layer, nn.ReLU) and isinstance(last, FusedLayer) and last.layer.noise is None:
            last.relu = True
        elif isinstance(layer, ConvBN) and isinstance(layer.norm, nn.BatchNorm2d):
            fused.append(FusedLayer(layer, kernels))
        else:
            fused.append(layer)
    return fused


class FusedLayer(nn.Module):
    """A convolution with batch norm, followed by ReLU if `relu`; any noise comes before ReLU.

    [B, c_in, H, W] -> [B, c_out, h, w]
    """

    def __init__(self, layer: ConvBN, kernels: Kernels) -> None:
        super().__init__()
        self.layer, self.kernels, self.relu = layer, kernels, False

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        norm, noise = self.layer.norm, self.layer.noise
        assert isinstance(norm, nn.BatchNorm2d)
        z = self.layer.conv(x)
        y = add_and_normalise(self.kernels, norm, z, residual, relu=self.relu)
        return y if noise is None else noise(y)


class FusedBlock(nn.Module):
    """A building block, whose addition and last ReLU belong to its last batch norm.

    [B, c_in, H, W] -> [B, c_out, h, w]
    """

    def __init__(self, block: Block, kernels: Kernels) -> None:
        super().__init__()
        plain = block.shortcut is None
        body = fuse_layers([*block.body, block.relu] if plain else block.body, kernels)
        self.first, self.last = nn.Sequential(*body[:-1]), body[-1]
        self.shortcut, self.relu = block.shortcut, block.relu
        if isinstance(block.shortcut, Projection):
            self.shortcut = nn.Sequential(*fuse_layers([block.shortcut.map], kernels))
        if not plain and isinstance(self.last, FusedLayer) and self.last.layer.noise is None:
            self.last.relu = True

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.shortcut is None:
            return self.last(y)
        if isinstance(self.last, FusedLayer) and self.last.relu:
            return self.last(y, self.shortcut(x))
        return self.relu(self.last(y) + self.shortcut(x))  # a random layer comes between
