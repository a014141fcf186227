"""Train a 6n+2 net whose whole trunk the C++ kernels compute, for the engine `native`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

from torch import Tensor, nn

from reslab.data.loader import Batch, EncodedLoader, InMemoryLoader
from reslab.kernels.build import Kernels
from reslab.kernels.crop import Cropper
from reslab.kernels.sgd import SgdTensors
from reslab.kernels.trunk import (
    SIDE_STEP,
    SMALLEST_SIDE,
    WIDTHS,
    ConvNorm,
    Shortcut,
    Trunk,
    TrunkLayer,
)
from reslab.models.batchnorm import NormStatistics, norms_of
from reslab.models.config import ResNetConfig
from reslab.models.layers import ConvBN, Projection
from reslab.models.parts import BatchNorm
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import Block, ResNet
from reslab.training import fused_norms
from reslab.training.classification import ClassificationTask
from reslab.training.loop import Passes, Prepare, Update, at_rate, backward, step_with
from reslab.training.optimizer import AuthorsSGD, Stepper


def lacking(task: ClassificationTask) -> str | None:
    """Return the part of a task that the trunk in C++ does not support, or None."""
    if part := fused_norms.lacking(task):
        return part
    recipe, net, loader = task.recipe, task.net, task.loader
    assert isinstance(net, ResNet)
    if recipe.batch_norm != "train":
        return "frozen batch norm"
    if recipe.recompute != "none":
        return "recompute=blocks"
    if isinstance(loader, EncodedLoader):
        return "images that are decoded during training"
    height, width = loader.images.shape[-2:]
    if height != width or height < SMALLEST_SIDE or height % SIDE_STEP:
        return f"images of {height} x {width} pixels"
    return lacking_for(net.config)


def lacking_for(config: ResNetConfig) -> str | None:
    """Return the part of a network that the trunks in C++ and in Triton lack, or None."""
    if config.stem != "cifar" or config.block != "basic" or config.widths != WIDTHS:
        return "nets other than the CIFAR nets of Sec. 4.2"
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

    def __call__(self, images: Tensor, momentum: float) -> Tensor:
        """Return the scores, and move the running statistics by `momentum`; see `Trunk.features`.

        The batch norms do not count these forward passes.
        """
        features = self.trunk.features(images, momentum, self.norms[0].eps)
        # a matrix product would add in an order that depends on the number of threads
        products = features[:, None] * self.net.fc.weight
        return products.sum(-1) + self.net.fc.bias


@final
class NativeSGD:
    """The authors' SGD, whose step for a trunk's weights is one call of the kernels.

    The other weights, and all weights in the first step, are left to `optimizer`.
    """

    def __init__(self, optimizer: AuthorsSGD, trunk: Trunk, kernels: Kernels) -> None:
        self.optimizer, self.kernels = optimizer, kernels
        self.parameters = optimizer.parameters
        of_trunk = {id(weight) for weight in trunk.weights}
        self.weights, self.groups = zip(*(
            (weight, group)
            for group in optimizer.groups for weight in group.weights if id(weight) in of_trunk
        ), strict=True)  # fmt: skip
        self.tensors: SgdTensors | None = None

    def step(self) -> None:
        optimizer = self.optimizer
        if self.tensors is None and self.weights[0] in optimizer.velocities:
            velocities = [optimizer.velocities[weight] for weight in self.weights]
            decays = [group.weight_decay for group in self.groups]
            self.tensors = SgdTensors(
                self.kernels, self.weights, velocities, decays, optimizer.momentum
            )
        if self.tensors is not None:
            gradients = [weight.grad for weight in self.weights]
            self.tensors.step(gradients, [optimizer.rate * group.scale for group in self.groups])
            for weight in self.weights:
                weight.grad = None
        optimizer.step()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()


def native_update(
    task: ClassificationTask, native: NativeNet, kernels: Kernels, prepare: Prepare | None
) -> Update:
    """Return the update in which the kernels compute the trunk, the augmentation and SGD's step.

    Where they cannot, PyTorch does the last two. `prepare` may replace the task's.
    """
    optimizer = task.optimizer
    stepper: Stepper = optimizer
    if isinstance(optimizer, AuthorsSGD) and optimizer.momentum:
        stepper = NativeSGD(optimizer, native.trunk, kernels)
    prepare = prepare or replace(task, loader=with_cropper(task.loader, kernels)).prepare
    statistics = NormStatistics(native.norms, task.device.torch_device)
    passes = passes_by(native, task.loss_of, statistics)
    step = step_with(passes, prepare, stepper, statistics, task.device.processes)
    return at_rate(step, optimizer.set_rate)


def passes_by(
    native: NativeNet,
    loss_of: Callable[[Tensor, Batch], tuple[Tensor, Tensor]],
    statistics: NormStatistics,
) -> Passes:
    """Return passes in which the kernels compute the trunk, one share after the other.

    `loss_of` returns the mean loss of a share's scores, and the error in percent.
    """

    def loss(share: Batch) -> tuple[Tensor, Tensor]:
        return loss_of(native(share.images, momentum=1.0), share)

    def passes(shares: Sequence[Batch], count: int) -> Iterator[Tensor]:
        native.trunk.pack()
        for share in shares:
            yield backward(loss, share, count, statistics)
        statistics.count(len(shares))  # the kernels did not

    return passes


def with_cropper(
    loader: InMemoryLoader | EncodedLoader, kernels: Kernels
) -> InMemoryLoader | EncodedLoader:
    """Return a loader that crops with the kernels, or the same one if they cannot.

    The kernels know preprocessing that subtracts and divides, of images in memory.
    """
    if isinstance(loader, EncodedLoader) or not isinstance(loader.prepare, Preprocessing):
        return loader
    preprocessing, size = loader.prepare, loader.images.shape[1:]
    mean = preprocessing.mean_rows(*size[1:])[0].expand(size)
    std = preprocessing.std.flatten()
    bgr = preprocessing.channels == "BGR"
    return loader.with_crop(Cropper(kernels, loader.images, mean, std, pad=loader.pad, bgr=bgr))


def native_net(net: ResNet, kernels: Kernels, side: int, batch: int) -> NativeNet:
    """Build the net, for at most `batch` images of `side` x `side` pixels at a time."""
    return NativeNet(net, Trunk(kernels, trunk_layers(net), side, batch), norms_of(net))
