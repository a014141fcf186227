"""The k-th mini-batch as a function of (seed, k) alone: nothing to save, nothing to replay."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reslab.data.augment import (
    WHOLE_BATCH,
    Components,
    ResizedCrop,
    ScaleCrop,
    colour_shift,
    pad_and_crop,
    random_flip,
)
from reslab.data.datasets import EXPECTED, EncodedImages, ImagesInMemory
from reslab.data.decode import BadImage
from reslab.data.resize import cut
from reslab.data.sampler import (
    AUGMENTATION,
    ORDER,
    ClassBalancedSampler,
    ShuffleSampler,
    make_generator,
)
from reslab.runtime.device import Processes, SingleProcess
from reslab.runtime.threads import Prefetcher


@dataclass(frozen=True)
class Batch:
    """Images ready for a network, and their labels."""

    images: Tensor  # float [B, 3, H, W], mean subtracted, channels last
    labels: Tensor  # int64 [B]


class InMemoryLoader:
    """Shuffled, augmented mini-batches of a set that lies in memory.

    The epochs' permutations follow each other without a seam: the last, partial batch of an epoch
    is filled from the next one. Of each only a `part` may be prepared.
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
        sampler: bool = False,
        part: slice = WHOLE_BATCH,
    ) -> None:
        self.part = part
        self.images, self.labels, self.prepare = train.images, train.labels, prepare
        self.size, self.pad, self.flip, self.seed = size, pad, flip, seed
        labels = train.labels.cpu()
        self.order = (
            ClassBalancedSampler(labels, seed)
            if sampler
            else ShuffleSampler(len(labels), seed, ORDER)
        )

    def indices(self, iteration: int) -> Tensor:
        """Which images the batch of `iteration` (from 0) holds, [B]."""
        return self.order(iteration * self.size, self.size)

    def __call__(self, iteration: int) -> Batch:
        """The part of the mini-batch of `iteration`, counted from 0."""
        chosen = self.indices(iteration)[self.part].to(self.images.device)
        rng = make_generator(self.seed, AUGMENTATION, iteration)
        images = self.prepare(self.images[chosen])
        if self.pad:
            images = pad_and_crop(images, self.pad, rng, self.size, self.part)
        if self.flip:
            images = random_flip(images, rng, self.size, self.part)
        images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, self.labels[chosen])


class Fallback(Protocol):
    """Which images may be shown in the place of one."""

    def __call__(self, index: int) -> Iterator[int]:
        """The image itself, then what stands in for it, the next best each time."""
        ...

    def failure(self, index: int) -> str:
        """What it means that all of them are bad."""
        ...


@dataclass(frozen=True)
class SameClassFallback:
    """The others of an image's class, from the next one round."""

    labels: Tensor  # int64 [N]
    classes: tuple[str, ...]

    def __call__(self, index: int) -> Iterator[int]:
        yield index
        of_class = (self.labels == self.labels[index]).nonzero()[:, 0]
        after, before = of_class[of_class > index], of_class[of_class < index]
        yield from after.tolist()
        yield from before.tolist()

    def failure(self, index: int) -> str:
        return f"no image of class {self.classes[int(self.labels[index])]!r} can be decoded"


class ReplaceBad:
    """Images by index, the bad ones replaced; a function of the set alone.

    Any thread may call it. What was found bad is remembered, and not read again.
    """

    def __init__(self, image: Callable[[int], np.ndarray], stand_ins: Fallback) -> None:
        self.image, self.stand_ins = image, stand_ins
        self.reasons: dict[int, str] = {}  # of the bad images

    def __call__(self, index: int) -> tuple[np.ndarray, int, list[int]]:
        """RGB bytes [H, W, 3], whose they are, and which images proved bad on the way to them."""
        bad = []
        for candidate in self.stand_ins(index):
            if candidate not in self.reasons:
                try:
                    return self.image(candidate), candidate, bad
                except (BadImage, OSError) as error:  # a caller's own reader may raise the latter
                    self.reasons[candidate] = str(error)
            bad.append(candidate)
        raise ValueError(
            f"{self.stand_ins.failure(index)}, for one: {self.reasons[index]}; "
            "`reslab check FOLDER` lists them"
        )


class BadFileLimit:
    """Those met so far in a set: each is told of once, and too many are an error."""

    def __init__(self, count: int, limit: float, on_event: Callable[[str], None]) -> None:
        self.count, self.limit, self.on_event = count, limit, on_event
        self.reported: set[int] = set()

    @property
    def most(self) -> int:
        """How many are let pass: one in a set of any size, if any is."""
        return int(max(self.limit * self.count, self.limit > 0))

    def note(self, bad: Iterable[int], reasons: Mapping[int, str]) -> None:
        for index in bad:
            if index not in self.reported:
                self.reported.add(index)
                self.on_event(f"skipped {reasons[index]}")
        if len(self.reported) > self.most:
            raise ValueError(
                f"{self.too_many(len(self.reported))}; `reslab check FOLDER` lists them"
            )

    def too_many(self, bad: int) -> str:
        return (
            f"{bad:,} of {self.count:,} images cannot be used, and "
            f"bad_limit is {self.limit:g} of them"
        )


CPU = torch.device("cpu")


@dataclass(frozen=True)
class PendingImages:
    """A batch that threads are working on."""

    bad: list["Future[list[int]]"]  # for each image, the bad files met on the way to it
    batch: "Future[Batch]"

    def cancel(self) -> None:
        for future in (*self.bad, self.batch):
            future.cancel()


class EncodedLoader:
    """Shuffled, augmented mini-batches of a set of encoded images, on a device.

    Batches may be asked for in any order; the ones after the last one asked for are decoded
    meanwhile, but no more than `last` in all. A file that does not decode is replaced (see
    Replaced) and told of once; more of them than one and than the share `bad_limit` of the set
    are an error. Of several processes each prepares a part, and all hear of bad files. `prepare`
    turns float RGB [B, 3, S, S] of 0 to 255 into the network's input; threads call it.
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
        sampler: bool,
        bad_limit: float,
        on_event: Callable[[str], None],
        last: int | None = None,
        device: torch.device = CPU,
        processes: Processes = SingleProcess(),
    ) -> None:
        self.processes, self.part = processes, processes.rank_slice(size)
        self.train, self.prepare = train, prepare
        self.augmentation, self.colour = augmentation, colour
        self.size, self.seed, self.device = size, seed, device
        self.order = (
            ClassBalancedSampler(train.labels, seed)
            if sampler
            else ShuffleSampler(len(train), seed, ORDER)
        )
        self.image = ReplaceBad(train.image, SameClassFallback(train.labels, train.classes))
        self.bad = BadFileLimit(len(train), bad_limit, on_event)
        self.ahead = Prefetcher(self._begin, threads, last)
        self.last, self._announced = last, 0  # batches of which the set has heard

    def indices(self, iteration: int) -> Tensor:
        """Which images the batch of `iteration` (from 0) shows, bad ones not replaced, [B]."""
        return self.order(iteration * self.size, self.size)

    def __call__(self, iteration: int) -> Batch:
        """The part of the mini-batch of `iteration`, counted from 0."""
        begun = self.ahead(iteration)
        own = [index for future in begun.bad for index in future.result()]
        for bad in self.processes.all_gather_objects({it: self.image.reasons[it] for it in own}):
            self.bad.note(bad, bad)
        return begun.batch.result()

    def close(self) -> None:
        """End the threads, each as soon as it is done with its image."""
        self.ahead.close()

    def _begin(self, threads: Executor, iteration: int) -> PendingImages:
        self._announce(iteration)
        chosen = self.indices(iteration)[self.part]
        rng = make_generator(self.seed, AUGMENTATION, iteration)
        draws = torch.rand(self.size, self.augmentation.draws, generator=rng, dtype=torch.float64)
        factors = self.augmentation.colour * torch.randn(self.size, 3, generator=rng)
        draws, factors = draws[self.part], factors[self.part]
        side = self.augmentation.size
        rows = np.empty((len(chosen), side, side, 3), np.uint8)
        bad = [
            threads.submit(self._fill, row, index, numbers)
            for row, index, numbers in zip(rows, chosen.tolist(), draws.tolist(), strict=True)
        ]
        labels = self.train.labels[chosen]
        return PendingImages(bad, threads.submit(self._finish, rows, labels, factors, bad))

    def _announce(self, iteration: int) -> None:
        """Tell a set that has to fetch its images which will be read after this batch."""
        if self.train.expect is None:
            return
        end = iteration + 1 + -(-EXPECTED // self.size)
        end = end if self.last is None else min(end, self.last)
        for number in range(max(self._announced, iteration), end):
            own = self.indices(number)[self.part].tolist()
            self.train.expect([self.train.files[index] for index in own])
        self._announced = max(self._announced, end)

    def _fill(self, row: np.ndarray, index: int, draws: list[float]) -> list[int]:
        """Decode, crop and flip one image into its row [S, S, 3]; the bad files met."""
        image, _, bad = self.image(index)
        height, width = image.shape[:2]
        part = self.augmentation.cut(width, height, draws)
        row[:] = cut(image, part.box, part.size, part.flip)
        return bad

    def _finish(
        self, rows: np.ndarray, labels: Tensor, factors: Tensor, bad: list["Future[list[int]]"]
    ) -> Batch:
        """A batch of its images [B, S, S, 3], when all are there.

        They were given to the threads before: the last of them are in work, none is waiting.
        """
        wait(bad)
        images = torch.from_numpy(rows).to(self.device).float()  # bytes travel faster than floats
        if self.colour is not None:
            shift = colour_shift(factors, self.colour).to(self.device)
            # a line of pixels at once: three numbers at a time would take thrice as long
            images.flatten(2).add_(shift.repeat(1, images.shape[2])[:, None])
        return Batch(self.prepare(images.permute(0, 3, 1, 2)), labels.to(self.device))
