"""What others call the tensors of a residual net, and what each of their layouts decides for it.

Every table is one name to one: importing and exporting read the same lines.
"""

import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from reslab.models.config import ResNetConfig
from reslab.models.layers import ConvBN, Projection
from reslab.models.preprocessing import Channels
from reslab.models.resnet import Block, ResNet

NameMap = dict[str, str]  # ours -> theirs

# of a batch norm, as torch calls them; the last is a count that some files leave out
BATCH_COUNT = "num_batches_tracked"
NORM_TENSORS = ("weight", "bias", "running_mean", "running_var", BATCH_COUNT)


@dataclass(frozen=True)
class Layout:
    """A way of naming, and what it says of nets that are named so."""

    title: str
    marks: tuple[str, ...]  # names that a file has if it is of this layout
    names: Callable[[ResNet], NameMap]
    classifier: str  # the name of its weights
    stem: Literal["imagenet", "cifar"] | None  # of its nets; None: either
    overrides: dict[str, str]  # fields of the configuration, where they matter
    mean: tuple[float, float, float] | None  # red, green, blue, 0 to 255; None: has to be given
    std: tuple[float, float, float]
    channels: Channels = "RGB"
    asks_mean: bool = False  # a mean may be given, in the order of the channels
    side: int | None = None  # of the images of its nets with the cifar stem, where that is known


@dataclass(frozen=True)
class ConvPosition:
    """Where a convolution with its batch norm sits in a network."""

    own: str  # our name of the two
    stage: int | None  # None: the first convolution
    block: int = 0
    conv: int | None = None  # of the block's body; None: its projection


def places(net: ResNet) -> Iterator[ConvPosition]:
    """Every convolution of a network, from input to output."""
    yield ConvPosition("stem.0", None)
    for name, block in net.named_modules():
        if not isinstance(block, Block):
            continue
        stage, number = map(int, name.removeprefix("stages.").split("."))
        convs = [index for index, part in enumerate(block.body) if isinstance(part, ConvBN)]
        for conv, index in enumerate(convs):
            yield ConvPosition(f"{name}.body.{index}", stage, number, conv)
        if isinstance(block.shortcut, Projection):
            yield ConvPosition(f"{name}.shortcut.map", stage, number)


def torch_names(net: ResNet, projection: str, classifier: str) -> NameMap:
    """conv1, bn1, layer1.0.conv1, ...: torchvision's way, and that of all who follow it."""
    names = {}
    for place in places(net):
        if place.stage is None:
            conv, norm = "conv1", "bn1"
        else:
            block = f"layer{place.stage + 1}.{place.block}"
            if place.conv is None:
                conv, norm = f"{block}.{projection}.0", f"{block}.{projection}.1"
            else:
                conv, norm = f"{block}.conv{place.conv + 1}", f"{block}.bn{place.conv + 1}"
        names[f"{place.own}.conv.weight"] = f"{conv}.weight"
        names |= {f"{place.own}.norm.{part}": f"{norm}.{part}" for part in NORM_TENSORS}
    return names | {f"fc.{part}": f"{classifier}.{part}" for part in ("weight", "bias")}


def torchvision_names(net: ResNet) -> NameMap:
    """torchvision's and timm's."""
    return torch_names(net, "downsample", "fc")


def akamaster_names(net: ResNet) -> NameMap:
    """Those of akamaster/pytorch_resnet_cifar10."""
    return torch_names(net, "shortcut", "linear")


def reslab_names(net: ResNet) -> NameMap:
    """Ours, in a file without the rest of a model file."""
    return {name: name for name in net.state_dict()}


def authors_names(net: ResNet) -> NameMap:
    """The layers of the released prototxts, each with the number of a blob: `res2a_branch2a/0`.

    The blobs are those that `authors_tensors` leaves.
    """
    names = {}
    for place in places(net):
        if place.stage is None:
            layer, suffix = "conv1", "_conv1"
        else:
            branch = "1" if place.conv is None else f"2{string.ascii_lowercase[place.conv]}"
            block = authors_block(net.config, place.stage, place.block)
            suffix = f"{place.stage + 2}{block}_branch{branch}"
            layer = f"res{suffix}"
        names[f"{place.own}.conv.weight"] = f"{layer}/0"
        names[f"{place.own}.norm.running_mean"] = f"bn{suffix}/0"
        names[f"{place.own}.norm.running_var"] = f"bn{suffix}/1"
        names[f"{place.own}.norm.weight"] = f"scale{suffix}/0"
        names[f"{place.own}.norm.bias"] = f"scale{suffix}/1"
    return names | {"fc.weight": "fc1000/0", "fc.bias": "fc1000/1"}


def authors_block(config: ResNetConfig, stage: int, block: int) -> str:
    """a, b, c, ...; in conv3_x and conv4_x of 101 and 152 layers a, b1, b2, ..."""
    if config.depth > 50 and stage in (1, 2) and block:
        return f"b{block}"
    return string.ascii_lowercase[block]


def with_slashes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Blobs called `layer/0`, whatever stood between the layer and the number."""
    return {re.sub(r"[/_.](\d)$", r"/\1", name): tensor for name, tensor in tensors.items()}


def authors_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The released blobs as a batch norm of torch has them.

    A batch norm's third blob is what its sums of means and variances are divided by. A bias of a
    convolution, which ResNet-50's first one has, is taken off the mean: (x + b) - m = x - (m - b).
    """
    blobs = dict(tensors)
    for first in [name for name in blobs if re.fullmatch(r"bn.+/0", name)]:
        norm = first.removesuffix("/0")
        factor = blobs.pop(f"{norm}/2", None)
        if factor is None or factor.numel() != 1 or f"{norm}/1" not in blobs:
            raise ValueError(f"{norm} has to have three blobs: mean, variance, a factor of both")
        scale = 0.0 if factor.item() == 0 else 1 / factor.item()  # as Caffe does
        blobs[first], blobs[f"{norm}/1"] = blobs[first] * scale, blobs[f"{norm}/1"] * scale
        layer = "conv1" if norm == "bn_conv1" else f"res{norm.removeprefix('bn')}"
        bias = blobs.pop(f"{layer}/1", None)
        if bias is not None:
            blobs[first] = blobs[first] - bias
    return blobs


def of_255(colour: tuple[float, float, float]) -> tuple[float, float, float]:
    red, green, blue = (255 * value for value in colour)
    return red, green, blue


# the values that torchvision's references and akamaster's trainer.py normalise with
USUAL_MEAN, USUAL_STD = of_255((0.485, 0.456, 0.406)), of_255((0.229, 0.224, 0.225))

TORCHVISION = Layout(
    "torchvision's names", ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight"),
    torchvision_names, "fc.weight", "imagenet", {"stride_on": "3x3", "pool": "padded"},
    USUAL_MEAN, USUAL_STD,
)  # fmt: skip
AKAMASTER = Layout(
    "akamaster's names", ("conv1.weight", "bn1.weight", "linear.weight"),
    akamaster_names, "linear.weight", "cifar", {"zeros": "both"}, USUAL_MEAN, USUAL_STD,
    side=32,
)  # fmt: skip
AUTHORS = Layout(
    "the authors' Caffe layers", ("bn_conv1/0", "res2a_branch2a/0"),
    authors_names, "fc1000/0", "imagenet", {"stride_on": "1x1", "pool": "ceil"},
    # the average of the released mean image; the authors subtract and do not divide
    (123.1516, 115.9029, 103.0626), (1.0, 1.0, 1.0), "BGR", asks_mean=True,
)  # fmt: skip
OWN = Layout(
    "reslab's own names", ("stem.0.conv.weight",),
    reslab_names, "fc.weight", None, {}, None, (1.0, 1.0, 1.0), asks_mean=True,
)  # fmt: skip

LAYOUTS = (AUTHORS, AKAMASTER, TORCHVISION, OWN)  # the first whose marks a file has
