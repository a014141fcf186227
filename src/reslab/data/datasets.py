"""Sets of labelled images, in memory or encoded, and the names of their classes."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from reslab.data.class_names import ClassIndex
from reslab.data.decode import BadImage, load_image

SUMMED = 500  # images summed at a time
PREFETCHED = 512  # number of images fetched ahead of reading


@dataclass(frozen=True)
class ImagesInMemory:
    """Labelled uint8 images, all of the same size, in memory."""

    name: str
    images: Tensor  # uint8 [N, 3, H, W]
    labels: Tensor  # int64 [N]
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        size = list(self.images.shape[1:])
        classes = len(self.classes)
        return f"ImagesInMemory({self.name!r}: {len(self):,} images {size}, {classes:,} classes)"

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "ImagesInMemory":
        """Return the set with its tensors on `device`."""
        images, labels = self.images.to(device), self.labels.to(device)
        return ImagesInMemory(self.name, images, labels, self.classes)

    def take(self, name: str, indices: Tensor) -> "ImagesInMemory":
        """Return the images at `indices` as a new set."""
        return ImagesInMemory(name, self.images[indices], self.labels[indices], self.classes)


@dataclass(frozen=True)
class EncodedImages:
    """Labelled, encoded images of any size and format, read on demand."""

    name: str  # "train", "validation", or the name of the folder
    files: Sequence[str]  # one per image, relative to the root of the set
    labels: Tensor  # int64 [N]
    classes: tuple[str, ...]  # names for display
    ids: tuple[str, ...]  # the names of the subfolders: wnids for ImageNet
    read: Callable[[str], bytes]  # maps one of `files` to its bytes; thread-safe
    # starts fetching images that will be read soon; None if the images are local
    prefetch: Callable[[Sequence[str]], None] | None = None
    notes: tuple[str, ...] = ()  # a line for each kind of thing left out or assumed
    groups: Tensor | None = None  # int64 [N]; a split keeps images of one group (patient) together
    # for messages, if a table or shards have the labels: "the rows of DIR/train.csv"
    source: str = ""

    def __repr__(self) -> str:
        classes = len(self.classes)
        return f"EncodedImages({self.name!r}: {len(self):,} images, {classes:,} classes)"

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, name: str, indices: Tensor) -> "EncodedImages":
        """Return the images at `indices` as a new set."""
        files = [self.files[index] for index in indices.tolist()]
        groups = None if self.groups is None else self.groups[indices]
        return replace(self, name=name, files=files, labels=self.labels[indices], groups=groups)

    def shown(self, label: int) -> str:
        """Return a class for a message, with the file that has the labels."""
        return f"{self.ids[label]!r}{f' in {self.source}' if self.source else ''}"

    def image(self, index: int, as_stored: bool = False) -> np.ndarray:
        """Decode an image, RGB uint8 [H, W, 3], upright unless `as_stored`.

        Raise BadImage if it cannot be decoded.
        """
        file = self.files[index]
        return load_image(self.read(file), file, as_stored=as_stored)

    def prefetching(self, indices: Iterable[int]) -> Iterator[int]:
        """Yield the indices, fetching their images up to PREFETCHED positions ahead."""
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


Loaded = TypeVar("Loaded")  # a decoded image
Part = TypeVar("Part")  # a part of it, or a crop


class ReplaceBad(Generic[Loaded]):
    """Load images by index, and replace bad images in a way that depends on the set alone.

    `candidates` yields an index and then its possible replacements, in order of preference;
    `failure` returns the error message if all of them are bad. Calls are thread-safe. Bad images
    are remembered and not read again.
    """

    def __init__(
        self,
        image: Callable[[int], Loaded],
        candidates: Callable[[int], Iterator[int]],
        failure: Callable[[int], str],
    ) -> None:
        self.image, self.candidates, self.failure = image, candidates, failure
        self.reasons: dict[int, str] = {}  # why each bad image is bad, by index

    def __call__(self, index: int) -> tuple[Loaded, int, list[int]]:
        """Return an image, its index, and the bad indices tried before it."""
        return self.first_good(index, self.image)

    def first_good(self, index: int, load: Callable[[int], Part]) -> tuple[Part, int, list[int]]:
        """Return the result of `load`, its index, and the bad indices tried before it.

        `load` reads as much of an image as is needed, and raises BadImage or OSError as `image`
        does.
        """
        bad = []
        for candidate in self.candidates(index):
            if candidate not in self.reasons:
                try:
                    return load(candidate), candidate, bad
                except (BadImage, OSError) as error:  # a custom reader may raise OSError
                    self.reasons[candidate] = str(error)
            bad.append(candidate)
        raise ValueError(
            f"{self.failure(index)} (for example {self.reasons[index]}); "
            "`reslab check FOLDER` lists all bad files"
        )


def replace_within_class(images: EncodedImages) -> ReplaceBad[np.ndarray]:
    """Return a loader that replaces a bad image by the next good image of its class, cyclically."""

    def candidates(index: int) -> Iterator[int]:
        yield index
        same_class = (images.labels == images.labels[index]).nonzero()[:, 0]
        yield from same_class[same_class > index].tolist()
        yield from same_class[same_class < index].tolist()

    def failure(index: int) -> str:
        return f"no image of class {images.classes[int(images.labels[index])]!r} can be decoded"

    return ReplaceBad(images.image, candidates, failure)


ImageSet = ImagesInMemory | EncodedImages
AnySet = TypeVar("AnySet")


@dataclass(frozen=True)
class Splits(Generic[AnySet]):
    """A training and a test set with the same classes."""

    train: AnySet
    test: AnySet


MemorySplits = Splits[ImagesInMemory]
FolderSplits = Splits[EncodedImages]


def notes_of(*sets: ImageSet) -> tuple[str, ...]:
    """Return the notes of image sets, each once; sets in memory have none."""
    notes = [line for images in sets if isinstance(images, EncodedImages) for line in images.notes]
    return tuple(dict.fromkeys(notes))


def hold_out(train: ImageSet, count: int) -> tuple[ImageSet, ImageSet]:
    """Split `train` into training images and `count` held-out ones, always the same (Sec. 4.2)."""
    if not 0 < count < len(train):
        raise ValueError(
            f"held_out={count}: hold out 1 to {len(train) - 1} of the {len(train)} training images"
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    remaining, held_out = order[count:].sort().values, order[:count].sort().values
    return train.take(train.name, remaining), train.take("held_out", held_out)


def split_validation(whole: EncodedImages, validation: float, seed: int) -> FolderSplits:
    """Split off the fraction `validation` of each class, at least one image and never all.

    Images are ranked by a hash of seed and name, so the choice in one class is independent of other
    classes, and images added later do not change the rank of earlier ones.
    """
    counts = whole.labels.bincount(minlength=len(whole.ids))
    if (counts < 2).any():
        few = int((counts < 2).nonzero()[0])
        only = [whole.files[row] for row in (whole.labels == few).nonzero()[:, 0].tolist()]
        raise ValueError(
            f"class {whole.shown(few)} has {'one image' if only else 'no images'}, but a split "
            "needs two: add images, remove the class, or create train/ and val/ yourself"
            + "".join(f" (the image is {file})" for file in only)
        )
    rows_by_class = whole.labels.argsort(stable=True).split(counts.tolist())
    train, held_out = draw_validation(whole.files, validation, seed, rows_by_class)
    return Splits(whole.take("train", train), whole.take("validation", held_out))


def draw_validation(
    files: Sequence[str], validation: float, seed: int, groups: Iterable[Tensor]
) -> tuple[Tensor, Tensor]:
    """Choose the fraction `validation` of each group of rows; return (other rows, chosen rows).

    Files are ranked by a hash of seed and name, so files added later do not change the rank of
    earlier ones. Raise ValueError unless the fraction is between 0 and 1.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation={validation}: the fraction must be between 0 and 1")
    key = str(seed).encode()
    ranks = [blake2b(os.fsencode(file), digest_size=8, key=key).digest() for file in files]
    drawn = torch.zeros(len(files), dtype=torch.bool)
    for rows in groups:
        number = min(max(round(validation * len(rows)), 1), len(rows) - 1)
        drawn[sorted(rows.tolist(), key=ranks.__getitem__)[:number]] = True
    return (~drawn).nonzero()[:, 0], drawn.nonzero()[:, 0]


def pixel_mean(images: Tensor) -> Tensor:
    """Return the mean image, [N, 3, H, W] -> [3, H, W], computed from exact integer sums."""
    total = torch.zeros(images.shape[1:], dtype=torch.int64, device=images.device)
    for some in images.split(SUMMED):
        total += some.sum(0, dtype=torch.int64)  # torch converts all that it sums at once
    return total.double().div(len(images)).float()


def align_labels(train: EncodedImages, test: EncodedImages) -> EncodedImages:
    """Relabel `test` with the classes of `train`, which must include all classes of `test`."""
    positions = ClassIndex(train.ids).match([(id_,) for id_ in test.ids])
    labels = torch.tensor(positions)[test.labels]
    return replace(test, labels=labels, classes=train.classes, ids=train.ids)
