"""Images to log-probabilities: each image decoded once, for all views and sides."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from reslab.data.datasets import EncodedImages, ImagesInMemory
from reslab.data.decode import BadImage
from reslab.data.resize import resize_whole
from reslab.evaluation.views import View
from reslab.runtime.threads import map_in_order


@dataclass(frozen=True)
class Scores:
    """What a model makes of a set's images, as logarithms; NaN for those that are bad."""

    log_probabilities: Tensor  # float32 [N, classes]
    bad: dict[int, str]  # index of an image that could not be decoded -> "FILE: reason"


AnySet = ImagesInMemory | EncodedImages
ResizedViews = dict[
    int | None, Tensor
]  # an image by its shorter side, uint8 [3, h, w]; None: as it is

# fixed ranges of indices: results do not depend on who evaluates which range, or on the device
RANGE_IMAGES = 100  # small ones: what a layer makes of them stays near the processor
RANGE_FILES = 64  # of photographs, which are large
BATCH_PIXELS = RANGE_FILES * 224 * 224  # that a network is shown at a time
THINNEST = 50  # longer side to shorter: enlarged to 640, what is thinner would fill the memory


class Scorer(Protocol):
    """A model that can also be applied fully convolutionally."""

    def __call__(self, images: Tensor) -> Tensor: ...  # [B, 3, H, W] -> [B, classes]

    def dense(self, images: Tensor) -> Tensor: ...  # [B, 3, H, W] -> [B, classes, h, w]


Scorable = Callable[[Tensor], Tensor] | Scorer  # only views of all positions ask for `dense`


@dataclass(frozen=True)
class LoadedRange:
    """A range of a set: the images that could be decoded, and what is said of the others."""

    start: int
    stop: int
    positions: list[int]  # in the range, of the decoded images
    images: list[ResizedViews]
    bad: dict[int, str]  # index in the set -> "FILE: reason"


def ranges_of(images: AnySet) -> list[range]:
    """The ranges that a set is evaluated in."""
    size = RANGE_IMAGES if isinstance(images, ImagesInMemory) else RANGE_FILES
    count = len(images)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def load_ranges(
    images: AnySet, sides: Iterable[int | None], threads: int, ranges: Sequence[range]
) -> Iterator[LoadedRange]:
    """Ranges of a set one after the other, at every shorter side that is asked for."""
    wanted = list(dict.fromkeys(sides))
    if not wanted:
        yield from (LoadedRange(part.start, part.stop, [], [], {}) for part in ranges)
        return

    def load(index: int) -> ResizedViews | str:
        try:
            return resized(images, index, wanted)
        except BadImage as bad:
            return str(bad)

    indices = [index for part in ranges for index in part]
    if wanted == [None] and isinstance(images, ImagesInMemory):
        loaded: Iterator[ResizedViews | str] = ({None: images.images[at]} for at in indices)
    else:
        announced = indices if isinstance(images, ImagesInMemory) else images.announced(indices)
        loaded = map_in_order(load, announced, threads, ahead=RANGE_FILES)
    for part in ranges:
        found = list(islice(loaded, len(part)))
        good = [(at, it) for at, it in enumerate(found) if not isinstance(it, str)]
        yield LoadedRange(
            part.start, part.stop,
            positions=[at for at, _ in good],
            images=[it for _, it in good],
            bad={part.start + at: it for at, it in enumerate(found) if isinstance(it, str)},
        )  # fmt: skip


def resized(images: AnySet, index: int, sides: Sequence[int | None]) -> ResizedViews:
    """One image of a set at each of the sides, decoded once."""
    if isinstance(images, ImagesInMemory):
        pixels = images.images[index].permute(1, 2, 0).cpu().numpy()
        return at_sides(pixels, sides, f"image {index}")
    return at_sides(images.image(index), sides, images.files[index])


def at_sides(image: np.ndarray, sides: Iterable[int | None], file: str) -> ResizedViews:
    """An image, uint8 [H, W, 3], at each of the shorter sides; `file` is what errors call it.

    Too thin at one side is too thin at all: kept scores of parts agree with those of the whole.
    """
    height, width = image.shape[:2]
    if max(height, width) > THINNEST * min(height, width):
        raise BadImage(f"{file}: {width} x {height} pixels; at most {THINNEST} to 1 are shown")
    arrays = {side: image if side is None else resize_whole(image, side) for side in sides}
    # copied, for torch wants memory that it may write to
    return {side: torch.from_numpy(array.copy()).permute(2, 0, 1) for side, array in arrays.items()}


def log_probabilities(
    model: Scorable, images: Sequence[ResizedViews], view: View, device: torch.device
) -> Tensor:
    """What a model makes of one view of each image; float32 [B, classes] on the CPU.

    Images whose view has the same size are shown together.
    """
    shown = [view.of(image[view.side]) for image in images]
    by_size: dict[torch.Size, list[int]] = defaultdict(list)
    for at, crop in enumerate(shown):
        by_size[crop.shape].append(at)
    found: dict[int, Tensor] = {}
    for (_, height, width), places in by_size.items():
        count = max(1, BATCH_PIXELS // (height * width))
        for start in range(0, len(places), count):
            chosen = places[start : start + count]
            batch = torch.stack([shown[at] for at in chosen]).to(device)
            scores = cast(Scorer, model).dense(batch) if view.crop == "all" else model(batch)
            found |= zip(chosen, log_mean_softmax(scores), strict=True)
    return torch.stack([found[at] for at in range(len(shown))])


def log_mean_softmax(scores: Tensor) -> Tensor:
    """Scores [B, classes], or [B, classes, h, w] whose softmax is averaged over the positions ->
    log-probabilities, float32 [B, classes] on the CPU, computed in float64."""
    logs = scores.double().log_softmax(1)
    if logs.ndim == 4:
        logs = logs.flatten(2).logsumexp(2) - math.log(logs[0, 0].numel())
    return logs.float().cpu()


def log_mean(parts: Sequence[Tensor]) -> Tensor:
    """The mean of probabilities that are given and returned as logarithms; float32."""
    together = torch.stack([part.double() for part in parts])
    return (together.logsumexp(0) - math.log(len(parts))).float()


AVERAGED_ROWS = 10_000  # of scores that are averaged at a time


def ensemble(members: Sequence[Scores]) -> Scores:
    """The mean over models of their probabilities of the same images and the same classes."""
    first = members[0].log_probabilities
    assert all(member.log_probabilities.shape == first.shape for member in members)
    total = torch.empty_like(first)
    for start in range(0, len(first), AVERAGED_ROWS):
        here = slice(start, start + AVERAGED_ROWS)
        total[here] = log_mean([member.log_probabilities[here] for member in members])
    bad = {index: text for member in members for index, text in member.bad.items()}
    return Scores(total, bad)
