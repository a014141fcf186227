"""Compute the log-probabilities of images, each of which is decoded once for all views."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from reslab.data.datasets import ImageSet, ImagesInMemory
from reslab.data.decode import BadImage
from reslab.data.resize import resize_whole, too_thin
from reslab.evaluation.views import View
from reslab.runtime.threads import map_in_order

# shorter side -> resized image, uint8 [3, h, w]; None -> the image itself
ResizedViews = dict[int | None, Tensor]

# index ranges are fixed, so that results do not depend on the device or the process that
# evaluates a range
RANGE_IMAGES = 100  # for small images: activations fit in the CPU cache
RANGE_FILES = 64  # for photographs, which are large
BATCH_PIXELS = RANGE_FILES * 224 * 224  # pixels per forward pass
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
    images: ImageSet, sides: Iterable[int | None], threads: int, ranges: Sequence[range]
) -> Iterator[LoadedRange]:
    """Decode a set range by range, and resize each image to every shorter side in `sides`."""
    sides = list(dict.fromkeys(sides))
    if not sides:
        yield from (LoadedRange(indices, [], [], {}) for indices in ranges)
        return

    def load(index: int) -> ResizedViews | str:
        try:
            return load_resized(images, index, sides)
        except BadImage as error:
            return str(error)

    order = [index for indices in ranges for index in indices]
    if sides == [None] and isinstance(images, ImagesInMemory):
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


def load_resized(images: ImageSet, index: int, sides: Sequence[int | None]) -> ResizedViews:
    """Decode one image in a set, and resize it to each shorter side."""
    if isinstance(images, ImagesInMemory):
        pixels = images.images[index].permute(1, 2, 0).cpu().numpy()
        return at_sides(pixels, sides, f"image {index}")
    return at_sides(images.image(index), sides, images.files[index])


def at_sides(image: np.ndarray, sides: Iterable[int | None], file: str) -> ResizedViews:
    """Resize an image, uint8 [H, W, 3], to each shorter side.

    Raise BadImage, naming `file`, if the image is very thin, regardless of the sides, so that the
    cached scores of all views have the same bad images.
    """
    height, width = image.shape[:2]
    if reason := too_thin(width, height):
        raise BadImage(f"{file}: {reason}")
    arrays = {side: image if side is None else resize_whole(image, side) for side in sides}
    # copied, because torch requires writable memory
    return {side: torch.from_numpy(array.copy()).permute(2, 0, 1) for side, array in arrays.items()}


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
        count = max(1, BATCH_PIXELS // (height * width))
        for start in range(0, len(indices), count):
            members = indices[start : start + count]
            batch = torch.stack([crops[index] for index in members]).to(device)
            scores = cast(Scorer, model).dense(batch) if view.crop == "all" else model(batch)
            rows |= zip(members, log_mean_softmax(scores), strict=True)
    return torch.stack([rows[index] for index in range(len(crops))])


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
