"""Depth, parameters and multiply-adds of a network, counted from its configuration."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from reslab.models.config import BlockPlace, ResNetConfig
from reslab.models.parts import NoNorm, Norm

INPUT = {"imagenet": 224, "cifar": 32}  # pixels on a side


@dataclass(frozen=True)
class Complexity:
    """A network's depth, size and cost, as stated in Tables 1 and 6."""

    name: str
    depth: int  # weighted layers, without projections, as the paper counts
    parameters: int  # learnable ones, without the statistics of batch norm
    multiply_adds: int  # of convolutions and the classifier, the paper's "FLOPs"


@dataclass(frozen=True)
class Convolution:
    """A convolution and the normalisation that follows it."""

    kernel: int
    c_in: int
    c_out: int
    side: int  # of the output, in pixels
    norm: Norm

    @property
    def parameters(self) -> int:
        # a normalisation has a scale and a shift per channel; without one there is a bias
        per_channel = 1 if isinstance(self.norm, NoNorm) else 2
        return (self.kernel**2 * self.c_in + per_channel) * self.c_out

    @property
    def multiply_adds(self) -> int:
        return self.kernel**2 * self.c_in * self.c_out * self.side**2


def complexity(name: str, config: ResNetConfig) -> Complexity:
    """Return the complexity for one image: 224 x 224 pixels, or 32 x 32 for CIFAR nets."""
    layers = list(convolutions(config, INPUT[config.stem]))
    features = config.places()[-1].c_out
    return Complexity(
        name=name,
        depth=config.depth,
        parameters=sum(layer.parameters for layer in layers) + (features + 1) * config.classes,
        multiply_adds=sum(layer.multiply_adds for layer in layers) + features * config.classes,
    )


def convolutions(config: ResNetConfig, side: int) -> Iterator[Convolution]:
    """Yield all convolutions, projections included, for images with sides of `side` pixels."""
    places = config.places()
    kernel, stride = (7, 2) if config.stem == "imagenet" else (3, 1)
    yield Convolution(kernel, 3, config.widths[0], -(-side // stride), places[0].norm)
    side = config.stem_side(side)
    for place in places:
        yield from block_convolutions(config, place, side)
        side = -(-side // place.stride)


def block_convolutions(config: ResNetConfig, place: BlockPlace, side: int) -> Iterator[Convolution]:
    """Yield the convolutions of one block (Fig. 5) and its shortcut; its input has side `side`."""
    c_in, width, c_out, norm = place.c_in, place.width, place.c_out, place.norm
    halved = -(-side // place.stride)
    if config.block == "basic":
        yield Convolution(3, c_in, width, halved, norm)
        yield Convolution(3, width, width, halved, norm)
    else:
        yield Convolution(1, c_in, width, halved if config.stride_on == "1x1" else side, norm)
        yield Convolution(3, width, width, halved, norm)
        yield Convolution(1, width, c_out, halved, norm)
    if place.projects:
        yield Convolution(1, c_in, c_out, halved, norm)


def complexities(models: Mapping[str, ResNetConfig]) -> list[Complexity]:
    """Return the complexity of each model; a network with two names is computed once."""
    counted: dict[ResNetConfig, Complexity] = {}
    for name, config in models.items():
        if config not in counted:
            counted[config] = complexity(name, config)
    return [replace(counted[config], name=name) for name, config in models.items()]
