"""Mini-batch k as a function of (seed, k) alone: no state to save, nothing to replay."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future, wait
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from reslab.data.augment import ResizedCrop, ScaleCrop
from reslab.data.batch_augment import draw_flips, draw_offsets, flip, pad_and_crop
from reslab.data.crop_reader import CropReader
from reslab.data.datasets import PREFETCHED, EncodedImages, ImagesInMemory, replace_within_class
from reslab.data.sampler import Stream, make_generator, make_sampler
from reslab.data.statistics import Components, colour_shift
from reslab.runtime.device import Processes, SingleProcess
from reslab.runtime.events import Log
from reslab.runtime.threads import Prefetcher

CPU = torch.device("cpu")
WHOLE_BATCH = slice(None)


@dataclass(frozen=True)
class Draws:
    """The random choices for this process's part of a mini-batch, as CPU tensors.

    They depend only on (seed, iteration), and the mini-batch depends only on them.
    """

    iteration: int  # from 0
    indices: Tensor  # int64 [B]: the images, before bad images are replaced
    numbers: tuple[Tensor, ...]  # the random numbers for the augmentation, [B, ...] each
    network: tuple[Tensor, ...] = ()  # the random numbers for the network's layers, [B, ...] each


@dataclass(frozen=True)
class Batch:
    """Preprocessed images and their labels."""

    images: Tensor  # float [B, 3, H, W], mean subtracted, channels last
    labels: Tensor  # int64 [B]
    network: tuple[Tensor, ...] = ()  # the random numbers for the network's layers, [B, ...] each


# Return the images at the given indices [B], preprocessed and augmented: [B, 3, H, W], channels
# last. They are cropped at offsets in the padded images [B, 2], and flipped where `flips` [B] is
# True; either may be None.
Crop = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


class InMemoryLoader:
    """Load shuffled, augmented mini-batches from a set in memory.

    The permutations of successive epochs are concatenated: the last, partial batch of an epoch is
    completed with images of the next epoch. `rank_slice` is this process's part of each mini-batch.
    """

    def __init__(
        self,
        train: ImagesInMemory,
        prepare: Callable[[Tensor], Tensor],
        *,
        size: int,
        pad: int,
        flip: bool,
        seed: int,
        balanced: bool = False,
        rank_slice: slice = WHOLE_BATCH,
    ) -> None:
        self.images, self.labels, self.prepare = train.images, train.labels, prepare
        self.size, self.pad, self.flip, self.seed = size, pad, flip, seed
        self.sampler = make_sampler(train.labels.cpu(), seed, balanced=balanced)
        self.rank_slice = rank_slice
        self.crop: Crop = self.crop_of_torch

    def indices(self, iteration: int) -> Tensor:
        """Return the image indices of the mini-batch of `iteration`, counted from 0; [B]."""
        return self.sampler(iteration * self.size, self.size)

    def draws(self, iteration: int) -> Draws:
        """Sample images [B], offsets [B, 2] and flips [B] for the mini-batch of `iteration`."""
        size, rank_slice = self.size, self.rank_slice
        rng = make_generator(self.seed, Stream.AUGMENTATION, iteration)
        numbers = []
        if self.pad:
            numbers.append(draw_offsets(size, self.pad, rng)[rank_slice])
        if self.flip:
            numbers.append(draw_flips(size, rng)[rank_slice])
        return Draws(iteration, self.indices(iteration)[rank_slice], tuple(numbers))

    def batch(self, draws: Draws) -> Batch:
        """Return the mini-batch for the given draws."""
        indices, numbers = draws.indices.to(self.images.device), iter(draws.numbers)
        offsets = next(numbers) if self.pad else None
        flips = next(numbers) if self.flip else None
        return Batch(self.crop(indices, offsets, flips), self.labels[indices])

    def with_crop(self, crop: Crop) -> Self:
        """Return a loader of the same mini-batches that computes images with `crop`."""
        loader = copy(self)
        loader.crop = crop
        return loader

    def crop_of_torch(
        self, indices: Tensor, offsets: Tensor | None, flips: Tensor | None
    ) -> Tensor:
        """Crop images as `Crop` says, on any device."""
        images = self.prepare(self.images[indices])
        if offsets is not None:
            images = pad_and_crop(images, self.pad, offsets, flips)
        elif flips is not None:
            images = flip(images, flips)
        return images.contiguous(memory_format=torch.channels_last)

    def __call__(self, iteration: int) -> Batch:
        """Return this process's part of the mini-batch of `iteration`, from 0."""
        return self.batch(self.draws(iteration))


class BadFileLimit:
    """Report each bad file of a set once, in every process; raise ValueError if too many are bad.

    `limit` is the allowed fraction of the `count` files.
    """

    def __init__(self, count: int, limit: float, log: Log, processes: Processes) -> None:
        self.count, self.limit, self.log, self.processes = count, limit, log, processes
        self.reported: set[int] = set()

    @property
    def allowed(self) -> int:
        """The allowed number of bad files: at least one, unless the limit is 0."""
        return int(max(self.limit * self.count, self.limit > 0))

    def report(self, reasons: Mapping[int, str]) -> None:
        """Log the bad files of all processes, except those reported before.

        `reasons` are the error messages of this process's bad files, by index. Raise ValueError if
        all processes together have too many bad files.
        """
        for reasons_of_process in self.processes.all_gather_objects(reasons):
            for index, reason in reasons_of_process.items():
                if index not in self.reported:
                    self.reported.add(index)
                    self.log(f"skipped {reason}")
            if len(self.reported) > self.allowed:
                raise ValueError(
                    f"{self.too_many(len(self.reported))}; `reslab check FOLDER` lists all bad "
                    "files"
                )

    def too_many(self, bad: int) -> str:
        """Return the error message for `bad` bad files."""
        return (
            f"{bad:,} of {self.count:,} images cannot be used, but bad_limit={self.limit:g} "
            f"allows {self.allowed:,}"
        )


class EncodedLoader:
    """Load shuffled, augmented mini-batches from a set of encoded images onto a device.

    Batches may be requested in any order; threads decode the following batches in advance, up to
    iteration `last`, exclusive. A bad file is replaced by another file of its class and logged
    once. Raise ValueError if more files are bad than `bad_limit`, a fraction of the set, allows
    (see `BadFileLimit`). Each process prepares its part of a mini-batch, and logs the bad files
    of all processes. `prepare` maps float RGB [B, 3, S, S] from 0 to 255 to the network's
    input, in threads; it may overwrite them.
    """

    def __init__(
        self,
        train: EncodedImages,
        prepare: Callable[[Tensor], Tensor],
        *,
        augmentation: ScaleCrop | ResizedCrop,
        colour: Components | None,
        size: int,
        seed: int,
        threads: int,
        balanced: bool,
        bad_limit: float,
        log: Log,
        last: int | None = None,
        device: torch.device = CPU,
        processes: Processes = SingleProcess(),
    ) -> None:
        self.rank_slice = processes.rank_slice(size)
        self.train, self.prepare = train, prepare
        self.augmentation, self.colour = augmentation, colour
        self.size, self.seed, self.device = size, seed, device
        self.sampler = make_sampler(train.labels, seed, balanced=balanced)
        self.crop, self.image = CropReader(train, augmentation), replace_within_class(train)
        self.bad_files = BadFileLimit(len(train), bad_limit, log, processes)
        self.prefetcher = Prefetcher(self._begin, threads, last)
        self.last, self._prefetched = last, 0  # iterations whose files are being fetched

    def indices(self, iteration: int) -> Tensor:
        """Return the image indices of the mini-batch of `iteration`, counted from 0; [B].

        Bad images are not replaced here.
        """
        return self.sampler(iteration * self.size, self.size)

    def draws(self, iteration: int) -> Draws:
        """Sample images [B], crops and flips, and colour factors [B, 3] for a mini-batch.

        Crops and flips are given by random numbers in [0, 1), float64 [B, n].
        """
        rng = make_generator(self.seed, Stream.AUGMENTATION, iteration)
        crops = torch.rand(self.size, self.augmentation.draws, generator=rng, dtype=torch.float64)
        factors = self.augmentation.colour * torch.randn(self.size, 3, generator=rng)
        numbers = (crops[self.rank_slice], factors[self.rank_slice])
        return Draws(iteration, self.indices(iteration)[self.rank_slice], numbers)

    def __call__(self, iteration: int) -> Batch:
        """Return this process's part of the mini-batch of `iteration`, from 0."""
        return self.batch(self.draws(iteration))

    def batch(self, draws: Draws) -> Batch:
        """Return the mini-batch for the given draws, which threads may have prepared already."""
        *rows, batch = self.prefetcher(draws.iteration)
        bad = [index for row in rows for index in row.result()]
        self.bad_files.report({index: self.image.reasons[index] for index in bad})
        return batch.result()

    def close(self) -> None:
        """End the threads, each after its current image."""
        self.prefetcher.close()

    def _begin(self, threads: Executor, iteration: int) -> list[Future[Any]]:
        """Submit the work for a batch; return one future per image, and last the Batch's future."""
        self._prefetch_files(iteration)
        draws, side = self.draws(iteration), self.augmentation.size
        (crops, factors), indices = draws.numbers, draws.indices
        images = np.empty((len(indices), side, side, 3), np.uint8)
        rows: list[Future[Any]] = [
            threads.submit(self._fill, image, index, numbers)
            for image, index, numbers in zip(images, indices.tolist(), crops.tolist(), strict=True)
        ]
        labels = self.train.labels[indices]
        return [*rows, threads.submit(self._finish, images, labels, factors, rows)]

    def _prefetch_files(self, iteration: int) -> None:
        """Start fetching the files of the next batches, if the set is remote."""
        if self.train.prefetch is None:
            return
        end = iteration + 1 + -(-PREFETCHED // self.size)
        end = end if self.last is None else min(end, self.last)
        for number in range(max(self._prefetched, iteration), end):
            indices = self.indices(number)[self.rank_slice].tolist()
            self.train.prefetch([self.train.files[index] for index in indices])
        self._prefetched = max(self._prefetched, end)

    def _fill(self, row: np.ndarray, index: int, draws: list[float]) -> list[int]:
        """Decode, crop and flip an image into `row` [S, S, 3]; return the bad indices tried."""
        row[:], _, bad = self.image.first_good(index, lambda candidate: self.crop(candidate, draws))
        return bad

    def _finish(
        self, images: np.ndarray, labels: Tensor, factors: Tensor, rows: Iterable[Future[Any]]
    ) -> Batch:
        """Build a batch from `images` [B, S, S, 3] as soon as all `rows` are filled.

        The rows were submitted first, so none of them can be queued behind this job.
        """
        wait(rows)
        pixels = torch.from_numpy(images).to(self.device).float()  # uint8 is faster to transfer
        if self.colour is not None:
            shift = colour_shift(factors, self.colour).to(self.device)
            # add to rows of pixels at once: adding three numbers at a time takes three times longer
            pixels.flatten(2).add_(shift.repeat(1, pixels.shape[2])[:, None])
        return Batch(self.prepare(pixels.permute(0, 3, 1, 2)), labels.to(self.device))
