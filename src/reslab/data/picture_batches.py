"""Mini-batches of photographs: decoded by threads ahead of need, yet a function of (seed, k)."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reslab.data.augment import ResizedCrop, ScaleCrop
from reslab.data.batches import Batch
from reslab.data.order import AUGMENTATION, ORDER, Balanced, Shuffled, generator
from reslab.data.pictures import PictureSet
from reslab.data.replaced import Replaced
from reslab.data.resize import cut
from reslab.data.statistics import Components, colour_shift

AHEAD = 2  # batches that the threads work on before they are asked for
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Begun:
    """A batch that threads are filling."""

    rows: np.ndarray  # uint8 [B, S, S, 3]
    labels: Tensor  # int64 [B]
    factors: Tensor  # [B, 3], of the colours' components
    bad: list["Future[list[int]]"]  # of each row, once it is filled: the bad files met on the way


class PictureBatches:
    """Shuffled, augmented mini-batches of a set of encoded pictures, on a device.

    Batches may be asked for in any order; the ones after the last one asked for are decoded
    meanwhile, up to the one numbered `last`. A file that does not decode is replaced (see
    Replaced) and told of once; more of them than the share `bad_limit` of the set are an error.
    """

    def __init__(
        self,
        train: PictureSet,
        prepare: Callable[[Tensor], Tensor],  # float RGB [B, 3, S, S], 0 to 255 -> network input
        *,
        augmentation: ScaleCrop | ResizedCrop,
        colour: Components | None,
        size: int,
        seed: int,
        threads: int,
        balance: Literal["none", "sampler"],
        bad_limit: float,
        tell: Callable[[str], None],
        last: int | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.train, self.prepare = train, prepare
        self.augmentation, self.colour = augmentation, colour
        self.size, self.seed, self.last, self.device = size, seed, last, device
        self.bad_limit, self.tell = bad_limit, tell
        self.told: set[int] = set()  # the bad files so far
        sampler = balance == "sampler"
        self.order = Balanced(train.labels, seed) if sampler else Shuffled(len(train), seed, ORDER)
        self.picture = Replaced(train)
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="reslab-pictures")
        self.begun: dict[int, Begun] = {}

    def indices(self, iteration: int) -> Tensor:
        """Which pictures the batch of `iteration` (from 0) shows, bad ones not replaced, [B]."""
        return self.order(iteration * self.size, self.size)

    def __call__(self, iteration: int) -> Batch:
        """The mini-batch of `iteration`, counted from 0."""
        last = iteration + AHEAD if self.last is None else min(iteration + AHEAD, self.last)
        wanted = range(iteration, max(last, iteration) + 1)
        for other in self.begun.keys() - set(wanted):
            for future in self.begun.pop(other).bad:
                future.cancel()
        for number in wanted:
            if number not in self.begun:
                self.begun[number] = self._begin(number)
        return self._finished(self.begun.pop(iteration))

    def close(self) -> None:
        """End the threads, each as soon as it is done with its picture."""
        self.threads.shutdown(cancel_futures=True)

    def _begin(self, iteration: int) -> Begun:
        chosen = self.indices(iteration)
        rng = generator(self.seed, AUGMENTATION, iteration)
        draws = torch.rand(self.size, self.augmentation.draws, generator=rng, dtype=torch.float64)
        factors = self.augmentation.colour * torch.randn(self.size, 3, generator=rng)
        side = self.augmentation.size
        rows = np.empty((self.size, side, side, 3), np.uint8)
        bad = [
            self.threads.submit(self._fill, row, index, numbers)
            for row, index, numbers in zip(rows, chosen.tolist(), draws.tolist(), strict=True)
        ]
        return Begun(rows, self.train.labels[chosen], factors, bad)

    def _fill(self, row: np.ndarray, index: int, draws: list[float]) -> list[int]:
        """Decode, crop and flip one picture into its row [S, S, 3]; the bad files met."""
        picture, bad = self.picture(index)
        height, width = picture.shape[:2]
        part = self.augmentation.cut(width, height, draws)
        row[:] = cut(picture, part.box, part.size, part.flip)
        return bad

    def _finished(self, begun: Begun) -> Batch:
        for future in begun.bad:
            self._count(future.result())
        images = torch.from_numpy(begun.rows).to(self.device).float()  # floats only where needed
        if self.colour is not None:
            shift = colour_shift(begun.factors, self.colour).to(self.device)
            # a whole line of pixels at once: three numbers at a time would take thrice as long
            line = shift.repeat(1, images.shape[2])
            images.flatten(2).add_(line[:, None])
        return Batch(self.prepare(images.permute(0, 3, 1, 2)), begun.labels.to(self.device))

    def _count(self, bad: list[int]) -> None:
        for index in bad:
            if index not in self.told:
                self.told.add(index)
                self.tell(f"skipped {self.picture.reasons[index]}")
        if len(self.told) > self.bad_limit * len(self.train):
            raise ValueError(
                f"{len(self.told):,} of {len(self.train):,} pictures do not decode, and "
                f"bad_limit is {self.bad_limit:g} of them; `reslab check FOLDER` lists them"
            )
