"""How the work of a 6n+2 net is divided among the programs of a GPU."""

from collections.abc import Sequence
from dataclasses import dataclass

from reslab.kernels.trunk import TrunkLayer

IMAGE_CHANNELS = 4  # red, green, blue and zero
PARTS = 256  # of a share's sums, at most
GRADIENT_PARTS = {16: 32, 32: 16, 64: 8}  # of a share's weight gradient, by the output's channels


@dataclass(frozen=True)
class Tile:
    """How a program computes: `block` pixels at a time, `group` adjacent ones in a product."""

    block: int
    group: int
    warps: int
    stages: int  # of the software pipeline


# the fastest ones on an H200, by the channels of the convolution's output
FORWARD = {16: Tile(128, 1, 4, 3), 32: Tile(128, 1, 4, 3), 64: Tile(64, 1, 4, 3)}
DATA_GRADIENT = {16: Tile(128, 1, 4, 3), 32: Tile(128, 1, 4, 3), 64: Tile(64, 1, 4, 3)}
WEIGHT_GRADIENT = {16: Tile(128, 3, 4, 2), 32: Tile(128, 3, 8, 2), 64: Tile(64, 1, 4, 2)}


@dataclass(frozen=True)
class Split:
    """The pixels of a share as `parts` programs, each of `blocks` blocks of `block` pixels."""

    block: int
    blocks: int
    parts: int

    @property
    def rows(self) -> int:
        """The pixels of a part."""
        return self.block * self.blocks


def split(rows: int, block: int, most_parts: int) -> Split:
    """Split `rows` pixels into at most `most_parts` parts."""
    count = -(-rows // block)
    blocks = -(-count // most_parts)
    return Split(block, blocks, -(-count // blocks))


def padded(count: int) -> int:
    """Return the next power of two."""
    return 1 << (count - 1).bit_length()


def options(tile: Tile, own: Split, channels: int, gaps: bool = False) -> dict[str, int]:
    """Return a kernel's arguments for its matrix products with a map of `channels`.

    A map with `gaps` between its pixels is read pixel by pixel; an image, in threes.
    """
    group = 1 if gaps else 3 if channels == IMAGE_CHANNELS else tile.group
    return {
        "GROUP": group, "INNER": padded(group * channels),
        "BLOCK": own.block, "BLOCKS": own.blocks, "PARTS": own.parts,
        "num_warps": tile.warps, "num_stages": tile.stages,
    }  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """The sides and channels of a convolution's input and output."""

    channels_in: int
    channels: int
    side_in: int
    side: int
    stride: int

    @property
    def weight(self) -> tuple[int, int, int, int]:
        """The sizes of the weights, [out, 3, 3, in]."""
        return self.channels, 3, 3, self.channels_in


def shapes_of(trunk: Sequence[TrunkLayer], side: int) -> list[Shape]:
    """Return the shape of each layer, for images of `side` pixels."""
    shapes, channels = [], IMAGE_CHANNELS
    for layer in trunk:
        after, out = -(-side // layer.stride), len(layer.conv.gamma)
        shapes.append(Shape(channels, out, side, after, layer.stride))
        side, channels = after, out
    return shapes


def forward_split(shape: Shape, share: int) -> Split:
    """Return how a convolution is split, for a share of `share` images."""
    return split(share * shape.side**2, FORWARD[shape.channels].block, PARTS)


def data_split(shape: Shape, share: int) -> Split:
    """Return how the gradient of a convolution's input is split."""
    return split(share * shape.side_in**2, DATA_GRADIENT[shape.channels].block, PARTS)


def weight_split(shape: Shape, share: int) -> Split:
    """Return how the gradient of a convolution's weights is split."""
    block, parts = WEIGHT_GRADIENT[shape.channels].block, GRADIENT_PARTS[shape.channels]
    return split(share * shape.side**2, block, parts)
