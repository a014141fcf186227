"""The k-th mini-batch as a function of (seed, k) alone: nothing to save, nothing to replay."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Generator, Tensor

from reslab.data.images import ImageSet
from reslab.data.transforms import pad_and_crop, random_flip

ORDER, AUGMENTATION = 0, 1  # the streams of random numbers that a seed is split into


def generator(*key: int) -> Generator:
    """Independent random numbers for each key of whole numbers."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


@dataclass(frozen=True)
class Batch:
    """Pictures ready for a network, and their labels."""

    images: Tensor  # float [B, 3, H, W], mean subtracted, channels last
    labels: Tensor  # int64 [B]


class Batches:
    """Shuffled, augmented mini-batches of a set that lies in memory.

    The epochs' permutations follow each other without a seam: the last, partial batch of an epoch
    is filled from the next one.
    """

    def __init__(
        self, train: ImageSet, mean: Tensor, *, size: int, pad: int, flip: bool, seed: int
    ) -> None:
        self.images, self.labels, self.mean = train.images, train.labels, mean
        self.size, self.pad, self.flip, self.seed = size, pad, flip, seed
        # an epoch's order is asked for by every batch of it
        self._permutation = lru_cache(maxsize=2)(self._draw_permutation)

    def _draw_permutation(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.labels), generator=generator(self.seed, ORDER, epoch))

    def indices(self, iteration: int) -> Tensor:
        """Which pictures the batch of `iteration` (from 0) holds, [B]."""
        count = len(self.labels)
        parts, position, left = [], iteration * self.size, self.size
        while left:
            epoch, start = divmod(position, count)
            part = self._permutation(epoch)[start : start + left]
            parts.append(part)
            position, left = position + len(part), left - len(part)
        return torch.cat(parts)

    def __call__(self, iteration: int) -> Batch:
        """The mini-batch of `iteration`, counted from 0."""
        chosen = self.indices(iteration).to(self.images.device)
        rng = generator(self.seed, AUGMENTATION, iteration)
        images = self.images[chosen].float() - self.mean
        if self.pad:
            images = pad_and_crop(images, self.pad, rng)
        if self.flip:
            images = random_flip(images, rng)
        images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, self.labels[chosen])
