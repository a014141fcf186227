"""One network for the whole paper: plain and residual, ImageNet (Table 1) and CIFAR (Sec. 4.2)."""

import warnings

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from reslab.models.config import EXPANSION, ResNetConfig
from reslab.models.layers import (
    ConvBN,
    Projection,
    ZeroPadding,
    he_normal,
    uniform_classifier,
    unset_linear,
)

SMALLEST_MAP = 4  # pixels on a side; below it `forward` warns


class Block(nn.Module):
    """A building block, y = ReLU(F(x) + shortcut(x)) (Eqn. 1, 2); `shortcut=None` is a plain block.

    [B, c_in, H, W] -> [B, c_out, ceil(H / stride), ceil(W / stride)]
    """

    def __init__(self, body: nn.Sequential, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.relu(y)


def basic_body(c_in: int, width: int, stride: int) -> nn.Sequential:
    """Build the two 3x3 convolutions of a basic block (Fig. 5 left)."""
    return nn.Sequential(ConvBN(c_in, width, 3, stride), nn.ReLU(), ConvBN(width, width, 3))


def bottleneck_body(c_in: int, width: int, stride: int, stride_on: str) -> nn.Sequential:
    """Build the 1x1, 3x3 and 1x1 convolutions of a bottleneck (Fig. 5 right)."""
    first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
    return nn.Sequential(
        ConvBN(c_in, width, 1, first),
        nn.ReLU(),
        ConvBN(width, width, 3, second),
        nn.ReLU(),
        ConvBN(width, EXPANSION["bottleneck"] * width, 1),
    )


def build_shortcut(config: ResNetConfig, c_in: int, c_out: int, stride: int) -> nn.Module | None:
    """Build one block's shortcut for option A, B or C (Sec. 4.1); return None for a plain net."""
    grows = c_in != c_out or stride > 1
    if config.shortcut is None:
        return None
    if config.projects(grows=grows):
        return Projection(c_in, c_out, stride)
    if grows:
        return ZeroPadding(c_in, c_out, stride, config.zeros)
    return nn.Identity()


class ResNet(nn.Module):
    """Stem, stages of blocks, global average pooling and a linear classifier; uninitialised.

    [B, 3, H, W] -> [B, classes], for any H and W large enough for the last feature map
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        first = config.widths[0]
        if config.stem == "imagenet":
            # the authors' pooling has no padding, and its last window may extend past the edge
            unpadded = config.pool == "ceil"
            pool = nn.MaxPool2d(3, stride=2, padding=0 if unpadded else 1, ceil_mode=unpadded)
            self.stem = nn.Sequential(ConvBN(3, first, 7, stride=2), nn.ReLU(), pool)
        else:
            self.stem = nn.Sequential(ConvBN(3, first, 3), nn.ReLU())
        stages, c_in = [], first
        for index, (count, width) in enumerate(zip(config.blocks, config.widths, strict=True)):
            stages.append(build_stage(config, c_in, width, count, stride=1 if index == 0 else 2))
            c_in = EXPANSION[config.block] * width
        self.stages = nn.Sequential(*stages)
        self.fc = unset_linear(c_in, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stages(self.stem(images))
        if min(features.shape[-2:]) < SMALLEST_MAP:
            warn_small_map(images, features)
        # over the whole map; torch's adaptive pooling would make the gradients channels-first
        pooled = F.avg_pool2d(features, features.shape[-2:])
        return self.fc(pooled.flatten(1))

    def dense(self, images: Tensor, window: int) -> Tensor:
        """Apply the network fully convolutionally (Sec. 3.4).

        A pooling window of side `window` slides with stride 1, and the classifier is a 1x1
        convolution.

        [B, 3, H, W] -> [B, classes, h, w], h = map_side(H) - window + 1
        """
        features = self.stages(self.stem(images))
        pooled = F.avg_pool2d(features, window, stride=1)
        return F.conv2d(pooled, self.fc.weight[:, :, None, None], self.fc.bias)


def build_stage(
    config: ResNetConfig, c_in: int, width: int, count: int, stride: int
) -> nn.Sequential:
    """Build `count` blocks with the same output size; only the first one has the stride."""
    blocks = []
    for _ in range(count):
        if config.block == "basic":
            body = basic_body(c_in, width, stride)
        else:
            body = bottleneck_body(c_in, width, stride, config.stride_on)
        c_out = EXPANSION[config.block] * width
        blocks.append(Block(body, build_shortcut(config, c_in, c_out, stride)))
        c_in, stride = c_out, 1
    return nn.Sequential(*blocks)


def warn_small_map(images: Tensor, features: Tensor) -> None:
    """Warn that the last feature map is too small, as for CIFAR images after an ImageNet stem."""
    height, width = features.shape[-2:]
    warnings.warn(
        f"images of {images.shape[-2]}x{images.shape[-1]} leave a feature map of "
        f"{height}x{width} before pooling; for images this small use a CIFAR net (Sec. 4.2)",
        stacklevel=3,
    )


def build_resnet(config: ResNetConfig, rng: Generator | None = None) -> ResNet:
    """Build the network of `config` on the CPU, with weights drawn from `rng` (default: seed 0)."""
    rng = rng or torch.Generator().manual_seed(0)
    net = ResNet(config)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            he_normal(module, rng)
        elif isinstance(module, nn.Linear):
            uniform_classifier(module, rng)
    return net
