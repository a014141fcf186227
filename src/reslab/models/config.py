"""The names of the paper's networks; the one place where a name becomes a configuration."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from reslab.errors import unknown_name

Zeros = Literal["end", "both"]


BlockKind = Literal["basic", "bottleneck"]


Option = Literal["A", "B", "C"]
# Table 1: the block and how many of it conv2_x ... conv5_x hold
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
EXPANSION = {"basic": 1, "bottleneck": 4}


class ResNetConfig(BaseModel):
    """The complete description of one network; `shortcut=None` is a plain net (Sec. 3.3)."""

    model_config = ConfigDict(frozen=True, extra="forbid")  # no key that nobody reads

    stem: Literal["imagenet", "cifar"]
    block: BlockKind
    blocks: tuple[PositiveInt, ...] = Field(min_length=1)  # of each stage
    widths: tuple[PositiveInt, ...] = Field(min_length=1)  # channels inside its blocks
    classes: int = Field(ge=2)
    shortcut: Option | None
    zeros: Zeros = "end"  # option A's new channels; "both" for weights that were trained so
    stride_on: Literal["1x1", "3x3"] = "1x1"  # as in the authors' released prototxt
    pool: Literal["ceil", "padded"] = "ceil"  # the ImageNet stem's: the authors', or torchvision's

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.blocks) != len(self.widths):
            raise ValueError(
                f"model.blocks {list(self.blocks)} and model.widths {list(self.widths)} must "
                "name the same stages"
            )
        return self

    @property
    def depth(self) -> int:
        """Weighted layers as the paper counts them: those of the blocks, the first, the last."""
        return LAYERS[self.block] * sum(self.blocks) + 2

    def projects(self, *, grows: bool) -> bool:
        """Whether a block's shortcut is a projection (Sec. 4.1); `grows`: its dimensions change."""
        return self.shortcut == "C" or (self.shortcut == "B" and grows)

    def stem_side(self, side: int) -> int:
        """The side of the map that the stem makes of an image of `side` pixels."""
        if self.stem == "cifar":
            return side
        side = (side + 1) // 2
        return side // 2 if self.pool == "ceil" else (side + 1) // 2

    def map_side(self, side: int) -> int:
        """The side of the last feature map for an image of `side` pixels."""
        side = self.stem_side(side)
        for _ in self.blocks[1:]:
            side = (side + 1) // 2
        return side


def imagenet_config(
    depth: int, shortcut: Option | None = "B", *, classes: int = 1000
) -> ResNetConfig:
    """A network of Table 1; option B by default, as every released weight."""
    if depth not in IMAGENET_STAGES:
        raise ValueError(f"depth {depth} is not in Table 1: {', '.join(map(str, IMAGENET_STAGES))}")
    block, blocks = IMAGENET_STAGES[depth]
    return ResNetConfig(
        stem="imagenet", block=block, blocks=blocks, widths=IMAGENET_WIDTHS,
        classes=classes, shortcut=shortcut,
    )  # fmt: skip


def cifar_config(depth: int, shortcut: Option | None = "A", *, classes: int = 10) -> ResNetConfig:
    """A network of 6n+2 layers (Sec. 4.2); option A, "in all cases" there."""
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        raise ValueError(f"depth {depth} is not 6n+2 for a whole n >= 1 (Sec. 4.2)")
    return ResNetConfig(
        stem="cifar", block="basic", blocks=(n, n, n), widths=CIFAR_WIDTHS,
        classes=classes, shortcut=shortcut,
    )  # fmt: skip


OPTIONS: tuple[Option, ...] = ("A", "B", "C")


def cifar_names() -> list[str]:
    """Name the nets of Sec. 4.2, plain and residual, of every depth; option A unless suffixed."""
    kinds = ("plain{}", "resnet{}", *(f"resnet{{}}-{option}" for option in OPTIONS))
    return [kind.format(depth) for depth in CIFAR_DEPTHS for kind in kinds]


def imagenet_names() -> list[str]:
    """Name the nets of Table 1: option B unless suffixed; `-3x3` moves a bottleneck's stride."""
    names = []
    for depth, (block, _) in IMAGENET_STAGES.items():
        names += [f"plain{depth}"] if block == "basic" else []
        names += [f"resnet{depth}", *(f"resnet{depth}-{option}" for option in OPTIONS)]
        names += [f"resnet{depth}-3x3"] if block == "bottleneck" else []
    return names


def cifar_models() -> dict[str, ResNetConfig]:
    """Return every named net of Sec. 4.2."""
    return {name: config_named(name) for name in cifar_names()}


def imagenet_models() -> dict[str, ResNetConfig]:
    """Return every named net of Table 1."""
    return {name: config_named(name) for name in imagenet_names()}


def all_models() -> dict[str, ResNetConfig]:
    """Return every net that has a name."""
    return cifar_models() | imagenet_models()


def config_named(name: str) -> ResNetConfig:
    """Return the configuration of a named net; ValueError with the nearest name otherwise."""
    names = [*cifar_names(), *imagenet_names()]
    if name not in names:
        raise ValueError(unknown_name("model", name, names))
    stem, _, suffix = name.partition("-")
    depth = int(stem.removeprefix("plain").removeprefix("resnet"))
    make = imagenet_config if depth in IMAGENET_STAGES else cifar_config
    if stem.startswith("plain"):
        return make(depth, None)
    if suffix == "3x3":
        return make(depth).model_copy(update={"stride_on": "3x3"})
    options: dict[str, Option] = {option: option for option in OPTIONS}
    return make(depth, options[suffix]) if suffix else make(depth)
