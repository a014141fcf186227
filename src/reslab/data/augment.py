"""Training augmentations, and the mean image and colour PCA of a data set.

An augmentation for images of any size maps a fixed number of random numbers in [0, 1) per image to
a crop box.
"""

from collections.abc import Sequence
from contextlib import closing
from math import exp, log, sqrt
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Generator, Tensor

from reslab.data.datasets import EncodedImages, replace_within_class
from reslab.data.resize import Box, centre_crop, crop_box, shorter_side
from reslab.runtime.events import Log
from reslab.runtime.threads import map_in_order

LEVELS = 255


class Components(NamedTuple):
    """The principal components of a set's colours, largest first.

    AlexNet shifts an image's colour by factor times eigenvalue along each eigenvector. An
    eigenvalue is a variance, so the shift depends on the scale of the pixels, which is 0 to 1 in
    AlexNet. `values` are the eigenvalues on that scale times 255, for pixels from 0 to 255.
    """

    values: Tensor  # [3]
    vectors: Tensor  # [3, 3], one component per column; RGB


# for ImageNet; published in fb.resnet.torch for pixels from 0 to 1
ALEXNET = Components(
    torch.tensor([LEVELS * np.float32(value) for value in (0.2175, 0.0188, 0.0045)]),
    torch.tensor(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    ),
)


def colour_shift(factors: Tensor, components: Components) -> Tensor:
    """Return each image's colour shift, [B, 3] -> [B, 3], for pixels from 0 to 255.

    `factors` are normal random numbers, three per image; AlexNet's standard deviation is 0.1.
    """
    return (factors * components.values) @ components.vectors.T


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


def draw_offsets(count: int, pad: int, rng: Generator) -> Tensor:
    """Sample the offsets for `pad_and_crop`: (row, column) of each image, int64 [count, 2]."""
    return torch.randint(0, 2 * pad + 1, (2, count), generator=rng).T


def pad_and_crop(images: Tensor, pad: int, offsets: Tensor) -> Tensor:
    """Pad with zeros, then crop to the original size at one of (2 pad + 1)^2 offsets (Sec. 4.2).

    [B, C, H, W] and [B, 2] -> [B, C, H, W]. Subtract the mean first, so that the padding equals it.
    """
    batch, _, height, width = images.shape
    offsets = offsets.to(images.device)
    rows = offsets[:, :1] + torch.arange(height, device=images.device)  # [B, H]
    columns = offsets[:, 1:] + torch.arange(width, device=images.device)  # [B, W]
    padded = F.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)  # [B, H + 2p, W + 2p, C]
    which = torch.arange(batch, device=images.device)[:, None, None]
    cropped = padded[which, rows[:, :, None], columns[:, None, :]]  # [B, H, W, C]
    return cropped.permute(0, 3, 1, 2)


def draw_flips(count: int, rng: Generator) -> Tensor:
    """Sample which images to mirror, each with probability 1/2; bool [count]."""
    return torch.rand(count, generator=rng) < 0.5


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Mirror the images for which `flips` is true, [B, C, H, W] and [B] -> [B, C, H, W]."""
    return torch.where(flips.to(images.device)[:, None, None, None], images.flip(-1), images)


def measure_statistics(
    images: EncodedImages,
    size: int,
    resize: int,
    *,
    count: int = 10_000,
    seed: int,
    threads: int,
    on_bad: Log = lambda text: None,
) -> tuple[Tensor, Components]:
    """Compute the mean image, float [3, size, size] from 0 to 255, and the colour components.

    This uses the centre crops of at most `count` images, sampled with `seed`. Sums are exact, so
    the result depends on neither the order nor the number of threads. Bad files are replaced as in
    training; `on_bad` is called with the reason of each.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    sample = order[:count].sort().values.tolist()
    image_at = replace_within_class(images)

    def crop(index: int) -> np.ndarray:
        return centre_crop(image_at(index)[0], resize, size)

    total = np.zeros((size, size, 3), np.int64)
    products = np.zeros((3, 3))
    with closing(map_in_order(crop, sample, threads, 4 * threads)) as crops:
        for image in crops:
            total += image
            # exact: integers far below 2^53
            pixels = image.reshape(-1, 3).astype(np.float64)
            products += pixels.T @ pixels
    for index in sorted(image_at.reasons):
        on_bad(image_at.reasons[index])
    pixel_mean = torch.from_numpy(total / len(sample)).permute(2, 0, 1).float()
    pixel_count = len(sample) * size * size
    mean = total.sum((0, 1)) / pixel_count
    covariance = products / pixel_count - np.outer(mean, mean)
    return pixel_mean.contiguous(), principal_components(covariance)


def principal_components(covariance: np.ndarray) -> Components:
    """Return the principal components for the covariance [3, 3] of pixels from 0 to 255.

    Each vector's sign is chosen so that the sum of its entries is not negative.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    vectors = vectors * np.where(vectors.sum(0) < 0, -1, 1)
    return Components(
        torch.from_numpy(values / LEVELS).float(), torch.from_numpy(vectors.copy()).float()
    )
