"""Testing protocols: the views of an image over which probabilities are averaged."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from reslab.data.resize import centre_offset
from reslab.errors import unknown_name

Crop = Literal["whole", "all", "centre", "top-left", "top-right", "bottom-left", "bottom-right"]
Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
PAPER_SIZE = 224  # crop size of the paper's networks
PAPER_SIDES = (224, 256, 384, 480, 640)  # Sec. 3.4
NO_FLIP = "no-flip"


@dataclass(frozen=True)
class View:
    """A network input derived from an image: resized to a shorter side, cropped, maybe mirrored.

    The crop `whole` is the full image; with `all` the network is applied fully convolutionally, at
    every position of the resized image.
    """

    side: int | None = None  # the shorter side, in pixels; None keeps the image's size
    crop: Crop = "whole"
    size: int | None = None  # side of the crop, in pixels
    flip: bool = False

    def __str__(self) -> str:
        words = (self.side, self.crop, self.size, "mirrored" if self.flip else None)
        return "-".join(str(word) for word in words if word is not None)

    def of(self, image: Tensor) -> Tensor:
        """Crop and mirror a resized image, [3, H, W] -> [3, h, w]."""
        if self.size is not None:
            top, left = corner(self.crop, image.shape[1], image.shape[2], self.size)
            image = image[:, top : top + self.size, left : left + self.size]
        return image.flip(-1) if self.flip else image


def corner(crop: Crop, height: int, width: int, size: int) -> tuple[int, int]:
    """Return the top and left offsets of a square crop."""
    if crop == "centre":
        return centre_offset(height, size), centre_offset(width, size)
    return (
        0 if crop.startswith("top") else height - size,
        0 if crop.endswith("left") else width - size,
    )


Sizes = Mapping[int | None, int | None]  # shorter side -> size of the only crop, or None


def sizes_needed(views: Iterable[View]) -> Sizes:
    """Return the shorter sides to which views resize an image; None is the image's own.

    With each side comes the size of its centre crop, if no view needs any other pixels, else None.
    """
    sizes: dict[int | None, set[int | None]] = defaultdict(set)
    for view in views:
        sizes[view.side].add(view.size if view.crop == "centre" else None)
    return {side: found.pop() if len(found) == 1 else None for side, found in sizes.items()}


@dataclass(frozen=True)
class OneCrop:
    """The centre crop only, or the full image if `size` is None, as for CIFAR and digits."""

    resize: int | None = None  # the shorter side
    size: int | None = None

    def __post_init__(self) -> None:
        if (self.resize is None) != (self.size is None):
            raise ValueError(
                "one-crop takes a shorter side and a crop size, as in 256-224, or neither, "
                f"not {self.resize} and {self.size}"
            )
        check_crop_fits(self.resize, self.size)

    def views(self) -> tuple[View, ...]:
        return (View() if self.size is None else View(self.resize, "centre", self.size),)

    def __str__(self) -> str:
        return "one-crop" if self.size is None else f"one-crop {self.resize}-{self.size}"


@dataclass(frozen=True)
class TenCrop:
    """Four corners, the centre, and their mirror images (AlexNet's 10-crop, Sec. 3.4)."""

    resize: int = 256
    size: int = 224

    def __post_init__(self) -> None:
        check_crop_fits(self.resize, self.size)

    def views(self) -> tuple[View, ...]:
        crops: tuple[Crop, ...] = ("centre", *get_args(Corner))
        return tuple(
            View(self.resize, crop, self.size, flip) for flip in (False, True) for crop in crops
        )

    def __str__(self) -> str:
        return f"ten-crop {self.resize}-{self.size}"


@dataclass(frozen=True)
class MultiScale:
    """Fully convolutional testing at several shorter sides (Sec. 3.4).

    The paper does not say whether images are also mirrored, or whether scores are averaged before
    or after the softmax. Here images are mirrored, and scores averaged after it, as in ten-crop.
    """

    sides: tuple[int, ...] = PAPER_SIDES
    flip: bool = True

    def __post_init__(self) -> None:
        if not self.sides or len(set(self.sides)) < len(self.sides) or min(self.sides) < 1:
            raise ValueError(f"multi-scale sides {list(self.sides)} must be distinct and positive")

    def views(self) -> tuple[View, ...]:
        flips = (False, True) if self.flip else (False,)
        return tuple(View(side, "all", flip=flip) for side in self.sides for flip in flips)

    def __str__(self) -> str:
        sides = [str(side) for side in self.sides]
        return f"multi-scale {','.join(sides if self.flip else [*sides, NO_FLIP])}"


ViewProtocol = OneCrop | TenCrop | MultiScale


def check_crop_fits(resize: int | None, size: int | None) -> None:
    """Raise ValueError if a crop is larger than the resized image."""
    if resize is not None and size is not None and not 1 <= size <= resize:
        raise ValueError(f"a crop of {size} does not fit into a shorter side of {resize}")


EXAMPLES = {
    "one-crop": "one-crop:256-224",
    "ten-crop": "ten-crop:256-224",
    "multi-scale": "multi-scale:224,256,no-flip",
}


def protocol_named(text: str, resize: int | None, size: int | None) -> ViewProtocol:
    """Parse a protocol; numbers that it omits default to the network's `resize` and `size`.

    Examples are `one-crop`, `ten-crop:256-224` and `multi-scale:224,256,no-flip`; the form printed
    in reports is also accepted. Raise ValueError if the text is malformed or the numbers do not
    suit the network.
    """
    name, _, rest = text.strip().replace(" ", ":", 1).partition(":")
    if name not in EXAMPLES:
        raise ValueError(unknown_name("protocol", name, EXAMPLES))
    if name == "multi-scale":
        flip = not rest.endswith(NO_FLIP)
        sides = rest.removesuffix(NO_FLIP).strip(",")
        return multi_scale(parse_numbers(text, name, sides, ","), flip, size)
    numbers = parse_numbers(text, name, rest, "-")
    if len(numbers) not in (0, 2):
        raise ValueError(f"protocol {text!r} is malformed; write it as in {EXAMPLES[name]}")
    resize, size = numbers or (resize, size)
    if name == "one-crop":
        return OneCrop(resize, size)
    if resize is None or size is None:
        raise ValueError(numbers_needed(name, "36-32"))
    return TenCrop(resize, size)


def must_be_one_crop(text: str) -> None:
    """Raise ValueError unless a protocol is `one-crop` without numbers.

    An exported file that resizes and crops images itself can be tested in no other way.
    """
    if text.strip() != "one-crop":
        raise ValueError(
            f"protocol {text!r} needs images resized and cropped in other ways than the exported "
            "file does inside: only one-crop applies; for others, use the model it was made from"
        )


def parse_numbers(text: str, name: str, rest: str, separator: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in rest.split(separator)) if rest else ()
    except ValueError:
        example = EXAMPLES[name]
        raise ValueError(f"protocol {text!r} is malformed; write it as in {example}") from None


def multi_scale(sides: tuple[int, ...], flip: bool, size: int | None) -> MultiScale:
    """Build a multi-scale protocol; default sides are the paper's, scaled to the crop size."""
    if sides:
        if size is not None and min(sides) < size:
            raise ValueError(
                f"multi-scale side {min(sides)} is below {size}, the network's input size"
            )
        return MultiScale(sides, flip)
    if size is None:
        raise ValueError(numbers_needed("multi-scale", "32,40"))
    return MultiScale(tuple(round(side * size / PAPER_SIZE) for side in PAPER_SIDES), flip)


def numbers_needed(name: str, example: str) -> str:
    """Return the error message for a network without a crop size, which has no default crops."""
    return (
        f"{name} needs a crop size, and this network takes whole images; to crop them anyway, "
        f"give the numbers, as in {name}:{example}"
    )
