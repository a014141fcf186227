"""The configuration of a network, and the paper's networks by name; does not import torch."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from reslab.errors import unknown_name

BlockKind = Literal["basic", "bottleneck"]
Option = Literal["A", "B", "C"]
Zeros = Literal["end", "both"]

OPTIONS: tuple[Option, ...] = ("A", "B", "C")
SUFFIXES = ("", *(f"-{option}" for option in OPTIONS))  # of a name; "": the default option
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
LAYERS = {"basic": 2, "bottleneck": 3}  # of one block (Fig. 5)
EXPANSION = {"basic": 1, "bottleneck": 4}  # a block's output channels, in multiples of its width


class ResNetConfig(BaseModel):
    """The complete description of one network; `shortcut=None` is a plain net (Sec. 3.3)."""

    model_config = ConfigDict(frozen=True, extra="forbid")  # unknown keys are errors

    stem: Literal["imagenet", "cifar"]
    block: BlockKind
    blocks: tuple[PositiveInt, ...] = Field(min_length=1)  # per stage
    widths: tuple[PositiveInt, ...] = Field(min_length=1)  # channels inside the blocks, per stage
    classes: int = Field(ge=2)
    shortcut: Option | None
    zeros: Zeros = "end"  # where option A adds channels; "both" for weights trained that way
    stride_on: Literal["1x1", "3x3"] = "1x1"  # as in the authors' released prototxt
    pool: Literal["ceil", "padded"] = "ceil"  # in the ImageNet stem: the authors' or torchvision's

    @model_validator(mode="after")
    def _same_stages(self) -> Self:
        if len(self.blocks) != len(self.widths):
            raise ValueError(
                f"model.blocks {list(self.blocks)} and model.widths {list(self.widths)} must "
                "name the same stages"
            )
        return self

    @property
    def depth(self) -> int:
        """The number of weighted layers as the paper counts them: first, blocks, last."""
        return LAYERS[self.block] * sum(self.blocks) + 2

    def projects(self, *, grows: bool) -> bool:
        """Return whether a block has a projection shortcut (Sec. 4.1).

        `grows`: the block changes the size of the feature map or the number of channels.
        """
        return self.shortcut == "C" or (self.shortcut == "B" and grows)

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
    """List the nets of Sec. 4.2, plain and residual, of every depth; no suffix means option A."""
    names = []
    for depth in CIFAR_DEPTHS:
        names += [f"plain{depth}", *(f"resnet{depth}{suffix}" for suffix in SUFFIXES)]
    return names


def imagenet_names() -> list[str]:
    """List the nets of Table 1; no suffix means option B, `-3x3` moves a bottleneck's stride."""
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
    """Return the configuration for a name; ValueError suggests the nearest name."""
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
