"""Tensor names of residual nets in other programs, and the settings that these names imply.

Names correspond one to one, so import and export use the same tables.
"""

import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

from torch import Tensor

from reslab.models.config import IMAGENET_WIDTHS, OPTIONS, ResNetConfig
from reslab.models.layers import ConvBN, Projection
from reslab.models.model_file import Model
from reslab.models.parts import BatchNorm, NoisyBatchNorm
from reslab.models.preprocessing import Channels
from reslab.models.resnet import Block, ResNet

NameMap = dict[str, str]  # ours -> theirs
Value = TypeVar("Value")
Colour = tuple[float, float, float]  # RGB from 0 to 255

# a batch norm's tensors under torch's names; the last one, a count, is missing in some files
BATCH_COUNT = "num_batches_tracked"
NORM_TENSORS = ("weight", "bias", "running_mean", "running_var", BATCH_COUNT)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A naming scheme, and the settings of the networks that use it."""

    title: str
    marks: tuple[str, ...]  # names by which a file of this layout is recognised
    absent: tuple[str, ...] = ()  # names that files of this layout do not have
    trunk: str  # a regular expression for the start of all names but the classifier's
    names: Callable[[ResNet], NameMap]  # all names but the classifier's, which vary
    stem: Literal["imagenet", "cifar"] | None  # the stem of its networks; None: either
    overrides: Mapping[str, str]  # fields of the configuration
    mean: Colour | None  # None: the user gives a file with the mean
    std: Colour = (1.0, 1.0, 1.0)
    channels: Channels = "RGB"
    asks_mean: bool = False  # whether the user may give a mean, in the order of `channels`
    side: int | None = None  # image side for its CIFAR nets, if known


def block_convs(net: ResNet) -> Iterator[tuple[str, int, int, int | None]]:
    """Yield each block convolution as (our name of its ConvBN, stage, block, convolution).

    The last three are indices; a convolution of None stands for the block's projection.
    """
    for name, block in net.named_modules():
        if not isinstance(block, Block):
            continue
        stage, number = map(int, name.removeprefix("stages.").split("."))
        convs = [index for index, part in enumerate(block.body) if isinstance(part, ConvBN)]
        for conv, index in enumerate(convs):
            yield f"{name}.body.{index}", stage, number, conv
        if isinstance(block.shortcut, Projection):
            yield f"{name}.shortcut.map", stage, number, None


def torch_names(net: ResNet, projection: str = "downsample") -> NameMap:
    """Map our names to torchvision-style names: conv1, bn1, layer1.0.conv1, ...

    Libraries with this style differ in their names for projection shortcuts.
    """
    names = conv_and_norm("stem.0", "conv1", "bn1")
    for name, stage, number, conv in block_convs(net):
        block = f"layer{stage + 1}.{number}"
        if conv is None:
            theirs = f"{block}.{projection}.0", f"{block}.{projection}.1"
        else:
            theirs = f"{block}.conv{conv + 1}", f"{block}.bn{conv + 1}"
        names |= conv_and_norm(name, *theirs)
    return names


def sequence_names(net: ResNet) -> NameMap:
    """Map our names to those of `nn.Sequential(*children)` of a torchvision net: 0, 1, 4.0.conv1.

    The numbers 2 and 3 are the ReLU and the pooling, which have no weights.
    """
    numbers = {
        "conv1": "0",
        "bn1": "1",
        **{f"layer{stage}": f"{stage + 3}" for stage in range(1, 5)},
    }
    parts = {ours: theirs.partition(".") for ours, theirs in torch_names(net).items()}
    return {ours: f"{numbers[first]}.{rest}" for ours, (first, _, rest) in parts.items()}


def hugging_face_names(net: ResNet) -> NameMap:
    """Map our names to those of Hugging Face's `ResNetModel`."""
    names = convolution_layer("stem.0", "embedder.embedder")
    for name, stage, number, conv in block_convs(net):
        part = "shortcut" if conv is None else f"layer.{conv}"
        names |= convolution_layer(name, f"encoder.stages.{stage}.layers.{number}.{part}")
    return names


def convolution_layer(ours: str, theirs: str) -> NameMap:
    """Map the tensor names of a convolution and its batch norm in Hugging Face's layers."""
    return conv_and_norm(ours, f"{theirs}.convolution", f"{theirs}.normalization")


def conv_and_norm(ours: str, conv: str, norm: str) -> NameMap:
    """Map the tensor names of a convolution and its batch norm."""
    names = {f"{ours}.norm.{part}": f"{norm}.{part}" for part in NORM_TENSORS}
    return {f"{ours}.conv.weight": f"{conv}.weight"} | names


def reslab_names(net: ResNet) -> NameMap:
    """Map our own names to themselves, for a file with only the weights of a model file."""
    return {name: name for name in net.state_dict() if not name.startswith("fc.")}


def authors_names(net: ResNet) -> NameMap:
    """Map our names to layers of the released prototxts and blob numbers: `res2a_branch2a/0`.

    These are the blobs that `authors_tensors` returns.
    """
    names = caffe_layer("stem.0", "conv1", "_conv1")
    for name, stage, number, conv in block_convs(net):
        branch = "1" if conv is None else f"2{string.ascii_lowercase[conv]}"
        suffix = f"{stage + 2}{authors_block(net.config, stage, number)}_branch{branch}"
        names |= caffe_layer(name, f"res{suffix}", suffix)
    return names


def caffe_layer(ours: str, conv: str, suffix: str) -> NameMap:
    """Map the tensor names of a convolution and its batch norm.

    In Caffe, a batch norm is two layers, bn and scale, whose names end with `suffix`.
    """
    return {
        f"{ours}.conv.weight": f"{conv}/0",
        f"{ours}.norm.weight": f"scale{suffix}/0",
        f"{ours}.norm.bias": f"scale{suffix}/1",
        f"{ours}.norm.running_mean": f"bn{suffix}/0",
        f"{ours}.norm.running_var": f"bn{suffix}/1",
    }


def authors_block(config: ResNetConfig, stage: int, block: int) -> str:
    """Return a block's name: a, b, c, ..., or a, b1, b2, ... in conv3_x, conv4_x of deep nets."""
    if config.depth > 50 and stage in (1, 2) and block:
        return f"b{block}"
    return string.ascii_lowercase[block]


def with_slashes(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Rename blobs to `layer/0`, whatever separates layer and number."""
    return {re.sub(r"[/_.](\d)$", r"/\1", name): tensor for name, tensor in tensors.items()}


def authors_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the released blobs to the tensors of torch's batch norm.

    A batch norm's third blob is the divisor of its summed means and variances. A convolution's
    bias, which only the first one in ResNet-50 has, is subtracted from the mean:
    (x + b) - m = x - (m - b).
    """
    blobs = dict(tensors)
    for first in [name for name in blobs if re.fullmatch(r"bn.+/0", name)]:
        norm = first.removesuffix("/0")
        factor = blobs.pop(f"{norm}/2", None)
        if factor is None or factor.numel() != 1 or f"{norm}/1" not in blobs:
            raise ValueError(
                f"{norm} must have three blobs: mean, variance and their common factor"
            )
        scale = 0.0 if factor.item() == 0 else 1 / factor.item()  # as Caffe does
        blobs[first], blobs[f"{norm}/1"] = blobs[first] * scale, blobs[f"{norm}/1"] * scale
        layer = "conv1" if norm == "bn_conv1" else f"res{norm.removeprefix('bn')}"
        bias = blobs.pop(f"{layer}/1", None)
        if bias is not None:
            blobs[first] = blobs[first] - bias
    return blobs


TORCH_TRUNK = r"(conv|bn|layer)\d"
# normalisation in torchvision's references and akamaster's trainer.py
USUAL_MEAN = (255 * 0.485, 255 * 0.456, 255 * 0.406)
USUAL_STD = (255 * 0.229, 255 * 0.224, 255 * 0.225)

TORCHVISION = Layout(  # and timm, MMPretrain's backbone
    title="torchvision's names",
    marks=("layer1.0.conv1.weight",),
    trunk=TORCH_TRUNK,
    names=torch_names,
    stem="imagenet",
    overrides={"stride_on": "3x3", "pool": "padded"},
    mean=USUAL_MEAN,
    std=USUAL_STD,
)
SEQUENCE = replace(
    TORCHVISION,
    title="torchvision's layers by number",
    marks=("0.weight", "4.0.conv1.weight"),
    trunk=r"[0-7]\.",
    names=sequence_names,
)
HUGGING_FACE = replace(
    TORCHVISION,
    title="Hugging Face's names",
    marks=("encoder.stages.0.layers.0.layer.0.convolution.weight",),
    trunk=r"(embedder|encoder)\.",
    names=hugging_face_names,
)
AKAMASTER = Layout(  # github.com/akamaster/pytorch_resnet_cifar10
    title="akamaster's names",
    marks=("layer1.0.conv1.weight", "linear.weight"),
    absent=("layer4.0.conv1.weight",),
    trunk=TORCH_TRUNK,
    names=partial(torch_names, projection="shortcut"),
    stem="cifar",
    overrides={"zeros": "both"},
    mean=USUAL_MEAN,
    std=USUAL_STD,
    side=32,
)
AUTHORS = Layout(
    title="the authors' Caffe layers",
    marks=("bn_conv1/0", "res2a_branch2a/0"),
    trunk=r"(conv1|bn|res|scale)",
    names=authors_names,
    stem="imagenet",
    overrides={"stride_on": "1x1", "pool": "ceil"},
    # the average of the released mean image; the authors subtract and do not divide
    mean=(123.1516, 115.9029, 103.0626),
    channels="BGR",
    asks_mean=True,
)
OWN = Layout(
    title="reslab's own names",
    marks=("stem.0.conv.weight",),
    trunk=r"(stem|stages)\.",
    names=reslab_names,
    stem=None,
    overrides={},
    mean=None,
    asks_mean=True,
)

# in the order in which a file is matched
LAYOUTS = (AUTHORS, AKAMASTER, TORCHVISION, SEQUENCE, HUGGING_FACE, OWN)


def torchvision_state(model: Model) -> dict[str, Tensor]:
    """Return a state dict that torchvision's and timm's models load with `strict=True`.

    The first convolution of a net trained on BGR images is flipped, so that it takes RGB. Raises
    ValueError if torchvision's code would compute another function with these weights.
    """
    config = model.config
    if reason := torchvision_obstacle(config):
        raise ValueError(f"torchvision has no such net: {reason}")
    weights = model.net.state_dict()
    names = TORCHVISION.names(model.resnet) | {
        f"fc.{part}": f"fc.{part}" for part in ("weight", "bias")
    }
    state = {theirs: weights[ours].detach().cpu().contiguous() for ours, theirs in names.items()}
    if model.preprocessing.channels == "BGR":
        state["conv1.weight"] = state["conv1.weight"].flip(1)
    return state


def torchvision_obstacle(config: ResNetConfig) -> str:
    """Return why torchvision would compute another function with these weights, or ""."""
    if config.stem != "imagenet":
        return "its nets start with a 7x7 convolution and pooling, but this one is a CIFAR net"
    if config.widths != IMAGENET_WIDTHS:
        return f"its widths are {list(IMAGENET_WIDTHS)}, but this one's are {list(config.widths)}"
    if config.option != "B":
        kind = f"option {config.option}" if config.option in OPTIONS else config.option or "none"
        return f"its shortcuts are option B, but this one's are {kind}"
    for norm in config.norms:
        if not isinstance(norm, BatchNorm | NoisyBatchNorm):
            return f"its convolutions have batch norm, but this one's norm is {norm.kind!r}"
    if config.block == "bottleneck" and config.stride_on == "1x1":
        return "its bottlenecks stride on the 3x3, but this one's on the 1x1 (model.stride_on)"
    if config.pool == "ceil":
        return "its first pooling is padded, but this one's is not (model.pool): off by one pixel"
    return ""
