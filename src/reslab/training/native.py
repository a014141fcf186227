"""Train a 6n+2 net with the C++ kernels: which nets they support, and the update."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reslab.data.loader import Batch, Draws, EncodedLoader, InMemoryLoader
from reslab.kernels.build import Kernels
from reslab.kernels.crop import Cropper
from reslab.kernels.trunk import (
    SIDE_STEP,
    SMALLEST_SIDE,
    WIDTHS,
    ConvNorm,
    Shortcut,
    Trunk,
    TrunkLayer,
)
from reslab.models.batchnorm import norms_of
from reslab.models.config import ResNetConfig
from reslab.models.layers import ConvBN, Projection
from reslab.models.parts import BatchNorm
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import Block, ResNet
from reslab.training.classification import ClassificationTask
from reslab.training.loop import Prepare, Update, eager_update


def lacking(task: ClassificationTask) -> str | None:
    """Return the part of a task that the kernels lack, or None if they can train it."""
    recipe, net, loader = task.recipe, task.net, task.loader
    if task.device.torch_device.type != "cpu":
        return "GPUs"
    if recipe.deviations.net is not None or not isinstance(net, ResNet):
        return "networks of your own"
    if recipe.batch_norm != "train":
        return "frozen batch norm"
    if recipe.recompute != "none":
        return "recompute=blocks"
    if isinstance(loader, EncodedLoader):
        return "images of more than one size"
    height, width = loader.images.shape[-2:]
    if height != width or height < SMALLEST_SIDE or height % SIDE_STEP:
        return f"images of {height} x {width} pixels"
    return lacking_for(net.config)


def lacking_for(config: ResNetConfig) -> str | None:
    """Return the part of a network that the kernels lack, or None if they lack none."""
    if config.stem != "cifar" or config.block != "basic" or config.widths != WIDTHS:
        return "nets other than those of Sec. 4.2"
    if any(type(norm) is not BatchNorm for norm in config.norms):
        return "norms other than batch norm"
    if config.dropout or config.stochastic_depth:
        return "random layers"
    if config.zeros != "end":
        return "option A with zeros on both sides"
    return None


def tensors_of(layer: nn.Module) -> ConvNorm:
    """Return the tensors of a convolution with batch norm."""
    assert isinstance(layer, ConvBN)
    norm = layer.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return ConvNorm(layer.conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var)


def trunk_layers(net: ResNet) -> list[TrunkLayer]:
    """Return the layers of a supported net's trunk, in the order of the computation."""
    layers = [TrunkLayer(tensors_of(net.stem[0]))]
    for block in (module for module in net.stages.modules() if isinstance(module, Block)):
        first, _, second = block.body
        assert isinstance(first, ConvBN)
        shortcut: Shortcut = "none" if block.shortcut is None else "unweighted"
        projection = None
        if isinstance(block.shortcut, Projection):
            shortcut, projection = "projection", tensors_of(block.shortcut.map)
        layers.append(TrunkLayer(tensors_of(first), first.conv.stride[0]))
        layers.append(TrunkLayer(tensors_of(second), 1, shortcut, projection))
    return layers


@dataclass(frozen=True)
class NativeNet:
    """A net whose trunk is computed by the kernels, [B, 3, S, S] -> [B, classes].

    It has no weights of its own: it computes with those of `net`, and updates its statistics.
    """

    net: ResNet
    trunk: Trunk
    norms: list[nn.BatchNorm2d]

    def __call__(self, images: Tensor) -> Tensor:
        momentum, epsilon = self.norms[0].momentum, self.norms[0].eps
        assert momentum is not None
        counts = [norm.num_batches_tracked for norm in self.norms]
        torch._foreach_add_([count for count in counts if count is not None], 1)
        features = self.trunk.features(images, momentum, epsilon)
        # a matrix product would add in an order that depends on the number of threads
        products = features[:, None] * self.net.fc.weight
        return products.sum(-1) + self.net.fc.bias


def native_update(
    task: ClassificationTask, native: NativeNet, kernels: Kernels, prepare: Prepare | None = None
) -> Update:
    """Return the eager update with the kernels in place of the network and of the augmentation.

    `prepare` may replace the task's.
    """
    prepare = prepare or replace(task, loader=with_cropper(task.loader, kernels)).prepare

    def packed(draws: Draws) -> Sequence[Batch]:
        """Prepare the shares; the weights have changed since the last ones."""
        native.trunk.pack()
        return prepare(draws)

    def loss(share: Batch) -> tuple[Tensor, Tensor]:
        return task.loss_of(native(share.images), share)

    return eager_update(packed, loss, task.optimizer, native.norms, task.device.processes)


def with_cropper(
    loader: InMemoryLoader | EncodedLoader, kernels: Kernels
) -> InMemoryLoader | EncodedLoader:
    """Return a loader that crops with the kernels, if it only subtracts and divides before."""
    if isinstance(loader, EncodedLoader) or not isinstance(loader.prepare, Preprocessing):
        return loader
    preprocessing, size = loader.prepare, loader.images.shape[1:]
    mean = preprocessing.mean_rows(*size[1:])[0].expand(size)
    std = preprocessing.std.flatten()
    bgr = preprocessing.channels == "BGR"
    return loader.with_crop(Cropper(kernels, loader.images, mean, std, pad=loader.pad, bgr=bgr))


def native_net(net: ResNet, kernels: Kernels, side: int, batch: int) -> NativeNet:
    """Prepare to compute at most `batch` images of `side` pixels at a time."""
    return NativeNet(net, Trunk(kernels, trunk_layers(net), side, batch), norms_of(net))
