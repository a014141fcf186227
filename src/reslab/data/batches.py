"""The k-th mini-batch as a function of (seed, k) alone: nothing to save, nothing to replay."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.data.order import AUGMENTATION, ORDER, Balanced, Shuffled, generator
from reslab.data.transforms import WHOLE, pad_and_crop, random_flip


@dataclass(frozen=True)
class Batch:
    """Pictures ready for a network, and their labels."""

    images: Tensor  # float [B, 3, H, W], mean subtracted, channels last
    labels: Tensor  # int64 [B]


class Batches:
    """Shuffled, augmented mini-batches of a set that lies in memory.

    The epochs' permutations follow each other without a seam: the last, partial batch of an epoch
    is filled from the next one. Of each only a `part` may be prepared.
    """

    def __init__(
        self,
        train: ImageSet,
        prepare: Callable[[Tensor], Tensor],
        *,
        size: int,
        pad: int,
        flip: bool,
        seed: int,
        sampler: bool = False,
        part: slice = WHOLE,
    ) -> None:
        self.part = part
        self.images, self.labels, self.prepare = train.images, train.labels, prepare
        self.size, self.pad, self.flip, self.seed = size, pad, flip, seed
        labels = train.labels.cpu()
        self.order = Balanced(labels, seed) if sampler else Shuffled(len(labels), seed, ORDER)

    def indices(self, iteration: int) -> Tensor:
        """Which pictures the batch of `iteration` (from 0) holds, [B]."""
        return self.order(iteration * self.size, self.size)

    def __call__(self, iteration: int) -> Batch:
        """The part of the mini-batch of `iteration`, counted from 0."""
        chosen = self.indices(iteration)[self.part].to(self.images.device)
        rng = generator(self.seed, AUGMENTATION, iteration)
        images = self.prepare(self.images[chosen])
        if self.pad:
            images = pad_and_crop(images, self.pad, rng, self.size, self.part)
        if self.flip:
            images = random_flip(images, rng, self.size, self.part)
        images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, self.labels[chosen])
