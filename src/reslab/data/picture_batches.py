"""Mini-batches of photographs: decoded by threads ahead of need, yet a function of (seed, k)."""

from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reslab.data.ahead import Ahead
from reslab.data.augment import ResizedCrop, ScaleCrop
from reslab.data.batches import Batch
from reslab.data.order import AUGMENTATION, ORDER, Balanced, Shuffled, generator
from reslab.data.pictures import EXPECTED, PictureSet
from reslab.data.replaced import BadFiles, Replaced, SameClass
from reslab.data.resize import cut
from reslab.data.statistics import Components, colour_shift
from reslab.world import Alone, Processes

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Begun:
    """A batch that threads are working on."""

    bad: list["Future[list[int]]"]  # for each picture, the bad files met on the way to it
    batch: "Future[Batch]"

    def cancel(self) -> None:
        for future in (*self.bad, self.batch):
            future.cancel()


class PictureBatches:
    """Shuffled, augmented mini-batches of a set of encoded pictures, on a device.

    Batches may be asked for in any order; the ones after the last one asked for are decoded
    meanwhile, but no more than `last` in all. A file that does not decode is replaced (see
    Replaced) and told of once; more of them than one and than the share `bad_limit` of the set
    are an error. Of several processes each prepares a part, and all hear of bad files. `prepare`
    turns float RGB [B, 3, S, S] of 0 to 255 into the network's input; threads call it.
    """

    def __init__(
        self,
        train: PictureSet,
        prepare: Callable[[Tensor], Tensor],
        *,
        augmentation: ScaleCrop | ResizedCrop,
        colour: Components | None,
        size: int,
        seed: int,
        threads: int,
        sampler: bool,
        bad_limit: float,
        tell: Callable[[str], None],
        last: int | None = None,
        device: torch.device = CPU,
        processes: Processes = Alone(),
    ) -> None:
        self.processes, self.part = processes, processes.part(size)
        self.train, self.prepare = train, prepare
        self.augmentation, self.colour = augmentation, colour
        self.size, self.seed, self.device = size, seed, device
        self.order = Balanced(train.labels, seed) if sampler else Shuffled(len(train), seed, ORDER)
        self.picture = Replaced(train.picture, SameClass(train.labels, train.classes))
        self.bad = BadFiles(len(train), bad_limit, tell)
        self.ahead = Ahead(self._begin, threads, last)
        self.last, self._announced = last, 0  # batches of which the set has heard

    def indices(self, iteration: int) -> Tensor:
        """Which pictures the batch of `iteration` (from 0) shows, bad ones not replaced, [B]."""
        return self.order(iteration * self.size, self.size)

    def __call__(self, iteration: int) -> Batch:
        """The part of the mini-batch of `iteration`, counted from 0."""
        begun = self.ahead(iteration)
        own = [index for future in begun.bad for index in future.result()]
        for bad in self.processes.gather_objects({it: self.picture.reasons[it] for it in own}):
            self.bad.note(bad, bad)
        return begun.batch.result()

    def close(self) -> None:
        """End the threads, each as soon as it is done with its picture."""
        self.ahead.close()

    def _begin(self, threads: Executor, iteration: int) -> Begun:
        self._announce(iteration)
        chosen = self.indices(iteration)[self.part]
        rng = generator(self.seed, AUGMENTATION, iteration)
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
        return Begun(bad, threads.submit(self._finish, rows, labels, factors, bad))

    def _announce(self, iteration: int) -> None:
        """Tell a set that has to fetch its pictures which will be read after this batch."""
        if self.train.expect is None:
            return
        end = iteration + 1 + -(-EXPECTED // self.size)
        end = end if self.last is None else min(end, self.last)
        for number in range(max(self._announced, iteration), end):
            own = self.indices(number)[self.part].tolist()
            self.train.expect([self.train.files[index] for index in own])
        self._announced = max(self._announced, end)

    def _fill(self, row: np.ndarray, index: int, draws: list[float]) -> list[int]:
        """Decode, crop and flip one picture into its row [S, S, 3]; the bad files met."""
        picture, _, bad = self.picture(index)
        height, width = picture.shape[:2]
        part = self.augmentation.cut(width, height, draws)
        row[:] = cut(picture, part.box, part.size, part.flip)
        return bad

    def _finish(
        self, rows: np.ndarray, labels: Tensor, factors: Tensor, bad: list["Future[list[int]]"]
    ) -> Batch:
        """A batch of its pictures [B, S, S, 3], when all are there.

        They were given to the threads before: the last of them are in work, none is waiting.
        """
        wait(bad)
        images = torch.from_numpy(rows).to(self.device).float()  # bytes travel faster than floats
        if self.colour is not None:
            shift = colour_shift(factors, self.colour).to(self.device)
            # a line of pixels at once: three numbers at a time would take thrice as long
            images.flatten(2).add_(shift.repeat(1, images.shape[2])[:, None])
        return Batch(self.prepare(images.permute(0, 3, 1, 2)), labels.to(self.device))
