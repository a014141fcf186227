"""Sets of labelled images: in memory, or encoded in files or shards."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from reslab.data.decode import decode_image

PREFETCHED = 512  # images that a set may begin to fetch before they are read


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
        """Return the set in the memory of a device."""
        images, labels = self.images.to(device), self.labels.to(device)
        return ImagesInMemory(self.name, images, labels, self.classes)

    def take(self, name: str, indices: Tensor) -> "ImagesInMemory":
        """Return the images at `indices` as a set of their own."""
        return ImagesInMemory(name, self.images[indices], self.labels[indices], self.classes)


@dataclass(frozen=True)
class EncodedImages:
    """Encoded images of any size and format; none of their bytes are in memory."""

    name: str  # "train", "validation", or what its folder is called
    files: Sequence[str]  # what each image is called, relative to the root of its set
    labels: Tensor  # int64 [N]
    classes: tuple[str, ...]  # names for people
    ids: tuple[str, ...]  # the names of the subfolders: wnids for ImageNet
    read: Callable[[str], bytes]  # a file's name to its bytes; any thread may call it
    # begins to fetch images that will be read soon; None where there is nothing to fetch
    prefetch: Callable[[Sequence[str]], None] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, name: str, indices: Tensor) -> "EncodedImages":
        """Return the images at `indices` as a set of their own."""
        files = [self.files[index] for index in indices.tolist()]
        return replace(self, name=name, files=files, labels=self.labels[indices])

    def image(self, index: int) -> np.ndarray:
        """Decode an image, RGB uint8 [H, W, 3]; BadImage names the file and the reason."""
        return decode_image(self.read(self.files[index]), self.files[index])

    def prefetching(self, indices: Iterable[int]) -> Iterator[int]:
        """Yield the indices, each some time after the set began to fetch its image."""
        if self.prefetch is None:
            yield from indices
            return
        coming: deque[int] = deque()
        for index in indices:
            self.prefetch([self.files[index]])
            coming.append(index)
            if len(coming) > PREFETCHED:
                yield coming.popleft()
        yield from coming


ImageSet = ImagesInMemory | EncodedImages
AnySet = TypeVar("AnySet")


@dataclass(frozen=True)
class Splits(Generic[AnySet]):
    """A set to train on and one to test with, labelled by the same classes."""

    train: AnySet
    test: AnySet


MemorySplits = Splits[ImagesInMemory]


def hold_out(train: ImageSet, count: int) -> tuple[ImageSet, ImageSet]:
    """Take `count` images out of `train`, always the same ones (Sec. 4.2); return both parts."""
    if not 0 < count < len(train):
        raise ValueError(f"held_out={count}: {train.name} has {len(train)} training images")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    remaining, held_out = order[count:].sort().values, order[:count].sort().values
    return train.take(train.name, remaining), train.take("held_out", held_out)


def pixel_mean(images: Tensor) -> Tensor:
    """Return the mean image, [N, 3, H, W] -> [3, H, W], exact: summed as whole numbers."""
    return images.sum(0, dtype=torch.int64).double().div(len(images)).float()
