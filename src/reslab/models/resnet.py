"""One network for the whole paper: plain and residual, ImageNet (Table 1) and CIFAR (Sec. 4.2)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from reslab.models.config import BlockPlace, ResNetConfig
from reslab.models.layers import (
    ConvBN,
    Projection,
    ZeroPadding,
    he_normal,
    uniform_classifier,
    unset_linear,
)
from reslab.models.random_layers import Dropout, StochasticDepth
from reslab.models.recompute import recomputed_in_groups


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


def build_body(config: ResNetConfig, place: BlockPlace) -> nn.Sequential:
    """Build F(x): two 3x3 convolutions, or the three of a bottleneck (Fig. 5).

    Random layers are placed so that the names of the weights do not depend on them.
    """
    c_in, width, norm = place.c_in, place.width, place.norm
    before_last = nn.Sequential(nn.ReLU(), Dropout(config.dropout)) if config.dropout else nn.ReLU()
    if config.block == "basic":
        layers = [
            ConvBN(c_in, width, 3, place.stride, norm),
            before_last,
            ConvBN(width, width, 3, norm=norm),
        ]
    else:
        first, second = (place.stride, 1) if config.stride_on == "1x1" else (1, place.stride)
        layers = [
            ConvBN(c_in, width, 1, first, norm),
            nn.ReLU(),
            ConvBN(width, width, 3, second, norm),
            before_last,
            ConvBN(width, place.c_out, 1, norm=norm),
        ]
    return nn.Sequential(
        *layers, *([StochasticDepth(place.survival)] if place.survival < 1 else [])
    )


def build_shortcut(config: ResNetConfig, place: BlockPlace) -> nn.Module | None:
    """Build one block's shortcut for option A, B or C (Sec. 4.1); return None for a plain block."""
    if place.shortcut is None:
        return None
    if place.projects:
        return Projection(place.c_in, place.c_out, place.stride, place.norm)
    if place.grows:
        return ZeroPadding(place.c_in, place.c_out, place.stride, config.zeros)
    return nn.Identity()


def build_block(config: ResNetConfig, place: BlockPlace) -> Block:
    """Build the paper's block, with uninitialised convolutions, for one place in the network."""
    return Block(build_body(config, place), build_shortcut(config, place))


# Build the block for one place, [B, c_in, H, W] -> [B, c_out, ceil(H / stride), ceil(W / stride)]
BlockBuilder = Callable[[ResNetConfig, BlockPlace], nn.Module]


class ResNet(nn.Module):
    """Stem, stages of blocks, global average pooling and a linear classifier; uninitialised.

    [B, 3, H, W] -> [B, classes], for any H and W large enough for the last feature map
    """

    def __init__(self, config: ResNetConfig, block: BlockBuilder = build_block) -> None:
        super().__init__()
        self.config = config
        self.recompute = False  # compute blocks again in the backward pass, to save memory
        places = config.places()
        first, norm = config.widths[0], places[0].norm
        if config.stem == "imagenet":
            # the authors' pooling has no padding, and its last window may extend past the edge
            unpadded = config.pool == "ceil"
            pool = nn.MaxPool2d(3, stride=2, padding=0 if unpadded else 1, ceil_mode=unpadded)
            self.stem = nn.Sequential(ConvBN(3, first, 7, 2, norm), nn.ReLU(), pool)
        else:
            self.stem = nn.Sequential(ConvBN(3, first, 3, norm=norm), nn.ReLU())
        stages: list[list[nn.Module]] = [[] for _ in config.blocks]
        for place in places:
            stages[place.stage].append(block(config, place))
        self.stages = nn.Sequential(*(nn.Sequential(*blocks) for blocks in stages))
        self.fc = unset_linear(places[-1].c_out, config.classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the last feature map, before pooling, [B, 3, H, W] -> [B, C, h, w]."""
        x = self.stem(images)
        if not (self.recompute and x.requires_grad):
            return self.stages(x)
        for stage in self.stages:
            assert isinstance(stage, nn.Sequential)
            x = recomputed_in_groups(stage, x)
        return x

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        # over the whole map; torch's adaptive pooling would make the gradients channels-first
        pooled = F.avg_pool2d(features, features.shape[-2:])
        return self.fc(pooled.flatten(1))

    def dense(self, images: Tensor, window: int) -> Tensor:
        """Apply the network fully convolutionally (Sec. 3.4).

        A pooling window of side `window` slides with stride 1, and the classifier is a 1x1
        convolution.

        [B, 3, H, W] -> [B, classes, h, w], h = map_side(H) - window + 1
        """
        pooled = F.avg_pool2d(self.features(images), window, stride=1)
        return F.conv2d(pooled, self.fc.weight[:, :, None, None], self.fc.bias)


def build_resnet(
    config: ResNetConfig, rng: Generator | None = None, *, block: BlockBuilder = build_block
) -> ResNet:
    """Build a network on the CPU, with weights drawn from `rng` (default: seed 0).

    `block` builds the block for each place in the network; by default, the paper's. All
    convolutions and linear layers are initialised here, including those inside the blocks.
    """
    rng = rng or torch.Generator().manual_seed(0)
    net = ResNet(config, block)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            he_normal(module, rng)
        elif isinstance(module, nn.Linear):
            uniform_classifier(module, rng)
    return net
