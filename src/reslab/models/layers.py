"""Layers of Sec. 3: convolutions with normalisation, shortcuts A to C, and initialisation."""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from reslab.models.config import Zeros
from reslab.models.parts import BatchNorm, GroupNorm, NoisyBatchNorm, NoNorm, Norm
from reslab.models.random_layers import ChannelNoise

FAULTY_BELOW = 8  # input channels: an AVX2 register holds 8 numbers

Net = TypeVar("Net", bound=nn.Module)


class Conv(nn.Conv2d):
    """A convolution with uninitialised weights, set later by `build_resnet` or from a file.

    torch would draw weights from the global generator, only to have them replaced.
    """

    def reset_parameters(self) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if self.would_corrupt(input):
            return F.conv2d(F.avg_pool2d(input, 1, self.stride), self.weight, self.bias)
        return super().forward(input)

    def would_corrupt(self, x: Tensor) -> bool:
        """Return whether the backward pass of torch's kernel may write outside its memory.

        In torch 2.13, oneDNN's fp32 kernels for AVX2 do this for 1x1 convolutions with stride 2
        and few input channels (docs/log.md, 2026-11-26). `forward` then subsamples the pixels
        first, on every processor, so that tests on any machine cover this path.
        """
        return (
            self.in_channels < FAULTY_BELOW
            and self.kernel_size == (1, 1)
            and self.stride == (2, 2)
            and x.is_cpu
            and self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")  # autocast computes in bf16
        )


def unset_linear(inputs: int, outputs: int) -> nn.Linear:
    """Build a linear layer with uninitialised weights, for the same reason as `Conv`."""
    linear = nn.Linear(inputs, outputs, device="meta")
    # to_empty would do this too, but imports sympy, which takes a second
    linear.weight = nn.Parameter(torch.empty(outputs, inputs))
    linear.bias = nn.Parameter(torch.empty(outputs))
    return linear


class ConvBN(nn.Module):
    """A convolution followed by batch norm (Sec. 3.4) or another `norm`, before any ReLU.

    [B, c_in, H, W] -> [B, c_out, ceil(H / stride), ceil(W / stride)]
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, norm: Norm = BatchNorm()
    ) -> None:
        super().__init__()
        bias = isinstance(norm, NoNorm)
        self.conv = Conv(c_in, c_out, kernel, stride, padding=kernel // 2, bias=bias)
        self.norm = build_norm(norm, c_out)
        self.noise = ChannelNoise(c_out, norm) if isinstance(norm, NoisyBatchNorm) else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return x if self.noise is None else self.noise(x)


def build_norm(norm: Norm, channels: int) -> nn.Module:
    """Build the layer that normalises the output of a convolution; `ConvBN` adds any noise."""
    if isinstance(norm, GroupNorm):
        return nn.GroupNorm(norm.groups, channels)
    return nn.Identity() if isinstance(norm, NoNorm) else nn.BatchNorm2d(channels)


class Projection(nn.Module):
    """The 1x1 convolution W_s of Eqn. 2, with batch norm (options B and C) or another `norm`."""

    def __init__(self, c_in: int, c_out: int, stride: int, norm: Norm = BatchNorm()) -> None:
        super().__init__()
        self.map = ConvBN(c_in, c_out, 1, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)


class ZeroPadding(nn.Module):
    """Option A: take every `stride`-th pixel, with zeros for the new channels (Sec. 3.3).

    [B, c_in, H, W] -> [B, c_out, ceil(H / stride), ceil(W / stride)]; has no parameters
    """

    def __init__(self, c_in: int, c_out: int, stride: int, zeros: Zeros) -> None:
        super().__init__()
        before = (c_out - c_in) // 2 if zeros == "both" else 0
        self.padding = (0, 0, 0, 0, before, c_out - c_in - before)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        # pooling over one pixel equals x[:, :, ::stride, ::stride], but keeps the gradient
        # channels-last like all others in the net
        return F.pad(F.avg_pool2d(x, 1, self.stride), self.padding)


def he_normal(conv: nn.Conv2d, rng: Generator) -> None:
    """Initialise with He's normal distribution (the paper's reference [13]), in fan-in mode.

    A bias, if there is one, is set to zero.
    """
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu", generator=rng)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def uniform_classifier(fc: nn.Linear, rng: Generator) -> None:
    """Initialise with torch's default for a linear layer; the paper does not specify one."""
    bound = fc.in_features**-0.5
    nn.init.uniform_(fc.weight, -bound, bound, generator=rng)
    if fc.bias is not None:
        nn.init.uniform_(fc.bias, -bound, bound, generator=rng)


def channels_last(net: Net) -> Net:
    """Convert a network to channels-last, the fastest memory format on CPUs and GPUs."""
    return net.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
