"""Layers that are random when training: stochastic depth, dropout, and noise after batch norm.

Their random numbers are passed in, so that a training step depends only on its draws:

    numbers = draw_numbers(net, len(images), rng)
    with numbers_for(net, numbers):
        logits = net(images)

In evaluation mode these layers are the identity and need no numbers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn

from reslab.models.parts import NoisyBatchNorm

KEYS = 2**32  # a dropout key is a 32-bit integer
LOW_BITS = KEYS - 1
MULTIPLIER = 0x45D9F3B  # below 2**31: its product with a 32-bit integer fits in an int64


class StochasticDepth(nn.Module):
    """Drop the residual function F(x) in some training iterations (arXiv 1603.09382).

    When it is kept, F(x) is divided by the survival probability, so nothing needs scaling at test
    time; the authors instead multiply by the probability at test time. One decision is made for the
    whole mini-batch. [B, ...] -> [B, ...]
    """

    def __init__(self, survival: float) -> None:
        super().__init__()
        self.survival = survival
        self.numbers: Tensor | None = None

    def draw(self, count: int, rng: Generator) -> Tensor:
        """Draw the decision, 1 to keep and 0 to drop, and repeat it for each image; [count]."""
        return (torch.rand((), generator=rng) < self.survival).float().repeat(count)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = numbers_of(self, self.numbers, x).to(x.dtype)
        return x * per_image(kept, x) * (1 / self.survival)


class Dropout(nn.Module):
    """Set a fraction `rate` of the values to zero when training, and divide the others by 1 - rate.

    [B, ...] -> [B, ...]. The mask is a hash of the image's key and the position of each value, in
    integer arithmetic, so it is the same on every device.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.numbers: Tensor | None = None

    def draw(self, count: int, rng: Generator) -> Tensor:
        """Draw one key per image, int64 [count] below 2**32."""
        return torch.randint(KEYS, (count,), generator=rng)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keys = numbers_of(self, self.numbers, x)
        return x * kept_values(keys, x, self.rate).to(x.dtype) * (1 / (1 - self.rate))


class ChannelNoise(nn.Module):
    """Scale and shift each channel of each image at random when training.

    [B, C, H, W] -> [B, C, H, W]; see `NoisyBatchNorm` for the source
    """

    def __init__(self, channels: int, noise: NoisyBatchNorm) -> None:
        super().__init__()
        self.channels, self.noise = channels, noise
        self.numbers: Tensor | None = None

    def draw(self, count: int, rng: Generator) -> Tensor:
        """Draw scales and shifts, [count, 2, channels]."""
        noise = self.noise
        centres = torch.rand(2, self.channels, generator=rng)
        sigma = 1 + (noise.scale - 1) * centres[0]
        mu = noise.shift * (2 * centres[1] - 1)
        scale = sigma + noise.scale_spread * torch.randn(count, self.channels, generator=rng)
        around = 2 * torch.rand(count, self.channels, generator=rng) - 1
        return torch.stack([scale, mu + noise.shift_spread * around], 1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        scale, shift = numbers_of(self, self.numbers, x).to(x.dtype)[..., None, None].unbind(1)
        return x * scale + shift


RandomLayer = StochasticDepth | Dropout | ChannelNoise


def random_layers(net: nn.Module) -> list[RandomLayer]:
    """Return the random layers of any network, in the order of its modules."""
    return [module for module in net.modules() if isinstance(module, RandomLayer)]


def draw_numbers(net: nn.Module, count: int, rng: Generator) -> tuple[Tensor, ...]:
    """Draw the random numbers for a mini-batch of `count` images, on the CPU.

    Return one tensor [count, ...] per random layer. A part of the mini-batch takes a slice of each.
    """
    return tuple(layer.draw(count, rng) for layer in random_layers(net))


@contextmanager
def numbers_for(net: nn.Module, numbers: Sequence[Tensor | None]) -> Iterator[None]:
    """Return a context in which the random layers of `net` use these numbers in training mode.

    Raise ValueError if there is not one tensor per layer.
    """
    layers = random_layers(net)
    if len(layers) != len(numbers):
        raise ValueError(
            f"{len(numbers)} tensors of random numbers for {len(layers)} random layers: draw them "
            "with draw_numbers(net, len(images), rng)"
        )
    for layer, drawn in zip(layers, numbers, strict=True):
        layer.numbers = drawn
    try:
        yield
    finally:
        for layer in layers:
            layer.numbers = None


def switch_off(net: nn.Module) -> None:
    """Set only the random layers to evaluation mode, in which they are the identity."""
    for layer in random_layers(net):
        layer.eval()


def numbers_of(layer: RandomLayer, numbers: Tensor | None, x: Tensor) -> Tensor:
    """Return a layer's numbers on the device of `x`; raise ValueError if any are missing."""
    kind = type(layer).__name__
    if numbers is None:
        raise ValueError(
            f"{kind} needs random numbers in training mode: `with numbers_for(net, "
            "draw_numbers(net, len(images), rng)): net(images)`, or net.eval()"
        )
    if len(numbers) != len(x):
        raise ValueError(f"{kind} has random numbers for {len(numbers)} images, not for {len(x)}")
    return numbers.to(x.device)


def per_image(numbers: Tensor, x: Tensor) -> Tensor:
    """Reshape one number per image, [B], so that it is broadcast over the values of `x`."""
    return numbers.view(-1, *(1,) * (x.ndim - 1))


def kept_values(keys: Tensor, x: Tensor, rate: float) -> Tensor:
    """Return a mask of the values in `x` that dropout keeps, given one key per image."""
    # numbered with the channels last, as `x` is stored
    channels, *sides = x.shape[1:]
    positions = torch.arange(x[0].numel(), device=x.device).view(*sides, channels)
    mixed = scramble(positions).movedim(-1, 0)
    return scramble(mixed ^ per_image(keys, x)) >= round(rate * KEYS)


def scramble(numbers: Tensor) -> Tensor:
    """Hash 32-bit integers, stored in int64, to 32-bit integers; a bijection."""
    for _ in range(2):
        numbers = (numbers ^ (numbers >> 16)) * MULTIPLIER & LOW_BITS
    return numbers ^ (numbers >> 16)
