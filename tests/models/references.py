"""Names and computations of other programs, written from their sources, to judge ours."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def torchvision_shapes(depth: int, classes: int = 1000) -> Shapes:
    """Return names and shapes as in torchvision's `resnet18().state_dict()` and deeper nets."""
    bottleneck = depth > 34
    layers = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth]
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7)}
    norm(shapes, "bn1", 64)
    inplanes, expansion = 64, 4 if bottleneck else 1
    for layer, (planes, blocks) in enumerate(zip((64, 128, 256, 512), layers, strict=True), 1):
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            out = planes * expansion
            if bottleneck:
                kernels = ((planes, inplanes, 1, 1), (planes, planes, 3, 3), (out, planes, 1, 1))
            else:
                kernels = ((planes, inplanes, 3, 3), (planes, planes, 3, 3))
            for number, kernel in enumerate(kernels, 1):
                shapes[f"{at}.conv{number}.weight"] = kernel
                norm(shapes, f"{at}.bn{number}", kernel[0])
            if block == 0 and (layer > 1 or inplanes != out):
                shapes[f"{at}.downsample.0.weight"] = (out, inplanes, 1, 1)
                norm(shapes, f"{at}.downsample.1", out)
            inplanes = out
    shapes["fc.weight"], shapes["fc.bias"] = (classes, inplanes), (classes,)
    return shapes


def norm(shapes: Shapes, name: str, channels: int) -> None:
    for part in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{name}.{part}"] = (channels,)
    shapes[f"{name}.num_batches_tracked"] = ()


def torchvision_net(state: State, images: Tensor) -> Tensor:
    """Compute torchvision's `ResNet.forward` on normalised images from a state dict."""

    def conv_bn(x: Tensor, conv: str, bn: str, stride: int) -> Tensor:
        kernel = state[f"{conv}.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        statistics = (state[f"{bn}.running_mean"], state[f"{bn}.running_var"])
        return F.batch_norm(x, *statistics, state[f"{bn}.weight"], state[f"{bn}.bias"], eps=1e-5)

    x = F.max_pool2d(F.relu(conv_bn(images, "conv1", "bn1", 2)), 3, 2, padding=1)
    bottleneck = "layer1.0.conv3.weight" in state
    for layer in (1, 2, 3, 4):
        block = 0
        while f"layer{layer}.{block}.conv1.weight" in state:
            at = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            strides = (1, stride, 1) if bottleneck else (stride, 1)  # v1.5: on the 3x3
            y = x
            for number, s in enumerate(strides, 1):
                y = conv_bn(y, f"{at}.conv{number}", f"{at}.bn{number}", s)
                y = F.relu(y) if number < len(strides) else y
            if f"{at}.downsample.0.weight" in state:
                x = conv_bn(x, f"{at}.downsample.0", f"{at}.downsample.1", stride)
            x = F.relu(y + x)
            block += 1
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def authors_blocks(depth: int) -> list[str]:
    """Return the names of the blocks in ResNet-{50,101,152}-deploy.prototxt."""
    middle = {
        50: ["3a", "3b", "3c", "3d", "4a", "4b", "4c", "4d", "4e", "4f"],
        101: ["3a", "3b1", "3b2", "3b3", "4a", *(f"4b{i}" for i in range(1, 23))],
        152: ["3a", *(f"3b{i}" for i in range(1, 8)), "4a", *(f"4b{i}" for i in range(1, 36))],
    }[depth]
    return ["2a", "2b", "2c", *middle, "5a", "5b", "5c"]


def authors_convolutions(depth: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield each convolution's name, the suffix of its batch norm and scale, its blob's shape."""
    yield "conv1", "_conv1", (64, 3, 7, 7)
    inputs = 64
    for block in authors_blocks(depth):
        width = 64 * 2 ** (int(block[0]) - 2)
        if block.endswith("a"):
            yield f"res{block}_branch1", f"{block}_branch1", (4 * width, inputs, 1, 1)
        yield f"res{block}_branch2a", f"{block}_branch2a", (width, inputs, 1, 1)
        yield f"res{block}_branch2b", f"{block}_branch2b", (width, width, 3, 3)
        yield f"res{block}_branch2c", f"{block}_branch2c", (4 * width, width, 1, 1)
        inputs = 4 * width


def authors_blobs(depth: int, rng: Generator, classes: int = 7) -> State:
    """Make random blobs as in the released files; statistics are multiplied by their factor, 4."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=rng)

    blobs = {"conv1/1": uniform(-20, 20, 64)}
    for name, suffix, shape in authors_convolutions(depth):
        bound = math.sqrt(6 / math.prod(shape[1:]))
        blobs[f"{name}/0"] = uniform(-bound, bound, *shape)
        blobs[f"bn{suffix}/0"] = uniform(-1, 1, shape[0])
        blobs[f"bn{suffix}/1"] = uniform(4, 12, shape[0])
        blobs[f"bn{suffix}/2"] = torch.tensor([4.0])
        blobs[f"scale{suffix}/0"] = uniform(0.2, 0.8, shape[0])
        blobs[f"scale{suffix}/1"] = uniform(-0.5, 0.5, shape[0])
    blobs["fc1000/0"] = uniform(-0.1, 0.1, classes, 2048)
    blobs["fc1000/1"] = uniform(-1, 1, classes)
    return blobs


def authors_net(blobs: State, depth: int, bgr: Tensor) -> Tensor:
    """Compute the deploy prototxt as Caffe does, on BGR images minus their mean, in float64."""
    blobs = {name: blob.double() for name, blob in blobs.items()}

    def layer(x: Tensor, name: str, suffix: str, stride: int) -> Tensor:
        kernel, bias = blobs[f"{name}/0"], blobs.get(f"{name}/1")
        x = F.conv2d(x, kernel, bias, stride=stride, padding=kernel.shape[-1] // 2)
        factor = blobs[f"bn{suffix}/2"]
        mean, variance = blobs[f"bn{suffix}/0"] / factor, blobs[f"bn{suffix}/1"] / factor
        x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        return (
            x * blobs[f"scale{suffix}/0"][:, None, None] + blobs[f"scale{suffix}/1"][:, None, None]
        )

    x = F.max_pool2d(F.relu(layer(bgr.double(), "conv1", "_conv1", 2)), 3, 2, ceil_mode=True)
    for block in authors_blocks(depth):
        stride = 2 if block in ("3a", "4a", "5a") else 1
        at = f"{block}_branch"
        short = layer(x, f"res{at}1", f"{at}1", stride) if block.endswith("a") else x
        y = F.relu(layer(x, f"res{at}2a", f"{at}2a", stride))  # on the first 1x1
        y = F.relu(layer(y, f"res{at}2b", f"{at}2b", 1))
        x = F.relu(short + layer(y, f"res{at}2c", f"{at}2c", 1))
    return F.linear(x.mean((2, 3)), blobs["fc1000/0"], blobs["fc1000/1"])
