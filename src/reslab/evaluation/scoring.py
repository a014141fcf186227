"""Compute the log-probabilities of images, each of which is decoded once for all views."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from reslab.data.datasets import ImageSet, ImagesInMemory
from reslab.data.decode import BadImage
from reslab.data.resize import Interpolation, resize_whole, resize_whole_to_centre, too_thin
from reslab.evaluation.views import Sizes, View
from reslab.runtime.threads import map_in_order

# shorter side -> resized image or its centre, uint8 [3, h, w]; None -> the image itself
ResizedViews = dict[int | None, Tensor]

# index ranges are fixed, so that results do not depend on the device or the process that
# evaluates a range
RANGE_IMAGES = 256  # for small images
RANGE_FILES = 64  # for photographs, which are large
# Pixels per forward pass. On a CPU, the activations for small images should stay in its cache;
# with larger images, more must share the time that it takes to read the weights.
GPU_PIXELS = RANGE_FILES * 224 * 224
CPU_PIXELS = 16 * 224 * 224
SMALL_CPU_PIXELS = 32 * 32 * 32
SMALL_IMAGE = 64 * 64  # pixels
ENSEMBLE_ROWS = 10_000  # rows of scores averaged at a time


@dataclass(frozen=True)
class Scores:
    """The log-probabilities of a set's images; NaN for images that could not be decoded."""

    log_probabilities: Tensor  # float32 [N, classes]
    bad: dict[int, str]  # index of an image that could not be decoded -> "FILE: reason"


class Scorer(Protocol):
    """A classifier that can also be applied fully convolutionally."""

    def __call__(self, images: Tensor) -> Tensor: ...  # [B, 3, H, W] -> [B, classes]

    def dense(self, images: Tensor) -> Tensor: ...  # [B, 3, H, W] -> [B, classes, h, w]


@dataclass(frozen=True)
class Reading:
    """How the image files of a set become pixels of a view's size."""

    interpolation: Interpolation = "bilinear"
    as_stored: bool = False  # whether the EXIF orientation is ignored


Scorable = Callable[[Tensor], Tensor] | Scorer  # only the view "all" needs `dense`


@dataclass(frozen=True)
class LoadedRange:
    """A range of a set: its decoded images, and the errors of undecodable ones."""

    indices: range
    positions: list[int]  # of the decoded images, in the range
    images: list[ResizedViews]
    bad: dict[int, str]  # index in the set -> "FILE: reason"


def split_into_ranges(images: ImageSet) -> list[range]:
    size = RANGE_IMAGES if isinstance(images, ImagesInMemory) else RANGE_FILES
    count = len(images)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def load_ranges(
    images: ImageSet,
    sizes: Sizes,
    threads: int,
    ranges: Sequence[range],
    reading: Reading = Reading(),
) -> Iterator[LoadedRange]:
    """Decode a set range by range, and resize each image as in `resize_to_sizes`."""
    if not sizes:
        yield from (LoadedRange(indices, [], [], {}) for indices in ranges)
        return

    def load(index: int) -> ResizedViews | str:
        try:
            return load_resized(images, index, sizes, reading)
        except BadImage as error:
            return str(error)

    order = [index for indices in ranges for index in indices]
    if list(sizes) == [None] and isinstance(images, ImagesInMemory):
        loaded: Iterator[ResizedViews | str] = ({None: images.images[index]} for index in order)
    else:
        prefetched = order if isinstance(images, ImagesInMemory) else images.prefetching(order)
        loaded = map_in_order(load, prefetched, threads, ahead=RANGE_FILES)
    for indices in ranges:
        items = list(enumerate(islice(loaded, len(indices))))
        good = [(position, item) for position, item in items if not isinstance(item, str)]
        yield LoadedRange(
            indices,
            positions=[position for position, _ in good],
            images=[image for _, image in good],
            bad={indices[position]: item for position, item in items if isinstance(item, str)},
        )


def load_resized(
    images: ImageSet, index: int, sizes: Sizes, reading: Reading = Reading()
) -> ResizedViews:
    """Decode one image in a set, and resize it."""
    if isinstance(images, ImagesInMemory):
        pixels = images.images[index].permute(1, 2, 0).cpu().numpy()
        return resize_to_sizes(pixels, sizes, f"image {index}", reading.interpolation)
    pixels = images.image(index, reading.as_stored)
    return resize_to_sizes(pixels, sizes, images.files[index], reading.interpolation)


def resize_to_sizes(
    image: np.ndarray, sizes: Sizes, file: str, interpolation: Interpolation = "bilinear"
) -> ResizedViews:
    """Resize an image, uint8 [H, W, 3], to each shorter side, or compute only its centre there.

    Raise BadImage, naming `file`, if the image is very thin, regardless of the sizes, so that the
    cached scores of all views have the same bad images.
    """
    height, width = image.shape[:2]
    if reason := too_thin(width, height):
        raise BadImage(f"{file}: {reason}")
    arrays = {side: resized(image, side, size, interpolation) for side, size in sizes.items()}
    # copied, because torch requires writable memory
    return {side: torch.from_numpy(array.copy()).permute(2, 0, 1) for side, array in arrays.items()}


def resized(
    image: np.ndarray, side: int | None, size: int | None, interpolation: Interpolation
) -> np.ndarray:
    """Resize an image to a shorter side, or return its central `size` x `size` pixels there."""
    if side is None:
        return image
    if size is None:
        return resize_whole(image, side, interpolation)
    return resize_whole_to_centre(image, side, size, interpolation)


def log_probabilities(
    model: Scorable, images: Sequence[ResizedViews], view: View, device: torch.device
) -> Tensor:
    """Return the log-probabilities for one view of each image; float32 [B, classes] on the CPU.

    Views of the same size are processed in batches.
    """
    crops = [view.of(image[view.side]) for image in images]
    by_shape: dict[torch.Size, list[int]] = defaultdict(list)
    for index, crop in enumerate(crops):
        by_shape[crop.shape].append(index)
    rows: dict[int, Tensor] = {}
    for (_, height, width), indices in by_shape.items():
        count = images_per_pass(height * width, device)
        for start in range(0, len(indices), count):
            members = indices[start : start + count]
            batch = torch.stack([crops[index] for index in members]).to(device)
            scores = cast(Scorer, model).dense(batch) if view.crop == "all" else model(batch)
            rows |= zip(members, log_mean_softmax(scores), strict=True)
    return torch.stack([rows[index] for index in range(len(crops))])


def images_per_pass(pixels: int, device: torch.device) -> int:
    """Return how many images of a size go through the network together.

    The number does not depend on the processor or the threads, because kernels may round
    differently for other numbers of images.
    """
    on_cpu = SMALL_CPU_PIXELS if pixels <= SMALL_IMAGE else CPU_PIXELS
    return max(1, (on_cpu if device.type == "cpu" else GPU_PIXELS) // pixels)


def log_mean_softmax(scores: Tensor) -> Tensor:
    """Convert scores to log-probabilities, float32 [B, classes] on the CPU, in float64 arithmetic.

    Scores are [B, classes] or [B, classes, h, w]; in the second case the softmax is averaged over
    all positions.
    """
    logs = scores.double().log_softmax(1)
    if logs.ndim == 4:
        logs = logs.flatten(2).logsumexp(2) - math.log(logs[0, 0].numel())
    return logs.float().cpu()


def log_mean(parts: Sequence[Tensor]) -> Tensor:
    """Average probabilities, given and returned as logarithms; float32, summed in float64."""
    stacked = torch.stack([part.double() for part in parts])
    return (stacked.logsumexp(0) - math.log(len(parts))).float()


def ensemble(members: Sequence[Scores]) -> Scores:
    """Average the probabilities of several models for the same images and classes."""
    first = members[0].log_probabilities
    assert all(member.log_probabilities.shape == first.shape for member in members)
    total = torch.empty_like(first)
    for start in range(0, len(first), ENSEMBLE_ROWS):
        rows = slice(start, start + ENSEMBLE_ROWS)
        total[rows] = log_mean([member.log_probabilities[rows] for member in members])
    bad = {index: text for member in members for index, text in member.bad.items()}
    return Scores(total, bad)
