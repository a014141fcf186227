"""The parts of Sec. 3: convolution with batch norm, the shortcuts A, B, C, and initialisation."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from reslab.models.config import Zeros

FAULTY_BELOW = 8  # input channels: what an AVX2 register holds


class Conv(nn.Conv2d):
    """A convolution whose weights are left unset: `build_resnet` or a file sets them.

    torch would draw them from the global generator, only for them to be replaced.
    """

    def reset_parameters(self) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if self.would_corrupt(input):
            return F.conv2d(F.avg_pool2d(input, 1, self.stride), self.weight, self.bias)
        return super().forward(input)

    def would_corrupt(self, x: Tensor) -> bool:
        """Tell whether the backward pass of torch's own form may write past its memory.

        With torch 2.13 oneDNN's fp32 kernels for AVX2 do, where a 1x1 convolution takes every
        second pixel of an image of few channels (docs/log.md, 2026-11-26). The pixels are then
        taken first, on whatever processor, so that a test of any machine is a test of this form.
        """
        return (
            self.in_channels < FAULTY_BELOW
            and self.kernel_size == (1, 1)
            and self.stride == (2, 2)
            and x.is_cpu
            and self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")  # it would compute in bf16
        )


class Classifier(nn.Linear):
    """The linear layer, its weights left unset for the same reason."""

    def reset_parameters(self) -> None:
        pass


class ConvBN(nn.Module):
    """A convolution and its batch norm, before any other non-linearity (Sec. 3.4).

    [B, c_in, H, W] -> [B, c_out, ceil(H / stride), ceil(W / stride)]
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = Conv(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Projection(nn.Module):
    """The 1x1 convolution W_s of Eqn. 2, with batch norm (options B and C)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.map = ConvBN(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)


class ZeroPadding(nn.Module):
    """Option A: every `stride`-th pixel, and zeros for the channels that are new (Sec. 3.3).

    [B, c_in, H, W] -> [B, c_out, ceil(H / stride), ceil(W / stride)], without a parameter
    """

    def __init__(self, c_in: int, c_out: int, stride: int, zeros: Zeros) -> None:
        super().__init__()
        before = (c_out - c_in) // 2 if zeros == "both" else 0
        self.padding = (0, 0, 0, 0, before, c_out - c_in - before)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        # pooling over one pixel is x[:, :, ::stride, ::stride], but its gradient stays
        # channels-last, as all others of the net
        return F.pad(F.avg_pool2d(x, 1, self.stride), self.padding)


def he_normal(conv: nn.Conv2d, rng: Generator) -> None:
    """Initialise as in the paper's reference [13], the fan counted over the inputs."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu", generator=rng)


def uniform_classifier(fc: nn.Linear, rng: Generator) -> None:
    """torch's default for a linear layer; the paper does not name one."""
    bound = fc.in_features**-0.5
    nn.init.uniform_(fc.weight, -bound, bound, generator=rng)
    nn.init.uniform_(fc.bias, -bound, bound, generator=rng)
