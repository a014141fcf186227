"""A set of small images in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from reslab.data.decode import decode_image


@dataclass(frozen=True)
class ImagesInMemory:
    """Images of one size with their labels, as bytes."""

    name: str
    images: Tensor  # uint8 [N, 3, H, W]
    labels: Tensor  # int64 [N]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "ImagesInMemory":
        """The same set in the memory of a device."""
        images, labels = self.images.to(device), self.labels.to(device)
        return ImagesInMemory(self.name, images, labels, self.classes)

    def take(self, name: str, indices: Tensor) -> "ImagesInMemory":
        """The images at `indices` as a set of its own."""
        return ImagesInMemory(name, self.images[indices], self.labels[indices], self.classes)


@dataclass(frozen=True)
class MemorySplits:
    """What one data set offers: its training images and its test."""

    train: ImagesInMemory
    test: ImagesInMemory


class Part(Protocol):
    """A set of images of which a part is again one."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def take(self, name: str, indices: Tensor) -> Self: ...


AnySubset = TypeVar("AnySubset", bound=Part)


def hold_out(train: AnySubset, count: int) -> tuple[AnySubset, AnySubset]:
    """`train` without `count` images, and those images: always the same ones (Sec. 4.2)."""
    if not 0 < count < len(train):
        raise ValueError(f"held_out={count}: {train.name} has {len(train)} training images")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    kept, held = order[count:].sort().values, order[:count].sort().values
    return train.take(train.name, kept), train.take("held_out", held)


def pixel_mean(images: Tensor) -> Tensor:
    """The mean image, [N, 3, H, W] -> [3, H, W], exact: summed as whole numbers."""
    return images.sum(0, dtype=torch.int64).double().div(len(images)).float()


EXPECTED = 512  # images that a set hears of before they are read


@dataclass(frozen=True)
class EncodedImages:
    """Encoded images of any size and format; nothing of them is in memory."""

    name: str  # "train", "validation", or what its folder is called
    files: Sequence[str]  # what each image is called, relative to the root of its set
    labels: Tensor  # int64 [N]
    classes: tuple[str, ...]  # names for people
    ids: tuple[str, ...]  # the names of the subfolders: wnids for ImageNet
    read: Callable[[str], bytes]  # a file's name to its bytes; any thread may call it
    # hears the names of images that will be read soon; None: there is nothing to prepare
    expect: Callable[[Sequence[str]], None] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, name: str, indices: Tensor) -> "EncodedImages":
        """The images at `indices` as a set of its own."""
        files = [self.files[index] for index in indices.tolist()]
        return replace(self, name=name, files=files, labels=self.labels[indices])

    def image(self, index: int) -> np.ndarray:
        """RGB bytes [H, W, 3]; BadImage says which file is bad, and why."""
        return decode_image(self.read(self.files[index]), self.files[index])

    def announced(self, indices: Iterable[int]) -> Iterator[int]:
        """The same indices; the set hears of each some time before it is taken."""
        if self.expect is None:
            yield from indices
            return
        coming: deque[int] = deque()
        for index in indices:
            self.expect([self.files[index]])
            coming.append(index)
            if len(coming) > EXPECTED:
                yield coming.popleft()
        yield from coming


ImageSet = ImagesInMemory | EncodedImages
