"""The networks that reslab is compared with, as users write them: eager torch, channels first.

They share no code with reslab, and take the weights of its networks, so that both compute the same
function and the results can be compared.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class PaddedShortcut(nn.Module):
    """Option A as it is usually written: a strided slice, padded with channels of zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.channels))


class PlainBlock(nn.Module):
    """Two 3x3 convolutions, or the three of a bottleneck, with their shortcut."""

    def __init__(self, sizes: list[int], kernels: list[int], stride: int, option: str) -> None:
        super().__init__()
        strides = [stride, *[1] * (len(kernels) - 1)]
        layers = zip(sizes, sizes[1:], kernels, strides, strict=False)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, k, s, k // 2, bias=False), nn.BatchNorm2d(b))
            for a, b, k, s in layers
        )
        self.shortcut = nn.Sequential()
        c_in, c_out = sizes[0], sizes[-1]
        if c_in != c_out and option == "A":
            self.shortcut = PaddedShortcut(c_out - c_in)
        elif c_in != c_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for index, layer in enumerate(self.layers):
            out = layer(F.relu(out) if index else out)
        out += self.shortcut(x)
        return F.relu(out)


class PlainResNet(nn.Module):
    """A residual network; [B, 3, H, W] -> [B, classes]."""

    def __init__(self, stem: nn.Sequential, blocks: list[PlainBlock], fc: nn.Linear) -> None:
        super().__init__()
        self.stem, self.blocks, self.fc = stem, nn.Sequential(*blocks), fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))


def plain_cifar(depth: int) -> PlainResNet:
    """Build a 6n+2 network for CIFAR-10 (Sec. 4.2), option A."""
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    blocks, c_in = [], 16
    for width in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            stride = 1 if c_in == width else 2
            blocks.append(PlainBlock([c_in, width, width], [3, 3], stride, "A"))
            c_in = width
    return PlainResNet(stem, blocks, nn.Linear(64, 10))


def plain_resnet50() -> PlainResNet:
    """Build ResNet-50 (Table 1), option B."""
    stem = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    )  # fmt: skip
    blocks, c_in = [], 64
    for width, count in zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True):
        for index in range(count):
            stride = 2 if index == 0 and width > 64 else 1
            sizes = [c_in, width, width, 4 * width]
            blocks.append(PlainBlock(sizes, [1, 3, 1], stride, "B"))
            c_in = 4 * width
    return PlainResNet(stem, blocks, nn.Linear(2048, 1000))


def with_weights_of(net: nn.Module, plain: PlainResNet) -> PlainResNet:
    """Copy the weights and statistics of reslab's network, which has the same layers in order."""
    ours, theirs = net.state_dict().values(), plain.state_dict()
    plain.load_state_dict(dict(zip(theirs, ours, strict=True)))
    return plain
