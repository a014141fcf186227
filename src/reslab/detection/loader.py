"""Training examples for a detector: images with objects, as a function of seed and iteration."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reslab.data.boxes.sets import DetectionSet, GroundTruth, GroundTruthTable
from reslab.data.datasets import ReplaceBad
from reslab.data.decode import ScaledImage
from reslab.data.loader import CPU, BadFileLimit, Draws
from reslab.data.sampler import ShuffleSampler, Stream, make_generator
from reslab.detection.box_ops import boxes_to_network, clip, large_enough, resize_image
from reslab.runtime.device import Processes, SingleProcess
from reslab.runtime.events import Log
from reslab.runtime.threads import Prefetcher

MIN_OBJECT_SIDE = 1.0  # pixels of the resized image; smaller objects are dropped


@dataclass(frozen=True)
class Example:
    """One training image as the network receives it, with its objects."""

    image: Tensor  # float32 [1, 3, H, W], preprocessed, channels last, on the device
    boxes: Tensor  # float32 [N, 4], xyxy in pixels of `image`: the objects to detect, possibly none
    labels: Tensor  # int64 [N], from 0
    ignored: Tensor  # float32 [I, 4]: crowds, which are neither objects nor background
    ratio: float  # pixels of `image` per pixel of the original image
    seed: tuple[int, ...]  # random seed for sampling anchors and regions


def replace_by_next(
    image: Callable[[int], ScaledImage], limit: BadFileLimit
) -> ReplaceBad[ScaledImage]:
    """Return a reader that replaces a bad image with the next good one.

    The reader raises ValueError if more consecutive images are bad than `limit` allows in total.
    """
    tried = min(limit.allowed + 1, limit.count)

    def candidates(index: int) -> Iterator[int]:
        return ((index + step) % limit.count for step in range(tried))

    return ReplaceBad(image, candidates, lambda index: limit.too_many(tried))


class DetectionLoader:
    """Load shuffled, scaled and mirrored images of a detection set onto a device.

    Images without an object to detect are left out, as in the released code. Mini-batches may be
    requested in any order; threads prepare the following ones ahead. An image that is missing,
    cannot be decoded or differs in size from its annotations is replaced by the next good one and
    logged once. Raise ValueError if more than the fraction `bad_limit` of the images are bad; one
    bad image is always allowed unless `bad_limit` is 0.
    `prepare` converts RGB bytes [1, 3, H, W] to the network's input and is called in the threads.
    """

    def __init__(
        self,
        train: DetectionSet,
        prepare: Callable[[Tensor], Tensor],
        *,
        shorter: Sequence[int],
        longest: int,
        flip: bool,
        size: int,
        seed: int,
        threads: int,
        bad_limit: float,
        log: Log,
        last: int | None = None,
        device: torch.device = CPU,
        processes: Processes = SingleProcess(),
    ) -> None:
        self.rank_slice = processes.rank_slice(size)
        self.train, self.prepare = train, prepare
        self.shorter, self.longest, self.flip = shorter, longest, flip
        self.size, self.seed, self.device = size, seed, device
        self.rows = with_objects(train)
        self.sampler = ShuffleSampler(self.count, seed, Stream.ORDER)
        self.bad_files = BadFileLimit(self.count, bad_limit, log, processes)
        self.image = replace_by_next(self._image, self.bad_files)
        self.prefetcher = Prefetcher(self._begin, threads, last)

    @property
    def count(self) -> int:
        """Return the number of training images."""
        return len(self.rows)

    def __call__(self, iteration: int) -> list[Example]:
        """Return this process's part of the mini-batch of `iteration`, counted from 0."""
        return self.batch(self.draws(iteration))

    def draws(self, iteration: int) -> Draws:
        """Sample this process's part of the mini-batch of `iteration`: image indices [B], numbers
        in [0, 1) for scale and flip [B, 2], and positions in the whole mini-batch [B], which seed
        later sampling."""
        indices = self.sampler(iteration * self.size, self.size)
        rng = make_generator(self.seed, Stream.AUGMENTATION, iteration)
        numbers = torch.rand(self.size, 2, generator=rng, dtype=torch.float64)
        positions, part = torch.arange(self.size), self.rank_slice
        return Draws(iteration, indices[part], (numbers[part], positions[part]))

    def batch(self, draws: Draws) -> list[Example]:
        """Return the mini-batch for `draws`, usually prepared by the threads already."""
        results = [future.result() for future in self.prefetcher(draws.iteration)]
        bad = [index for _, skipped in results for index in skipped]
        self.bad_files.report({index: self.image.reasons[index] for index in bad})
        return [example for example, _ in results]

    def close(self) -> None:
        """Stop the threads, each after its current image."""
        self.prefetcher.close()

    def _begin(self, threads: Executor, iteration: int) -> list[Future[Any]]:
        """Submit each image to the threads; each future returns what `_example` returns."""
        draws = self.draws(iteration)
        numbers = (draws.indices, *draws.numbers)
        return [
            threads.submit(
                self._example,
                index,
                self.shorter[int(side * len(self.shorter))],
                self.flip and mirror < 0.5,
                (self.seed, Stream.SAMPLING, iteration, position),
            )
            for index, (side, mirror), position in zip(*(n.tolist() for n in numbers), strict=True)
        ]

    def _image(self, index: int) -> ScaledImage:
        """Return a training image."""
        return self.train.scaled_image(self.rows[index])

    def _example(
        self, index: int, shorter: int, flip: bool, seed: tuple[int, ...]
    ) -> tuple[Example, list[int]]:
        """Return the example for an image or its replacement, and the bad images it replaces."""
        scaled, index, bad = self.image(index)
        image, full = scaled.pixels, (scaled.width, scaled.height)
        truth = self.train.truths[self.rows[index]]
        pixels = torch.from_numpy(resize_image(image, shorter, self.longest, flip))
        resized = pixels.shape[1], pixels.shape[0]
        boxes = clip(boxes_to_network(truth.boxes, full, resized, flip), *resized)
        large = large_enough(boxes, MIN_OBJECT_SIDE)
        objects, crowds = truth.trainable & large, truth.crowd & large
        example = Example(
            self.prepare(pixels.to(self.device).permute(2, 0, 1)[None]),  # bytes transfer faster
            boxes[objects].to(self.device),
            truth.labels[objects].to(self.device),
            boxes[crowds].to(self.device),
            resized[0] / full[0],
            seed,
        )
        return example, bad


def must_have_objects(name: str, truths: Sequence[GroundTruth]) -> None:
    """Raise ValueError unless some image of the set `name` has an object to detect."""
    if not any(truth.trainable.any() for truth in truths):
        raise ValueError(
            f"none of the {len(truths):,} images of {name} has an object to detect; "
            "difficult objects and crowds do not count"
        )


def with_objects(train: DetectionSet) -> list[int]:
    """Return the indices of images that have an object to detect; raise ValueError if none has."""
    must_have_objects(train.name, train.truths)
    truths = train.truths
    if isinstance(truths, GroundTruthTable):
        return truths.have_objects().nonzero()[:, 0].tolist()
    return [row for row, truth in enumerate(truths) if truth.trainable.any()]
