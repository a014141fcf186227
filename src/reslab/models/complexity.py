"""Depth, parameters and multiply-adds of a network, counted from its configuration."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from reslab.models.config import EXPANSION, ResNetConfig

INPUT = {"imagenet": 224, "cifar": 32}  # pixels on a side


@dataclass(frozen=True)
class Complexity:
    """The figures for a network in Tables 1 and 6."""

    name: str
    depth: int  # weighted layers, without projections, as the paper counts
    parameters: int  # learnable ones, without batch norm's statistics
    multiply_adds: int  # of convolutions and the classifier, the paper's "FLOPs"


# (kernel, c_in, c_out, side of the output); every convolution is followed by batch norm
Convolution = tuple[int, int, int, int]


def complexity(name: str, config: ResNetConfig) -> Complexity:
    """Return the complexity for one image: 224 x 224 pixels, or 32 x 32 for CIFAR nets."""
    layers = list(convolutions(config, INPUT[config.stem]))
    features = EXPANSION[config.block] * config.widths[-1]
    return Complexity(
        name=name,
        depth=config.depth,
        parameters=sum(k**2 * c_in * c_out + 2 * c_out for k, c_in, c_out, _ in layers)
        + (features + 1) * config.classes,
        multiply_adds=sum(k**2 * c_in * c_out * side**2 for k, c_in, c_out, side in layers)
        + features * config.classes,
    )


def convolutions(config: ResNetConfig, side: int) -> Iterator[Convolution]:
    """Yield all convolutions from input to output, projections included, for images of `side`."""
    kernel, stride = (7, 2) if config.stem == "imagenet" else (3, 1)
    yield kernel, 3, config.widths[0], -(-side // stride)
    side, c_in = config.stem_side(side), config.widths[0]
    for stage, (count, width) in enumerate(zip(config.blocks, config.widths, strict=True)):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            yield from block_convolutions(config, c_in, width, side, stride)
            side, c_in = -(-side // stride), EXPANSION[config.block] * width


def block_convolutions(
    config: ResNetConfig, c_in: int, width: int, side: int, stride: int
) -> Iterator[Convolution]:
    """Yield the convolutions of one block (Fig. 5) and of its shortcut."""
    halved, c_out = -(-side // stride), EXPANSION[config.block] * width
    if config.block == "basic":
        yield 3, c_in, width, halved
        yield 3, width, width, halved
    else:
        yield 1, c_in, width, halved if config.stride_on == "1x1" else side
        yield 3, width, width, halved
        yield 1, width, c_out, halved
    if config.projects(grows=c_in != c_out or stride > 1):
        yield 1, c_in, c_out, halved


def complexities(models: Mapping[str, ResNetConfig]) -> list[Complexity]:
    """Return the complexity of each model; a network with two names is computed once."""
    counted: dict[ResNetConfig, Complexity] = {}
    for name, config in models.items():
        if config not in counted:
            counted[config] = complexity(name, config)
    return [replace(counted[config], name=name) for name, config in models.items()]
