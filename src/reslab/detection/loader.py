"""What a detector sees in training: images and their objects, a function of (seed, iteration)."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reslab.data.boxes.sets import DetectionSet, GroundTruth
from reslab.data.datasets import ReplaceBad
from reslab.data.loader import CPU, BadFileLimit, Draws
from reslab.data.sampler import ShuffleSampler, Stream, make_generator
from reslab.detection.box_ops import boxes_to_network, clip, large_enough, resize_image
from reslab.runtime.device import Processes, SingleProcess
from reslab.runtime.events import Log
from reslab.runtime.threads import Prefetcher

MIN_OBJECT_SIDE = 1.0  # side of an object that is still to be found, in pixels as it is shown


@dataclass(frozen=True)
class Example:
    """One image as the network sees it."""

    image: Tensor  # float32 [1, 3, H, W], prepared, channels last, on the device
    boxes: Tensor  # float32 [N, 4], xyxy in pixels of `image`; the objects to find, if any is left
    labels: Tensor  # int64 [N], from 0
    ignored: Tensor  # float32 [I, 4]: crowds, that are neither objects nor background
    ratio: float  # pixels of `image` for a pixel of the image as it came
    seed: tuple[int, ...]  # key of the random numbers that sample anchors and regions


def replace_by_next(image: Callable[[int], np.ndarray], limit: BadFileLimit) -> ReplaceBad:
    """Replace a bad image by the next good one; more in a row than the limit are too many."""
    tried = min(limit.allowed + 1, limit.count)

    def candidates(index: int) -> Iterator[int]:
        return ((index + step) % limit.count for step in range(tried))

    return ReplaceBad(image, candidates, lambda index: limit.too_many(tried))


class DetectionLoader:
    """Shuffled, scaled and mirrored images of a set with boxes, on a device.

    Images without an object to find are left out, as in the released code. Batches may be asked
    for in any order; threads prepare those that follow. An image that is missing, does not decode
    or has another size than its annotations say is replaced by the next good one and logged once;
    more of them than one and than the share `bad_limit` are a ValueError. `prepare` turns RGB
    bytes [1, 3, H, W] into the network's input; threads call it.
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
        """Return the number of images to train on."""
        return len(self.rows)

    def __call__(self, iteration: int) -> list[Example]:
        """Return this process's part of the mini-batch of `iteration`, from 0."""
        return self.batch(self.draws(iteration))

    def draws(self, iteration: int) -> Draws:
        """Draw the mini-batch of `iteration`: images, two numbers from [0, 1) for side and flip
        [B, 2], and places in the whole mini-batch [B], a key of what is sampled later."""
        indices = self.sampler(iteration * self.size, self.size)
        rng = make_generator(self.seed, Stream.AUGMENTATION, iteration)
        numbers = torch.rand(self.size, 2, generator=rng, dtype=torch.float64)
        places, part = torch.arange(self.size), self.rank_slice
        return Draws(iteration, indices[part], (numbers[part], places[part]))

    def batch(self, draws: Draws) -> list[Example]:
        """Return the mini-batch that was drawn; threads have prepared it meanwhile."""
        shown = [future.result() for future in self.prefetcher(draws.iteration)]
        bad = [index for _, replaced in shown for index in replaced]
        self.bad_files.report({index: self.image.reasons[index] for index in bad})
        return [example for example, _ in shown]

    def close(self) -> None:
        """End the threads, each as soon as it is done with its image."""
        self.prefetcher.close()

    def _begin(self, threads: Executor, iteration: int) -> list[Future[Any]]:
        """Give each image to the threads: an Example, and the bad files met on the way to it."""
        draws = self.draws(iteration)
        numbers = (draws.indices, *draws.numbers)
        return [
            threads.submit(
                self._show,
                index,
                self.shorter[int(side * len(self.shorter))],
                self.flip and mirror < 0.5,
                (self.seed, Stream.SAMPLING, iteration, place),
            )
            for index, (side, mirror), place in zip(*(n.tolist() for n in numbers), strict=True)
        ]

    def _image(self, index: int) -> np.ndarray:
        """Return an image that is trained on as RGB bytes [H, W, 3]."""
        return self.train.image(self.rows[index])

    def _show(
        self, index: int, shorter: int, flip: bool, seed: tuple[int, ...]
    ) -> tuple[Example, list[int]]:
        """Return one image, or its replacement, and the bad images tried before."""
        image, index, bad = self.image(index)
        truth = self.train.truths[self.rows[index]]
        pixels = torch.from_numpy(resize_image(image, shorter, self.longest, flip))
        came, shown = ((size[1], size[0]) for size in (image.shape, pixels.shape))
        boxes = clip(boxes_to_network(truth.boxes, came, shown, flip), *shown)
        large = large_enough(boxes, MIN_OBJECT_SIDE)
        objects, crowds = is_trainable(truth) & large, truth.crowd & large
        example = Example(
            self.prepare(pixels.to(self.device).permute(2, 0, 1)[None]),  # bytes travel faster
            boxes[objects].to(self.device),
            truth.labels[objects].to(self.device),
            boxes[crowds].to(self.device),
            pixels.shape[1] / came[0],
            seed,
        )
        return example, bad


def is_trainable(truth: GroundTruth) -> Tensor:
    """Return which objects are trained on, bool [N]: neither difficult ones nor crowds.

    As in the released code VOC's difficult objects are background; crowds are ignored instead.
    """
    return ~(truth.difficult | truth.crowd)


def must_have_objects(name: str, truths: Sequence[GroundTruth]) -> None:
    """ValueError unless some image of the set `name` has an object to find."""
    if not any(is_trainable(truth).any() for truth in truths):
        raise ValueError(
            f"none of the {len(truths):,} images of {name} has an object to find: "
            "difficult objects and crowds do not count"
        )


def with_objects(train: DetectionSet) -> list[int]:
    """Return the images that have an object to find; ValueError if there is none."""
    must_have_objects(train.name, train.truths)
    return [row for row, truth in enumerate(train.truths) if is_trainable(truth).any()]
