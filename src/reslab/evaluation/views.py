"""Testing protocols as values: what a network is shown of one image."""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from torch import Tensor

from reslab.errors import unknown_name

Crop = Literal["whole", "all", "centre", "top-left", "top-right", "bottom-left", "bottom-right"]
Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
OWN_SIZE = 224  # of the paper's networks
PAPER_SIDES = (224, 256, 384, 480, 640)  # Sec. 3.4
NO_FLIP = "no-flip"


@dataclass(frozen=True)
class View:
    """What is shown of an image: a crop of it, after its shorter side was resized.

    `whole` is the image as it comes. `all` is every position of the network on the resized
    image: the network is applied fully convolutionally.
    """

    side: int | None = None
    crop: Crop = "whole"
    size: int | None = None  # of the crop
    flip: bool = False

    def __str__(self) -> str:
        words = (self.side, self.crop, self.size, "mirrored" if self.flip else None)
        return "-".join(str(word) for word in words if word is not None)

    def of(self, image: Tensor) -> Tensor:
        """This view of an image whose shorter side is resized; [3, H, W] -> [3, h, w]."""
        if self.size is not None:
            top, left = corner(self.crop, image.shape[1], image.shape[2], self.size)
            image = image[:, top : top + self.size, left : left + self.size]
        return image.flip(-1) if self.flip else image


def corner(crop: Crop, height: int, width: int, size: int) -> tuple[int, int]:
    """Top and left of a square crop; the centre's are rounded as everywhere, halves to even."""
    if crop == "centre":
        return round((height - size) / 2), round((width - size) / 2)
    return (
        0 if crop.startswith("top") else height - size,
        0 if crop.endswith("left") else width - size,
    )


class ViewProtocol(Protocol):
    """A testing protocol: its probabilities are the mean over its views'."""

    def views(self) -> tuple[View, ...]: ...


@dataclass(frozen=True)
class OneCrop:
    """One view, the centre; without numbers the image itself, as for CIFAR and digits."""

    resize: int | None = None  # the shorter side
    size: int | None = None

    def __post_init__(self) -> None:
        if (self.resize is None) != (self.size is None):
            raise ValueError("one-crop needs a shorter side and a size, as 256-224, or neither")
        must_hold(self.resize, self.size)

    def views(self) -> tuple[View, ...]:
        return (View() if self.size is None else View(self.resize, "centre", self.size),)

    def __str__(self) -> str:
        return "one-crop" if self.size is None else f"one-crop {self.resize}-{self.size}"


@dataclass(frozen=True)
class TenCrop:
    """Four corners, the centre, and their mirrors (AlexNet's standard 10-crop, Sec. 3.4)."""

    resize: int = 256
    size: int = 224

    def __post_init__(self) -> None:
        must_hold(self.resize, self.size)

    def views(self) -> tuple[View, ...]:
        crops: tuple[Crop, ...] = ("centre", *get_args(Corner))
        return tuple(
            View(self.resize, crop, self.size, flip) for flip in (False, True) for crop in crops
        )

    def __str__(self) -> str:
        return f"ten-crop {self.resize}-{self.size}"


@dataclass(frozen=True)
class MultiScale:
    """Fully convolutional at several shorter sides, mirrored too (Sec. 3.4).

    The paper says neither whether images are mirrored nor whether scores are averaged before or
    after the softmax: mirrored, and after, as in ten-crop.
    """

    sides: tuple[int, ...] = PAPER_SIDES
    flip: bool = True

    def __post_init__(self) -> None:
        if not self.sides or len(set(self.sides)) < len(self.sides) or min(self.sides) < 1:
            raise ValueError(f"multi-scale sides {list(self.sides)}: different ones, above 0")

    def views(self) -> tuple[View, ...]:
        flips = (False, True) if self.flip else (False,)
        return tuple(View(side, "all", flip=flip) for side in self.sides for flip in flips)

    def __str__(self) -> str:
        sides = [str(side) for side in self.sides]
        return f"multi-scale {','.join(sides if self.flip else [*sides, NO_FLIP])}"


def must_hold(resize: int | None, size: int | None) -> None:
    """ValueError unless a crop of `size` lies in an image whose shorter side is `resize`."""
    if resize is not None and size is not None and not 1 <= size <= resize:
        raise ValueError(f"a crop of {size} does not fit a shorter side of {resize}")


EXAMPLES = {
    "one-crop": "one-crop:256-224",
    "ten-crop": "ten-crop:256-224",
    "multi-scale": "multi-scale:224,256,no-flip",
}


def protocol_named(text: str, resize: int | None, size: int | None) -> ViewProtocol:
    """The protocol of a name, with the network's own numbers or with those that follow it.

    `one-crop`, `ten-crop:256-224`, `multi-scale:224,256,no-flip`; a report's own words too.
    """
    name, _, rest = text.strip().replace(" ", ":", 1).partition(":")
    if name not in EXAMPLES:
        raise ValueError(unknown_name("protocol", name, EXAMPLES))
    if name == "multi-scale":
        flip = not rest.endswith(NO_FLIP)
        return multi_scale(
            numbers(text, name, rest.removesuffix(NO_FLIP).strip(","), ","), flip, size
        )
    given = numbers(text, name, rest, "-")
    if len(given) not in (0, 2):
        raise ValueError(f"protocol {text!r}: write it as {EXAMPLES[name]}")
    resize, size = given or (resize, size)
    if name == "one-crop":
        return OneCrop(resize, size)
    if resize is None or size is None:
        raise ValueError(without_numbers(name, "36-32"))
    return TenCrop(resize, size)


def numbers(text: str, name: str, rest: str, separator: str) -> tuple[int, ...]:
    """The whole numbers that follow a protocol's name."""
    try:
        return tuple(int(word) for word in rest.split(separator)) if rest else ()
    except ValueError:
        raise ValueError(f"protocol {text!r}: write it as {EXAMPLES[name]}") from None


def multi_scale(sides: tuple[int, ...], flip: bool, size: int | None) -> MultiScale:
    """Sides as written, or the paper's in proportion to the size that the network knows."""
    if sides:
        if size is not None and min(sides) < size:
            raise ValueError(
                f"multi-scale side {min(sides)} is below {size}, the network's own size"
            )
        return MultiScale(sides, flip)
    if size is None:
        raise ValueError(without_numbers("multi-scale", "32,40"))
    return MultiScale(tuple(round(side * size / OWN_SIZE) for side in PAPER_SIDES), flip)


def without_numbers(name: str, example: str) -> str:
    """What is said where a network is shown its images as they come."""
    return (
        f"{name} needs images larger than the network's own size, and these are shown as they "
        f"come; if you mean it, give the numbers, as {name}:{example}"
    )
