"""Training augmentations, as a recipe describes them.

An augmentation for images of any size maps a fixed number of random numbers in [0, 1) per image to
a crop box.
"""

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from reslab.data.resize import Box, crop_box, shorter_side

STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
ATTEMPTS = 10  # to sample a crop that fits, before using the centre, as in torchvision


class PadAndCrop(BaseModel):
    """Pad images of one size with zeros, then crop to the original size (Sec. 4.2)."""

    model_config = STRICT

    flip: bool = True
    kind: Literal["pad-and-crop"] = "pad-and-crop"
    pad: int = Field(4, ge=0)


class ScaleCrop(BaseModel):
    """Sample the shorter side from a range, then a crop, and shift the colours (Sec. 3.4)."""

    model_config = STRICT

    flip: bool = True
    kind: Literal["scale-crop"] = "scale-crop"
    size: int = Field(224, ge=1)
    shorter_side: tuple[int, int] = (256, 480)
    draws: ClassVar[int] = 4  # shorter side, left, top, flip
    colour: float = Field(0.1, ge=0)  # standard deviation of the PCA factors, as in AlexNet

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        low, high = self.shorter_side
        if not self.size <= low <= high:
            raise ValueError(
                f"augmentation.shorter_side {[low, high]} must satisfy {self.size} "
                "(augmentation.size) <= minimum <= maximum"
            )
        return self

    def crop(self, width: int, height: int, draws: Sequence[float]) -> tuple[Box, bool]:
        """Return a crop box whose side is `size` at the sampled scale, and whether to flip."""
        low, high = self.shorter_side
        scaled = shorter_side(width, height, low + _below(high - low + 1, draws[0]))
        left = _below(scaled[0] - self.size + 1, draws[1])
        top = _below(scaled[1] - self.size + 1, draws[2])
        box = crop_box(width, height, scaled, left, top, self.size)
        return box, self.flip and draws[3] < 0.5


class ResizedCrop(BaseModel):
    """Sample a crop of random area and aspect ratio, and resize it to `size`.

    This is not in the paper: it is GoogLeNet's augmentation, torchvision's RandomResizedCrop.
    """

    model_config = STRICT

    flip: bool = True
    kind: Literal["resized-crop"] = "resized-crop"
    size: int = Field(224, ge=1)
    area: tuple[float, float] = (0.08, 1.0)  # as a fraction of the image
    ratio: tuple[float, float] = (0.75, 4 / 3)  # width over height, sampled log-uniformly
    colour: float = Field(0.0, ge=0)
    draws: ClassVar[int] = 2 * ATTEMPTS + 3  # area and ratio of each attempt, left, top, flip

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(
                f"augmentation.area {list(self.area)} must satisfy 0 < minimum <= maximum <= 1"
            )
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(
                f"augmentation.ratio {list(self.ratio)} must satisfy 0 < minimum <= maximum"
            )
        return self

    def crop(self, width: int, height: int, draws: Sequence[float]) -> tuple[Box, bool]:
        """Return the first sampled box that fits, or else the centre, and whether to flip."""
        *shapes, x, y, mirror = draws
        box = self._centre(width, height)
        for area, ratio in zip(shapes[::2], shapes[1::2], strict=True):
            across, down = self._shape(width, height, area, ratio)
            if 0 < across <= width and 0 < down <= height:
                left, top = _below(width - across + 1, x), _below(height - down + 1, y)
                box = (left, top, left + across, top + down)
                break
        return box, self.flip and mirror < 0.5

    def _shape(self, width: int, height: int, area: float, ratio: float) -> tuple[int, int]:
        """Return a crop's width and height in whole pixels, from two random numbers in [0, 1)."""
        pixels = width * height * _between(*self.area, area)
        shape = exp(_between(log(self.ratio[0]), log(self.ratio[1]), ratio))
        return round(sqrt(pixels * shape)), round(sqrt(pixels / shape))

    def _centre(self, width: int, height: int) -> Box:
        """Return the largest centred box with an allowed aspect ratio."""
        low, high = self.ratio
        across = max(min(width, round(height * high)), 1)
        down = max(min(height, round(width / low)), 1)
        left, top = (width - across) // 2, (height - down) // 2
        return (left, top, left + across, top + down)


def _below(count: int, draw: float) -> int:
    """Map a uniform random number in [0, 1) to an integer from 0 to count - 1, also uniform."""
    return min(int(draw * count), count - 1)


def _between(low: float, high: float, draw: float) -> float:
    return low + (high - low) * draw
