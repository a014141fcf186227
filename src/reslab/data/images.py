"""A set of small pictures in memory."""

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Pictures of one size with their labels, as bytes."""

    name: str
    images: Tensor  # uint8 [N, 3, H, W]
    labels: Tensor  # int64 [N]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "ImageSet":
        """The same set in the memory of a device."""
        images, labels = self.images.to(device), self.labels.to(device)
        return ImageSet(self.name, images, labels, self.classes)

    def take(self, name: str, indices: Tensor) -> "ImageSet":
        """The pictures at `indices` as a set of its own."""
        return ImageSet(name, self.images[indices], self.labels[indices], self.classes)


@dataclass(frozen=True)
class Sets:
    """What one data set offers: its training pictures and its test."""

    train: ImageSet
    test: ImageSet


class Part(Protocol):
    """A set of pictures of which a part is again one."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def take(self, name: str, indices: Tensor) -> Self: ...


AnySet = TypeVar("AnySet", bound=Part)


def hold_out(train: AnySet, count: int) -> tuple[AnySet, AnySet]:
    """`train` without `count` pictures, and those pictures: always the same ones (Sec. 4.2)."""
    if not 0 < count < len(train):
        raise ValueError(f"held_out={count}: {train.name} has {len(train)} training pictures")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    kept, held = order[count:].sort().values, order[:count].sort().values
    return train.take(train.name, kept), train.take("held_out", held)


def pixel_mean(images: Tensor) -> Tensor:
    """The mean picture, [N, 3, H, W] -> [3, H, W], exact: summed as whole numbers."""
    return images.sum(0, dtype=torch.int64).double().div(len(images)).float()
