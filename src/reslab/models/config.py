"""The configuration of a network, and the paper's networks by name; does not import torch."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from reslab.errors import unknown_name
from reslab.models.parts import (
    STRICT,
    BatchNorm,
    GroupNorm,
    NoisyBatchNorm,
    Norm,
    Norms,
    Option,
    Shortcuts,
)

BlockKind = Literal["basic", "bottleneck"]
Zeros = Literal["end", "both"]
# far above any useful network; a larger configuration would only exhaust the memory
MOST_STAGES, MOST_CLASSES = 20, 10_000_000
BlockCount = Annotated[int, Field(gt=0, le=10_000)]  # blocks in one stage
Width = Annotated[int, Field(gt=0, le=1_000_000)]  # channels

OPTIONS: tuple[Option, ...] = ("A", "B", "C")
# suffixes of a network's name; without one, it has the default option
SUFFIXES = ("", *(f"-{option}" for option in OPTIONS))
# Table 1: the kind of block, and the number of blocks in conv2_x ... conv5_x
IMAGENET_STAGES: dict[int, tuple[BlockKind, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
IMAGENET_WIDTHS = (64, 128, 256, 512)
# Sec. 4.2: 6n+2 layers on feature maps of 32, 16 and 8 pixels; Table 6 names these depths
CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)
CIFAR_WIDTHS = (16, 32, 64)
NORM_NAMES = {  # in labels; the paper's norm is not mentioned
    "batch": "",
    "group": "group norm",
    "none": "no norm",
    "noisy-batch": "noisy batch norm",
}
SMALLEST_MAP = 4  # pixels on a side of the last feature map; `warn_small_map` warns below it
LAYERS = {"basic": 2, "bottleneck": 3}  # of one block (Fig. 5)
EXPANSION = {"basic": 1, "bottleneck": 4}  # a block's output channels, in multiples of its width


@dataclass(frozen=True)
class BlockPlace:
    """One block's position in its network, its sizes, and its parts."""

    index: int  # from 0, over all stages
    count: int  # blocks in the network
    stage: int  # from 0
    c_in: int
    width: int  # channels inside the block
    c_out: int
    stride: int
    shortcut: Option | None
    norm: Norm
    survival: float  # probability that the block is kept in a training iteration

    @property
    def grows(self) -> bool:
        """Whether the block changes the size of the feature map or the number of channels."""
        return self.c_in != self.c_out or self.stride > 1

    @property
    def projects(self) -> bool:
        """Whether the block has a projection shortcut (Sec. 4.1)."""
        return self.shortcut == "C" or (self.shortcut == "B" and self.grows)


class ResNetConfig(BaseModel):
    """The complete description of one network; `shortcut=None` is a plain net (Sec. 3.3).

    `norm` and `shortcut` may be tuples with one entry per block, in order from the input; the stem
    has the norm of the first block.
    """

    model_config = STRICT

    stem: Literal["imagenet", "cifar"]
    block: BlockKind
    blocks: tuple[BlockCount, ...] = Field(min_length=1, max_length=MOST_STAGES)  # per stage
    # channels inside the blocks, per stage
    widths: tuple[Width, ...] = Field(min_length=1, max_length=MOST_STAGES)
    classes: int = Field(ge=2, le=MOST_CLASSES)
    shortcut: Shortcuts
    zeros: Zeros = "end"  # where option A adds channels; "both" for weights trained that way
    stride_on: Literal["1x1", "3x3"] = "1x1"  # as in the authors' released prototxt
    pool: Literal["ceil", "padded"] = "ceil"  # in the ImageNet stem: the authors' or torchvision's
    norm: Norms = BatchNorm()
    # the probability that the last block is dropped in a training iteration; it falls linearly
    # towards the first block (Huang et al., arXiv 1603.09382, Eqn. 4)
    stochastic_depth: float = Field(0.0, ge=0, lt=1)
    # the fraction of values dropped before the last convolution of each block when training
    # (Zagoruyko & Komodakis, arXiv 1605.07146, Sec. 2.4)
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _same_stages(self) -> Self:
        if len(self.blocks) != len(self.widths):
            raise ValueError(
                f"model.blocks {list(self.blocks)} and model.widths {list(self.widths)} must "
                "have the same length, one entry per stage"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit_the_blocks(self) -> Self:
        count = sum(self.blocks)
        for key, parts in (("norm", self.norm), ("shortcut", self.shortcut)):
            if isinstance(parts, tuple) and len(parts) != count:
                raise ValueError(
                    f"model.{key} is a list of length {len(parts)}: give one entry for each of the "
                    f"{count} blocks, or a single value for all"
                )
        if self.stochastic_depth:
            for place in self.places():
                if place.shortcut is None:
                    raise ValueError(
                        f"model.stochastic_depth={self.stochastic_depth:g} drops whole blocks, and "
                        f"block {place.index} (counted from 0) would then pass nothing on, because "
                        "it has no shortcut: set model.shortcut for it, or stochastic_depth=0"
                    )
        return self

    @model_validator(mode="after")
    def _groups_divide_the_channels(self) -> Self:
        if not any(isinstance(norm, GroupNorm) for norm in self.norms):
            return self
        channels: dict[Norm, set[int]] = {self.norms[0]: {self.widths[0]}}  # the stem's
        for place in self.places():
            channels.setdefault(place.norm, set()).update((place.width, place.c_out))
        for norm, counts in channels.items():
            if isinstance(norm, GroupNorm) and any(count % norm.groups for count in counts):
                raise ValueError(
                    f"model.norm.groups={norm.groups} does not divide every number of channels "
                    f"({', '.join(map(str, sorted(counts)))}): choose a divisor of {gcd(*counts)}"
                )
        return self

    @property
    def depth(self) -> int:
        """The number of weighted layers as the paper counts them, without projections."""
        return LAYERS[self.block] * sum(self.blocks) + 2

    @property
    def option(self) -> Option | Literal["mixed"] | None:
        """The shortcut option of all blocks; None for a plain net, "mixed" if blocks differ."""
        if not isinstance(self.shortcut, tuple):
            return self.shortcut
        options = set(self.shortcut)
        return options.pop() if len(options) == 1 else "mixed"

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norm of each block, or the one norm of all blocks."""
        return self.norm if isinstance(self.norm, tuple) else (self.norm,)

    @property
    def additions(self) -> tuple[str, ...]:
        """The names, for labels, of the parts that the paper's networks do not have."""
        norms = set(self.norms)
        names = [NORM_NAMES[norm.kind] for norm in norms] if len(norms) == 1 else ["mixed norms"]
        names += [f"stochastic depth {self.stochastic_depth:g}"] if self.stochastic_depth else []
        names += [f"dropout {self.dropout:g}"] if self.dropout else []
        return tuple(name for name in names if name)

    def places(self) -> tuple[BlockPlace, ...]:
        """Return the position, sizes and parts of each block, in order from the input."""
        return tuple(self._places())

    def _places(self) -> Iterator[BlockPlace]:
        count, index, c_in = sum(self.blocks), 0, self.widths[0]
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            c_out = EXPANSION[self.block] * width
            for position in range(blocks):
                shortcut, norm = self.shortcut, self.norm
                yield BlockPlace(
                    index=index,
                    count=count,
                    stage=stage,
                    c_in=c_in,
                    width=width,
                    c_out=c_out,
                    stride=2 if stage > 0 and position == 0 else 1,
                    shortcut=shortcut[index] if isinstance(shortcut, tuple) else shortcut,
                    norm=norm[index] if isinstance(norm, tuple) else norm,
                    survival=1 - self.stochastic_depth * (index + 1) / count,
                )
                index, c_in = index + 1, c_out

    def without_randomness(self) -> "ResNetConfig":
        """Return the configuration without random layers; the weights keep their names."""
        fixed = tuple(BatchNorm() if isinstance(n, NoisyBatchNorm) else n for n in self.norms)
        norm = fixed[0] if len(set(fixed)) == 1 else fixed
        return self.model_copy(update={"norm": norm, "stochastic_depth": 0.0, "dropout": 0.0})

    def stem_side(self, side: int) -> int:
        """Return the side of the stem's feature map for an image of `side` pixels."""
        if self.stem == "cifar":
            return side
        side = (side + 1) // 2
        return side // 2 if self.pool == "ceil" else (side + 1) // 2

    def map_side(self, side: int) -> int:
        """Return the side of the last feature map for an image of `side` pixels."""
        side = self.stem_side(side)
        for _ in self.blocks[1:]:
            side = (side + 1) // 2
        return side


def warn_small_map(config: ResNetConfig, side: int) -> None:
    """Warn if images whose shorter side is `side` pixels leave too small a last feature map.

    This happens with CIFAR images in a net with the ImageNet stem.
    """
    if (last := config.map_side(side)) < SMALLEST_MAP:
        use = "enlarge the images" if config.stem == "cifar" else "use a CIFAR net (Sec. 4.2)"
        # attributed to this line, not to the caller's, so that the user is warned only once
        warnings.warn(
            f"images with a side of {side} pixels leave a feature map of {last}x{last} before "
            f"pooling; for images this small {use}",
            stacklevel=1,
        )


def imagenet_config(
    depth: int, shortcut: Option | None = "B", *, classes: int = 1000
) -> ResNetConfig:
    """Return the configuration of a Table 1 net; option B by default, as in released weights."""
    if depth not in IMAGENET_STAGES:
        raise ValueError(f"depth {depth} is not in Table 1: {', '.join(map(str, IMAGENET_STAGES))}")
    block, blocks = IMAGENET_STAGES[depth]
    return ResNetConfig(
        stem="imagenet", block=block, blocks=blocks, widths=IMAGENET_WIDTHS,
        classes=classes, shortcut=shortcut,
    )  # fmt: skip


def cifar_config(depth: int, shortcut: Option | None = "A", *, classes: int = 10) -> ResNetConfig:
    """Return the configuration of a net with 6n+2 layers (Sec. 4.2), option A by default."""
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        raise ValueError(f"depth {depth} is not 6n+2 for a whole n >= 1 (Sec. 4.2)")
    return ResNetConfig(
        stem="cifar", block="basic", blocks=(n, n, n), widths=CIFAR_WIDTHS,
        classes=classes, shortcut=shortcut,
    )  # fmt: skip


def cifar_names() -> list[str]:
    """Return the names of the nets in Sec. 4.2, plain and residual; no suffix means option A."""
    names = []
    for depth in CIFAR_DEPTHS:
        names += [f"plain{depth}", *(f"resnet{depth}{suffix}" for suffix in SUFFIXES)]
    return names


def imagenet_names() -> list[str]:
    """Return the names of the nets in Table 1; without a suffix, the shortcuts are option B.

    The suffix `-3x3` moves a bottleneck's stride to its 3x3 convolution.
    """
    names = []
    for depth, (block, _) in IMAGENET_STAGES.items():
        names += [f"plain{depth}"] if block == "basic" else []
        names += [f"resnet{depth}{suffix}" for suffix in SUFFIXES]
        names += [f"resnet{depth}-3x3"] if block == "bottleneck" else []
    return names


def all_models() -> dict[str, ResNetConfig]:
    """Return the configuration of every named network."""
    return {name: config_named(name) for name in (*cifar_names(), *imagenet_names())}


def config_named(name: str) -> ResNetConfig:
    """Return the configuration for a name; raise ValueError with the nearest name if unknown."""
    names = [*cifar_names(), *imagenet_names()]
    if name not in names:
        raise ValueError(unknown_name("model", name, names))
    family, _, suffix = name.partition("-")
    depth = int(family.removeprefix("plain").removeprefix("resnet"))
    make = imagenet_config if depth in IMAGENET_STAGES else cifar_config
    if family.startswith("plain"):
        return make(depth, None)
    if suffix == "3x3":
        return make(depth).model_copy(update={"stride_on": "3x3"})
    for option in OPTIONS:
        if suffix == option:
            return make(depth, option)
    return make(depth)
