"""The preprocessing of a network's input images, stored in the model file."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Channels = Literal["RGB", "BGR"]
Interpolation = Literal["bilinear", "bicubic"]
# facts that a model file has only with another value than this
OPTIONAL = {"interpolation": "bilinear", "as_stored": False}
MEAN_NAME, STD_NAME = "preprocessing.mean", "preprocessing.std"


@dataclass(frozen=True)
class Preprocessing:
    """Subtract the mean, divide by the standard deviation, and order the channels.

    The paper only subtracts: its `std` is one. `resize` and `size` are the shorter side and the
    centre crop of a one-crop test; if they are None, images keep their size. `as_stored` is for
    published weights: the images of a test set are then not turned upright, as in the published
    figures; those to predict always are.
    """

    mean: Tensor  # mean image [3, H, W] or colour [3, 1, 1]; RGB from 0 to 255
    std: Tensor  # [3, 1, 1], RGB
    channels: Channels = "RGB"  # the order in which the network was trained
    resize: int | None = None
    size: int | None = None
    interpolation: Interpolation = "bilinear"  # antialiased
    as_stored: bool = False  # whether a test ignores the EXIF orientation
    _rows: Tensor = field(init=False)  # the mean, in the memory layout of images
    _divides: bool = field(init=False)

    def __post_init__(self) -> None:
        """Prepare for each batch what would take as long as preprocessing it."""
        object.__setattr__(self, "_rows", full_rows(self.mean, self.mean.shape[-1]))
        object.__setattr__(self, "_divides", bool((self.std != 1).any()))

    def __repr__(self) -> str:
        mean, std = list(self.mean.shape), list(self.std.shape)
        return (
            f"Preprocessing(mean={mean}, std={std}, channels={self.channels!r}, "
            f"resize={self.resize}, size={self.size}, interpolation={self.interpolation!r})"
        )

    @staticmethod
    def of(
        mean: Sequence[float] | np.ndarray | Tensor,
        std: Sequence[float] = (1.0, 1.0, 1.0),
        *,
        size: int | None = None,
        resize: int | None = None,
    ) -> "Preprocessing":
        """Return the preprocessing with these numbers, for RGB from 0 to 255.

        `mean` is a colour of three numbers or a mean image [3, H, W]. A one-crop test takes the
        central `size` x `size` pixels after resizing the shorter side to `resize` (by default
        `size`); without them images keep their size. Raise ValueError for other shapes, and for
        numbers that are meant for pixels from 0 to 1.
        """
        values = torch.as_tensor(mean, dtype=torch.float32)
        deviations = torch.as_tensor(std, dtype=torch.float32)
        if values.ndim == 1:
            values = values[:, None, None]
        if values.ndim != 3 or len(values) != 3 or deviations.shape != (3,):
            shapes = f"{list(values.shape)} and {list(deviations.shape)}"
            raise ValueError(
                f"mean and std have the shapes {shapes}: they must be [3] or [3, H, W], and [3]"
            )
        if not bool((deviations > 0).all()):
            raise ValueError(f"std {deviations.tolist()} must be above 0")
        if bool((values > 0).any()) and values.max() < 1 and deviations.max() < 1:
            raise ValueError(
                f"mean {values.mean((1, 2)).tolist()} and std {deviations.tolist()} are for pixels "
                "from 0 to 1, but here pixels go to 255: multiply both by 255"
            )
        if resize is not None and size is not None and resize < size:
            raise ValueError(f"resize={resize} must be at least size={size}, the crop")
        resize = size if resize is None else resize
        return Preprocessing(values, deviations[:, None, None], resize=resize, size=size)

    def to(self, device: torch.device) -> "Preprocessing":
        """Return the same preprocessing with its tensors on a device."""
        return replace(self, mean=self.mean.to(device), std=self.std.to(device))

    def __call__(self, images: Tensor) -> Tensor:
        """Preprocess RGB [B, 3, H, W] from 0 to 255, uint8 or float -> float, channels last.

        If the mean image has another size than the images, as in multi-scale testing, its average
        colour is subtracted instead.
        """
        converted = images.to(torch.float32, memory_format=torch.channels_last)
        return self._apply(converted, None if converted is images else converted)

    def in_place(self, images: Tensor) -> Tensor:
        """Preprocess float images as `__call__` does, overwriting them if they are channels last.

        A batch of photographs is large: new memory for it takes longer than the arithmetic.
        """
        converted = images.to(memory_format=torch.channels_last)
        return self._apply(converted, converted)

    def _apply(self, images: Tensor, out: Tensor | None) -> Tensor:
        """Preprocess float images that are channels last, into `out` if it is given."""
        height, width = images.shape[-2:]
        prepared = torch.sub(images, self.mean_rows(height, width), out=out)
        if self._divides:
            prepared.div_(full_rows(self.std, width))
        if self.channels == "BGR":
            prepared = prepared.flip(1)
        return prepared.contiguous(memory_format=torch.channels_last)

    def mean_rows(self, height: int, width: int) -> Tensor:
        """Return what is subtracted from images of this size, [1, 3, H or 1, W], channels last."""
        if self._rows.shape[-2:] == (height, width):
            return self._rows
        return full_rows(self.mean.mean((1, 2), keepdim=True), width)

    def for_run(self, resize: int | None, size: int | None) -> "Preprocessing":
        """Return the preprocessing of a run that starts from weights with this one.

        Only the colours are kept: runs resize bilinearly, and turn all images upright.
        """
        return replace(self, resize=resize, size=size, interpolation="bilinear", as_stored=False)

    def facts(self) -> dict[str, Any]:
        """Return all fields except the tensors, for the JSON in the model file.

        Fields that older files do not have are left out if they have the default value.
        """
        facts = {"channels": self.channels, "resize": self.resize, "size": self.size}
        added = {"interpolation": self.interpolation, "as_stored": self.as_stored}
        return facts | {name: added[name] for name in OPTIONAL if added[name] != OPTIONAL[name]}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors under their names in the model file."""
        return {MEAN_NAME: self.mean, STD_NAME: self.std}


def full_rows(values: Tensor, width: int) -> Tensor:
    """Expand [3, H or 1, W or 1] to [1, 3, H or 1, W], channels last like the images.

    torch then processes whole rows, three times as fast as single pixels.
    """
    values = values.expand(-1, -1, width)[None]
    return values.contiguous(memory_format=torch.channels_last)


def minus_mean(mean: Tensor) -> Preprocessing:
    """Return the paper's preprocessing, which only subtracts the mean."""
    return Preprocessing(mean, torch.ones(3, 1, 1, device=mean.device))
